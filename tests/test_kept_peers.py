"""Blocks that have no module here keep what transformers' layers keep, and fla's kernels save."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import DeepseekV3Config, Lfm2Config, Qwen3NextConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3RotaryEmbedding,
)
from transformers.models.lfm2.modeling_lfm2 import Lfm2ShortConv
from transformers.models.qwen3_next.modeling_qwen3_next import (
    Qwen3NextAttention,
    Qwen3NextRotaryEmbedding,
)

from cookbook_lib.benchmarks.saved import saved
from cookbook_lib.blocks.cache import DTYPES
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.kept import nbytes, selective, tensors
from cookbook_lib.calculators.runs import Run

B, L, D, HEADS = 2, 64, 64, 4
RUN = Run(b=B, l=L)
GATED = specs.Attention(
    d_model=D, n_heads=HEADS, n_kv_heads=2, head_dim=32, gated=True, qk_norm="head"
)
MLA = specs.MLA(
    d_model=D,
    n_heads=HEADS,
    q_lora_rank=24,
    kv_lora_rank=16,
    qk_nope_head_dim=32,
    qk_rope_head_dim=16,
    v_head_dim=24,
)
DELTANET = specs.GatedDeltaNet(d_model=D, n_k_heads=2, n_v_heads=4, head_k_dim=16)
RWKV7 = specs.RWKV7(d_model=D, headdim=16)
KDA = specs.KDA(d_model=D, n_heads=HEADS, head_dim=16)
LIGHTNING = specs.Lightning(d_model=D, n_heads=HEADS, head_dim=16)


def said(spec, dtype: str, kernels: str, *names: str) -> int:
    """Bytes of all tensors that are declared, or of those with these names."""
    kept = [t for t in tensors(spec, RUN, kernels) if t.name in names or not names]
    return sum(nbytes(spec, t, RUN, dtype) for t in kept)


def measured(layer, dtype: str, rope=None, mask=None) -> int:
    x = torch.randn(B, L, D, dtype=DTYPES[dtype], requires_grad=True)
    tables = rope(x, torch.arange(L)[None]) if rope else ()
    given = {"attention_mask": mask} | ({"position_embeddings": tables} if rope else {})
    return saved(lambda: layer(x, **given), but=(*layer.parameters(), *tables)).nbytes


@pytest.mark.parametrize(
    "attention, kernels, dtype",
    [("sdpa", "eager", "fp32"), ("sdpa", "eager", "bf16"), ("eager", "unfused", "fp32")],
)
def test_gated_attention_keeps_what_qwen3_next_keeps(attention, kernels, dtype):
    """In float32 the norm of the queries keeps a view of q_proj's output, the gate's half too."""
    config = Qwen3NextConfig(
        hidden_size=D,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        head_dim=32,
        attn_implementation=attention,
    )
    layer = Qwen3NextAttention(config, 0).to(DTYPES[dtype])
    mask = torch.full((1, 1, L, L), -1e9, dtype=DTYPES[dtype]).triu(1)
    mask = mask if attention == "eager" else None
    found = measured(layer, dtype, Qwen3NextRotaryEmbedding(config), mask)
    view = B * L * GATED.d_q * 4 if dtype == "fp32" else 0
    weights = 2 * GATED.head_dim * 4  # one more than what the norms store
    assert said(GATED, dtype, kernels) + view + weights == found


def test_latent_attention_keeps_what_deepseek_keeps_but_its_scores():
    """Its norms are two steps on a CPU; its scores are kept there, and no sum for each row."""
    config = DeepseekV3Config(
        hidden_size=D,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        q_lora_rank=24,
        kv_lora_rank=16,
        qk_nope_head_dim=32,
        qk_rope_head_dim=16,
        v_head_dim=24,
        attn_implementation="sdpa",
    )
    found = measured(DeepseekV3Attention(config, 0), "fp32", DeepseekV3RotaryEmbedding(config))
    twice = said(MLA, "fp32", "fused", "q_normed", "latent_normed")
    scores = B * HEADS * L * L * 4 - said(MLA, "fp32", "fused", "logsumexp")
    assert said(MLA, "fp32", "fused") + twice + scores == found


def test_the_gated_convolution_keeps_what_lfm2_keeps():
    """PyTorch's convolution is padded on both ends, and so is what the gate keeps of it."""
    config = Lfm2Config(hidden_size=D, conv_L_cache=3, layer_types=["conv"], num_hidden_layers=1)
    spec, padding = specs.GatedConv(d_model=D), B * 2 * D * 4
    found = measured(Lfm2ShortConv(config, 0), "fp32")
    assert said(spec, "fp32", "fused") + padding == found


