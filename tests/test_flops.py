"""Matrix products and convolutions of each block cost what torch counts when it runs the block.

Each family runs in transformers, tiny, on the CPU, on paths that torch's counter can see: eager
attention (a fused one is not counted) and experts one by one. Two things are put right before the
numbers are compared: a causal convolution pads, so torch runs it on d_conv - 1 more positions; and
transformers' Mamba-2 copies B and C to each head, and carries the state over chunks with a product
of all pairs of chunks; its gated DeltaNet copies keys to the heads that share them. Mamba-1's
recurrence is elementwise in torch, but for its last product; torch counts no triangular solve.
"""

import warnings
from collections import Counter

import pytest
import torch
from reference import AutoConfig, AutoModelForCausalLM, saved
from torch.utils.flop_counter import FlopCounterMode

from cookbook_lib.calculators.configs import read_config
from cookbook_lib.calculators.costs import Block, Run
from cookbook_lib.calculators.specs import GatedDeltaNet, Mamba2

B, L = 2, 21  # not a multiple of the chunk
SIZES = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 99,
}
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_state": 16, "mamba_chunk_size": 8}
KINDS = ["linear_attention", "full_attention"]
FAMILIES = {
    "llama": SIZES | {"num_hidden_layers": 2},
    "qwen3": SIZES | {"num_hidden_layers": 2, "head_dim": 8},
    "phi3": SIZES | {"num_hidden_layers": 2, "pad_token_id": 0},
    "gemma2": SIZES | {"num_hidden_layers": 2, "head_dim": 8},
    "mixtral": SIZES | {"num_hidden_layers": 2, "num_local_experts": 4},
    "olmoe": SIZES | {"num_hidden_layers": 2, "num_experts": 4, "num_experts_per_tok": 3},
    "gpt_neox": {k: v for k, v in SIZES.items() if "key_value" not in k} | {"num_hidden_layers": 2},
    "mamba": {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 99},
    "mamba2": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "vocab_size": 99,
        "num_heads": 8,
        "head_dim": 16,
        "state_size": 16,
        "n_groups": 2,
        "chunk_size": 8,
    },
    "zamba": SIZES
    | {"num_hidden_layers": 9, "num_key_value_heads": 4, "attn_layer_period": 3}
    | {"attn_layer_offset": 1, "mamba_dt_rank": 3},
    "zamba2": SIZES
    | {"num_hidden_layers": 5, "num_key_value_heads": 4, "num_mem_blocks": 2, "adapter_rank": 4}
    | {"n_mamba_heads": 8, "mamba_d_state": 16, "chunk_size": 8, "mamba_ngroups": 2}
    | {"use_shared_attention_adapter": True, "use_mem_rope": True}
    | {"layers_block_type": [KINDS[0], "hybrid", "hybrid", KINDS[0], "hybrid"]},
    "jamba": SIZES
    | {"num_hidden_layers": 6, "num_experts": 4, "attn_layer_period": 3}
    | {"attn_layer_offset": 1},
    "bamba": SIZES | MAMBA2 | {"num_hidden_layers": 3, "attn_layer_indices": [1]},
    "granitemoehybrid": SIZES | MAMBA2 | {"num_hidden_layers": 2, "layer_types": KINDS},
    "falcon_h1": SIZES | MAMBA2 | {"num_hidden_layers": 2, "mamba_d_ssm": 64},
    "nemotron_h": SIZES
    | {"layers_block_type": [*KINDS, "mlp"], "mamba_num_heads": 8, "mamba_head_dim": 8}
    | {"ssm_state_size": 16, "n_groups": 2, "chunk_size": 8, "head_dim": 16},
    "qwen3_next": SIZES
    | {"num_hidden_layers": 3, "layer_types": [*KINDS, KINDS[0]], "mlp_only_layers": [2]}
    | {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 3, "moe_intermediate_size": 24}
    | {"linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_key_head_dim": 16}
    | {"linear_value_head_dim": 24, "shared_expert_intermediate_size": 40},
}


def torch_counts(config) -> Counter:
    """FLOPs of products (mm, bmm, …) and of convolutions in one forward pass."""
    config._attn_implementation = "eager"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(config).eval()
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randint(0, 99, (B, L)), use_cache=False, logits_to_keep=0)
    counts = counter.get_flop_counts()["Global"]
    conv = sum(n for op, n in counts.items() if "convolution" in str(op))
    return +Counter(conv=conv, matmul=counter.get_total_flops() - conv)


def as_transformers_runs(block: Block) -> Counter:
    """The rows' sums, with the differences that the module's docstring names."""
    run = Run(b=B, l=L)
    rows = block.rows(run)
    matmul, conv = (sum(r.flops for r in rows if r.kind == k) for k in ("matmul", "conv"))
    if conv:
        conv = conv // L * (L + block.d_conv - 1)
    if isinstance(block, Mamba2):
        size, scores = block.size(run), next(r.flops for r in rows if r.op == "scores")
        copied = scores * (block.nheads // block.ngroups - 1)
        carried = 2 * B * block.nheads * (size("c") + 1) ** 2 * block.headdim * block.d_state
        matmul += copied + carried
    if isinstance(block, GatedDeltaNet):
        keys = sum(r.flops for r in rows if r.op in ("scores", "keys"))
        matmul += keys * (block.per_k - 1)
    return Counter(matmul=matmul, conv=conv)


@pytest.mark.parametrize("family", FAMILIES)
def test_products_and_convolutions(family, tmp_path):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family])
    model = read_config(saved(config, tmp_path, full=True))
    ours = sum((as_transformers_runs(block) for _, block in model.layout), Counter())
    assert ours == torch_counts(config)
