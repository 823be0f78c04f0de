"""Matrix products and convolutions of each block cost what torch counts when it runs the block.

Each family runs in transformers, tiny, on the CPU, on paths that torch's counter can see: eager
attention (a fused one is not counted) and experts one by one. Two things are put right before the
numbers are compared: a causal convolution pads, so torch runs it on d_conv - 1 more positions; and
transformers' Mamba-2 copies B and C to each head, and carries the state over chunks with a product
of all pairs of chunks; its gated DeltaNet copies keys to the heads that share them, and KDA's
triangular solve is a product with an inverse where the scores are elementwise; MiniMax's last
chunk is not padded. Mamba-1's
recurrence is elementwise in torch, but for its last product; torch counts no triangular solve.
"""

import warnings
from collections import Counter

import pytest
import torch
from reference import AutoConfig, AutoModelForCausalLM, DynamicCache, saved
from torch.utils.flop_counter import FlopCounterMode

from cookbook_lib.calculators.configs import read_config
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.specs import (
    KDA,
    MLA,
    MLSTM,
    RGLRU,
    GatedConv,
    GatedDeltaNet,
    Lightning,
    Mamba2,
)

B, L, CHUNK = 2, 21, 8  # not a multiple of the chunk
SIZES = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 99,
}
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_state": 16, "mamba_chunk_size": 8}
KINDS = ["linear_attention", "full_attention"]
LATENT = {"num_key_value_heads": 4, "q_lora_rank": 20, "kv_lora_rank": 12, "v_head_dim": 10}
LATENT |= {"qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "first_k_dense_replace": 1}
LATENT |= {"moe_intermediate_size": 24, "num_experts_per_tok": 3, "n_group": 1, "topk_group": 1}
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
    "deepseek_v3": SIZES | LATENT | {"num_hidden_layers": 2, "n_routed_experts": 4},
    "kimi_linear": SIZES
    | LATENT
    | {"num_hidden_layers": 3, "layer_types": [*KINDS, KINDS[0]], "num_local_experts": 4}
    | {"linear_num_heads": 3, "linear_head_dim": 12, "pad_token_id": 0},
    "lfm2": SIZES | {"num_hidden_layers": 2, "layer_types": ["conv", KINDS[1]]},
    "lfm2_moe": SIZES
    | {"num_hidden_layers": 3, "layer_types": ["conv", KINDS[1], "conv"], "num_dense_layers": 1}
    | {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 3},
    "recurrent_gemma": SIZES | {"num_hidden_layers": 3, "head_dim": 16, "lru_width": 80},
    "xlstm": {"hidden_size": 128, "num_hidden_layers": 2, "vocab_size": 99, "num_heads": 4}
    | {"chunk_size": 7},  # else it runs the rest token by token
    "minimax": SIZES
    | {"num_hidden_layers": 2, "layer_types": KINDS, "num_local_experts": 4}
    | {"block_size": CHUNK},
}


def small(config) -> torch.nn.Module:
    """The model with random weights, on the paths that torch's counter sees."""
    config._attn_implementation = "eager"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(config).eval()
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    return model


def torch_counts(config, decode: bool = False) -> Counter:
    """FLOPs of products (mm, bmm, …) and of convolutions: of L tokens, or of the last alone."""
    model, tokens, given = small(config), torch.randint(0, 99, (B, L)), {"use_cache": False}
    with torch.no_grad():
        if decode:
            given = {"use_cache": True}
            if config.model_type == "recurrent_gemma":  # keeps its cache to itself
                given["past_key_values"] = DynamicCache(config=config)
            out = dict(model(tokens[:, :-1], **given)) | given
            given |= {k: out[k] for k in ("cache_params", "past_key_values") if k in out}
            tokens = tokens[:, -1:]
        with FlopCounterMode(display=False) as counter:
            model(tokens, **given, logits_to_keep=0)
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
    if isinstance(block, KDA):
        matmul += sum(r.flops for r in rows if r.op == "solve")
        matmul -= sum(r.flops for r in rows if r.op in ("scores", "system"))
    if isinstance(block, Lightning):
        short = {"scores": 2, "within": 2, "chunk_state": 1, "between": 1}  # axes that are q or k
        for row in (r for r in rows if r.op in short):
            full, rest = divmod(L, CHUNK)
            power = short[row.op]
            done = full * CHUNK**power + rest**power
            matmul += row.flops * done // (-(-L // CHUNK) * CHUNK**power) - row.flops
    return Counter(matmul=matmul, conv=conv)


@pytest.mark.parametrize("family", FAMILIES)
def test_products_and_convolutions(family, tmp_path):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family])
    model = read_config(saved(config, tmp_path, full=True))
    ours = sum((as_transformers_runs(block) for _, block in model.layout), Counter())
    assert ours == torch_counts(config)


def as_transformers_decodes(block: Block) -> Counter:
    """The rows of one token after L - 1, with the differences of transformers' paths.

    What the delta rules read is elementwise there, what linear attention writes a product. A
    convolution runs over its state and the new token, which gives two columns; RecurrentGemma's is
    elementwise. Latents are expanded, all of them.
    """
    run = Run(b=B, l=1, s=L)
    rows, size = block.rows(run), block.size(run)
    matmul, conv = (sum(r.flops for r in rows if r.kind == k) for k in ("matmul", "conv"))
    match block:
        case GatedDeltaNet() | KDA():
            matmul -= sum(r.flops for r in rows if r.op in ("held", "read"))
            conv *= 2
        case GatedConv():
            conv *= 2
        case RGLRU():
            conv = 0
        case Lightning() | MLSTM():
            matmul += sum(2 * r.flops for r in rows if r.op == "write")
        case MLA():
            forms = ((1, block.expanded()), (-1, block.absorbed()))
            matmul += sum(s * op.row("", "", size, False).flops for s, ops in forms for op in ops)
    return Counter(matmul=matmul, conv=conv)


NEWER = ("deepseek_v3", "kimi_linear", "lfm2", "lfm2_moe", "minimax", "qwen3_next", "xlstm")


@pytest.mark.parametrize("family", ("llama", "mixtral", "recurrent_gemma", *NEWER))
def test_products_and_convolutions_of_one_token(family, tmp_path):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family])
    model = read_config(saved(config, tmp_path, full=True))
    ours = sum((as_transformers_decodes(block) for _, block in model.layout), Counter())
    assert +ours == torch_counts(config, decode=True)