def saves(module: str, function: str) -> list[str]:
    """The tensors that an autograd function of fla saves, read from its source.

    Where an option decides, those that it saves if the rest is made again.
    """
    folder = Path(*find_spec("fla").submodule_search_locations)
    tree = ast.parse(folder.joinpath(*module.split(".")).with_suffix(".py").read_text())
    found = next(d for d in tree.body if isinstance(d, ast.ClassDef) and d.name == function)
    calls = [n for n in ast.walk(found) if isinstance(n, ast.Call)]
    lists = [c.args for c in calls if getattr(c.func, "attr", "") == "save_for_backward"]
    return [arg.id for arg in min(lists, key=len)]


NOTHING = ""  # a weight, an option that is off, or one of those that are made again
KERNELS = {
    ("ops.kda.chunk", "ChunkKDAFunction", KDA): {
        **{"q": "q", "q_rstd": "q_rms", "k": "k", "k_rstd": "k_rms", "v": "v"},
        **{"g_input": "decay_in", "beta_raw": "beta_in", "beta": "beta"},
        **{"Aqk": "scores", "Akk": "system"},
        **dict.fromkeys(["A_log", "dt_bias", "initial_state"], NOTHING),
        **dict.fromkeys(["g_cumsum", "w", "u", "qg", "kg", "v_new", "h"], NOTHING),
        **dict.fromkeys(["cu_seqlens", "chunk_indices", "chunk_offsets"], NOTHING),
    },
    ("ops.gated_delta_rule.chunk", "ChunkGatedDeltaRuleFunction", DELTANET): {
        **{"q": "q", "q_rstd": "q_rms", "k": "k", "k_rstd": "k_rms", "v": "v"},
        **{"g": "decay", "beta": "beta", "A": "A"},
        **dict.fromkeys(["beta_raw", "g_input", "A_log", "dt_bias", "initial_state"], NOTHING),
        **dict.fromkeys(["cu_seqlens", "chunk_indices"], NOTHING),
    },
    ("ops.generalized_delta_rule.dplr.chunk", "ChunkDPLRDeltaRuleFunction", RWKV7): {
        **{"q": "r", "k": "k_mixed", "v": "v", "a": "minus_kk", "b": "kk_a", "gk": "w"},
        "initial_state": NOTHING,
    },
    ("ops.rwkv7.gate_output_correction", "GateOutputCorrection", RWKV7): {
        **{"o": "normed", "r": "r", "k": "k_mixed", "r_k": NOTHING, "v": "v", "g": "g"},
    },
    ("ops.simple_gla.chunk", "ChunkSimpleGLAFunction", LIGHTNING): {
        **dict.fromkeys("qkv", "qkv"),
        **dict.fromkeys(["g", "g_gamma", "initial_state", "chunk_indices"], NOTHING),
    },
}


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel[0])
def test_each_tensor_that_a_kernel_saves_is_declared(kernel):
    module, function, spec = kernel
    assert set(saves(module, function)) == set(KERNELS[kernel])
    declared = {t.name for t in spec.kept_fused(RUN)}
    assert set(KERNELS[kernel].values()) - {NOTHING} <= declared


NEWER = {
    "gated attention": GATED,
    "mla": MLA,
    "mla with one query weight": MLA.but(q_lora_rank=None),
    "kda": KDA,
    "rwkv7": RWKV7,
    "first rwkv7": RWKV7.but(first=True),
    "lightning": LIGHTNING,
    "gated convolution": specs.GatedConv(d_model=D),
    "rg-lru": specs.RGLRU(d_model=D, n_heads=HEADS),
    "mlstm": specs.MLSTM(d_model=D, n_heads=HEADS, d_qk=32, d_v=64),
    "gate": specs.Gate(d_model=D),
}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NEWER)
def test_less_is_kept_by_fused_kernels_and_where_more_is_made_again(name, dtype):
    spec = NEWER[name]
    again = sum(nbytes(spec, t, RUN, dtype) for t in selective(spec, RUN))
    fused, eager = (said(spec, dtype, kernels) for kernels in ("fused", "eager"))
    assert again < fused <= eager
