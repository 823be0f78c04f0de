"""Tiny checkpoints written by transformers, with weights that make every part matter."""

import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

ATTENTION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 61,
    "pad_token_id": None,
    "eos_token_id": None,
    "bos_token_id": None,
}
EXPERTS = {"num_local_experts": 5, "num_experts": 5, "num_experts_per_tok": 2}
ZAMBA2 = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_hidden_layers": 7,
    "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid", "hybrid", "mamba", "hybrid"],
    "n_mamba_heads": 6,
    "mamba_d_state": 8,
    "adapter_rank": 3,
    "chunk_size": 4,
    "time_step_min": 1e-4,  # so that transformers' single step, which does not clamp, agrees
    "vocab_size": 61,
}
ZAMBA = {
    "num_hidden_layers": 6,
    "attn_layer_period": 2,
    "attn_layer_offset": 0,
    "n_mamba_heads": 2,
    "mamba_d_state": 5,
    "rms_norm_eps": 1e-3,
}
MAMBA2 = {"num_heads": 6, "head_dim": 8, "state_size": 8, "chunk_size": 4}
MAMBA = {"hidden_size": 24, "num_hidden_layers": 3, "vocab_size": 61, "layer_norm_epsilon": 1e-3}
LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 1e3, "factor": 8.0, "low_freq_factor": 1.0},
    **{"high_freq_factor": 4.0, "original_max_position_embeddings": 16},
}

CHECKPOINTS: dict[str, dict] = {  # "family variant" -> fields of its config
    "llama": ATTENTION | {"num_hidden_layers": 3},
    "llama tied, biased, llama3": ATTENTION
    | {"num_hidden_layers": 2, "tie_word_embeddings": True, "rope_parameters": LLAMA3}
    | {"attention_bias": True, "mlp_bias": True, "head_dim": 10},
    "mistral": ATTENTION | {"num_hidden_layers": 2, "sliding_window": 4},
    "phi3": ATTENTION | {"num_hidden_layers": 2, "sliding_window": 4},
    "qwen2": ATTENTION | {"num_hidden_layers": 2},
    "qwen3": ATTENTION | {"num_hidden_layers": 2, "head_dim": 8},
    "mixtral": ATTENTION | EXPERTS | {"num_hidden_layers": 2},
    "olmoe": ATTENTION | EXPERTS | {"num_hidden_layers": 2},
    "qwen3_moe": ATTENTION
    | EXPERTS
    | {"num_hidden_layers": 2, "moe_intermediate_size": 20, "head_dim": 6, "norm_topk_prob": True},
    "jamba": ATTENTION
    | EXPERTS
    | {"num_hidden_layers": 5, "attn_layer_period": 3, "attn_layer_offset": 1}
    | {"mamba_dt_rank": 3, "rms_norm_eps": 1e-3},
    "mamba": MAMBA | {"state_size": 5},
    "mamba biased": MAMBA | {"use_bias": True, "use_conv_bias": False, "time_step_rank": 3},
    "falcon_mamba": MAMBA | {"state_size": 5},
    "mamba2": MAMBA | MAMBA2 | {"n_groups": 1},
    "mamba2 groups, tied": MAMBA | MAMBA2 | {"n_groups": 3, "tie_word_embeddings": True},
    "mamba2 clamped": MAMBA | MAMBA2 | {"n_groups": 2, "time_step_limit": [0.1, 0.5]},
    "zamba": ATTENTION | ZAMBA,
    "zamba without gqa, conv bias": ATTENTION
    | ZAMBA
    | {"num_key_value_heads": 4, "mamba_conv_bias": False},
    "zamba2": ZAMBA2,
    "zamba2 two blocks, rope": ZAMBA2 | {"num_mem_blocks": 2, "use_mem_rope": True},
    "zamba2 lora on attention": ZAMBA2
    | {"use_shared_attention_adapter": True, "num_mem_blocks": 3},
    "zamba2 groups, rope, lora": ZAMBA2
    | {"mamba_ngroups": 2, "use_mem_rope": True, "use_shared_attention_adapter": True},
    "zamba2 biased, two blocks": ZAMBA2 | {"add_bias_linear": True, "num_mem_blocks": 2},
    "zamba2 clamped": ZAMBA2 | {"time_step_min": 0.2, "mamba_ngroups": 3},
}


@pytest.fixture(autouse=True)
def one_thread():
    """More threads only get into each other's way in products so small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write(name: str, folder: Path, fields=(), **options) -> torch.nn.Module:
    """Save the checkpoint of this name; return transformers' model, read back from the files.

    fields: further ones of its config. options: of `save_pretrained`.
    """
    family = name.split()[0]
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # notices about kernels that are not installed
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(family, **CHECKPOINTS[name] | dict(fields))
        )
        stir(model)
        model.save_pretrained(folder, **options)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def stir(model: torch.nn.Module) -> None:
    """Weights of a size that lets every part change the logits: fresh ones are nearly idle."""
    random = torch.Generator().manual_seed(0)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=random)
        if "dt_" in name and "bias" in name:
            p.copy_(1.2 * noise - 1.5)  # steps from 0.02 to 1.2: neither idle nor forgetful
        elif "norm" in name or name.endswith(("A_log", ".D")):
            p += 0.3 * noise
        elif p.dim() == 1 or "embed" in name or "conv1d" in name:
            p.copy_(0.3 * noise)
        else:
            p.copy_((1.5 if "x_proj" in name else 0.5) * p.shape[-1] ** -0.5 * noise)
