"""Architectures from a few choices: each is a config.json of a published family, read like any.

A choice says what a designer decides; `config` turns it into the fields of that family, so what
the planner counts, what it saves and what a framework loads are the same thing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cookbook_lib.calculators.configs import from_dict
from cookbook_lib.calculators.model import Model

HEAD_DIM = 128  # of attention; a power of two that every attention kernel takes
MAMBA_HEAD = 64  # of Mamba-2, mamba_ssm's default and that of all published models


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a designer decides. `attention`: one mixer in so many attends; 0 none, 1 all.

    per_kv: query heads that share a KV head. ff: width of the MLP as a multiple of d_model, that
    a token uses. experts, topk: 0 and 0 for none. blocks: shared transformer blocks.
    """

    family: str
    d_model: int
    layers: int
    attention: int = 0
    per_kv: int = 1
    d_state: int = 0
    ff: float = 0.0
    experts: int = 0
    topk: int = 0
    blocks: int = 0
    vocab: int = 32768
    tied: bool = True

    @property
    def share(self) -> float:
        """The share of the sequence mixers that attend."""
        return 1 / self.attention if self.attention else 0.0

    @property
    def n_heads(self) -> int:
        return self.d_model // HEAD_DIM

    @property
    def d_ff(self) -> int:
        """The width of an MLP, or of one expert: `topk` of them are as wide as one MLP."""
        return max(round(self.ff * self.d_model / max(self.topk, 1) / 128), 1) * 128

    @property
    def label(self) -> str:
        """A name that tells two choices apart: "mamba2-mlp 2560x32, 1/8 attention, kv 5, …"."""
        parts = [f"{self.family} {self.d_model}x{self.layers}"]
        if self.attention:
            kv = max(self.n_heads * (2 if self.blocks else 1) // self.per_kv, 1)
            parts.append(f"attention 1/{self.attention}, {kv} KV heads")
        parts += [f"{self.blocks} shared"] * bool(self.blocks)
        parts += [f"state {self.d_state}"] * bool(self.d_state)
        parts += [f"ff {self.d_ff}"] * bool(self.ff)
        parts += [f"{self.topk} of {self.experts} experts"] * bool(self.experts)
        return ", ".join(parts)

    def model(self) -> Model:
        return from_dict(config(self), self.label)


def attends(c: Choice) -> list[int]:
    """The layers that attend: in the middle of each stretch, as Jamba has them."""
    return [i for i in range(c.layers) if c.attention and i % c.attention == c.attention // 2]


def kinds(c: Choice, attention: str = "attention", mamba: str = "mamba") -> list[str]:
    where = set(attends(c))
    return [attention if i in where else mamba for i in range(c.layers)]


def mamba2(c: Choice) -> dict[str, Any]:
    return {
        "mamba_n_heads": 2 * c.d_model // MAMBA_HEAD,
        "mamba_d_head": MAMBA_HEAD,
        "mamba_d_state": c.d_state,
        "mamba_n_groups": 1,
    }


def nemotron(c: Choice) -> dict[str, Any]:
    """Mamba-2 layers without MLPs; an MLP stands behind each attention layer."""
    where = set(attends(c))
    return {
        "hybrid_override_pattern": "".join("*-" if i in where else "M" for i in range(c.layers)),
        "num_hidden_layers": c.layers + len(where),
        "head_dim": HEAD_DIM,
        "mamba_num_heads": 2 * c.d_model // MAMBA_HEAD,
        "mamba_head_dim": MAMBA_HEAD,
        "ssm_state_size": c.d_state,
        "n_groups": 8,
    }


def gated_delta(c: Choice) -> dict[str, Any]:
    """Gated DeltaNet with two value heads to a key head, as in Qwen3-Next, and a plain MLP."""
    heads = 2 * c.d_model // HEAD_DIM
    return {
        "layer_types": kinds(c, "full_attention", "linear_attention"),
        "head_dim": HEAD_DIM,
        "linear_num_value_heads": heads,
        "linear_num_key_heads": heads // 2,
        "linear_key_head_dim": c.d_state,
        "linear_value_head_dim": HEAD_DIM,
        "num_experts": 0,
    }


def zamba(c: Choice) -> dict[str, Any]:
    """Shared blocks that read twice the width, so they have twice the heads."""
    return {
        "layers_block_type": kinds(c, "hybrid"),
        "num_attention_heads": 2 * c.n_heads,
        "num_key_value_heads": 2 * c.n_heads // c.per_kv,
        "num_mem_blocks": c.blocks,
        "n_mamba_heads": 2 * c.d_model // MAMBA_HEAD,
        "mamba_d_state": c.d_state,
        "mamba_ngroups": 1,
    }


FAMILIES: dict[str, tuple[str, Callable[[Choice], dict[str, Any]]]] = {  # -> model_type, fields
    "dense": ("llama", lambda c: {"head_dim": HEAD_DIM}),
    "moe": (
        "mixtral",
        lambda c: {
            "head_dim": HEAD_DIM,
            "num_local_experts": c.experts,
            "num_experts_per_tok": c.topk,
            "sliding_window": None,
        },
    ),
    "mamba1": ("mamba", lambda c: {"state_size": c.d_state, "expand": 2}),
    "mamba2": (
        "mamba2",
        lambda c: {
            "num_heads": 2 * c.d_model // MAMBA_HEAD,
            "head_dim": MAMBA_HEAD,
            "state_size": c.d_state,
            "n_groups": 1,
            "expand": 2,
        },
    ),
    "mamba2-mlp": ("bamba", lambda c: mamba2(c) | {"attn_layer_indices": attends(c)}),
    "mamba2-plain": ("nemotron_h", nemotron),
    "mamba1-mlp": (
        "jamba",
        lambda c: {
            "mamba_d_state": c.d_state,
            "attn_layer_period": c.attention or c.layers + 1,
            "attn_layer_offset": c.attention // 2 if c.attention else c.layers,
            "num_experts": c.experts or 1,
            "num_experts_per_tok": c.topk or 1,
        },
    ),
    "gdn-mlp": ("qwen3_next", gated_delta),
    "mamba2-moe": (
        "granitemoehybrid",
        lambda c: (
            mamba2(c)
            | {
                "layer_types": kinds(c),
                "num_local_experts": c.experts,
                "num_experts_per_tok": c.topk,
                "shared_intermediate_size": c.d_ff,
            }
        ),
    ),
    "mamba2-shared": ("zamba2", zamba),
}


def config(c: Choice) -> dict[str, Any]:
    """The config.json of a choice, as `transformers` and `cookbook cost` read it."""
    model_type, own = FAMILIES[c.family]
    fields = {
        "model_type": model_type,
        "hidden_size": c.d_model,
        "num_hidden_layers": c.layers,
        "vocab_size": c.vocab,
        "tie_word_embeddings": c.tied,
    }
    if c.attention:
        fields |= {
            "num_attention_heads": c.n_heads,
            "num_key_value_heads": max(c.n_heads // c.per_kv, 1),
        }
    if c.ff:
        fields["intermediate_size"] = c.d_ff
    return fields | own(c)
