"""Blocks by name, with sizes from the command line: the fields of the specs are the flags."""

from collections.abc import Callable
from dataclasses import MISSING, fields, make_dataclass
from typing import Annotated, Any, get_type_hints

import tyro

from cookbook_lib.calculators import specs
from cookbook_lib.calculators.costs import Block

NAMES: dict[str, type[Block]] = {
    "attention": specs.Attention,
    "mlp": specs.MLP,
    "moe": specs.MoE,
    "mamba1": specs.Mamba1,
    "mamba2": specs.Mamba2,
    "mamba3": specs.Mamba3,
    "gated-deltanet": specs.GatedDeltaNet,
    "rwkv7": specs.RWKV7,
    "rwkv7-channel-mix": specs.RWKV7ChannelMix,
    "short-conv": specs.ShortConv,
    "linear": specs.Linear,
    "lora": specs.LoRA,
    "norm": specs.Norm,
    "embedding": specs.Embedding,
    "head": specs.Head,
}
Given = dict[str, Any]


def attention(g: Given) -> Given:
    """Heads of 64 that fill the width, each with its own keys."""
    n = g.get("n_heads", max(1, g["d_model"] // g.get("head_dim", 64)))
    return {"n_heads": n, "n_kv_heads": n, "head_dim": g.get("head_dim", g["d_model"] // n)}


def gated_deltanet(g: Given) -> Given:
    """Keys as wide as the stream and values twice, as Qwen3-Next's layers of 2048 have them."""
    n = g.get("n_k_heads", max(1, g["d_model"] // g.get("head_k_dim", 128)))
    return {"n_k_heads": n, "n_v_heads": 2 * n}


USUAL: dict[str, Callable[[Given], Given]] = {  # what a width leaves open
    "attention": attention,
    "mlp": lambda g: {"d_ff": 4 * g["d_model"]},
    "moe": lambda g: {"d_ff": 2 * g["d_model"], "n_experts": 8, "topk": 2},
    "mamba2": lambda g: {"chunk_size": 128},
    "gated-deltanet": gated_deltanet,
    "rwkv7": lambda g: {"first": True},
    "rwkv7-channel-mix": lambda g: {"d_ff": 4 * g["d_model"]},
    "short-conv": lambda g: {"d_conv": 4},
    "linear": lambda g: {"d_in": g["d_model"], "d_out": g.get("d_in", g["d_model"])},
    "lora": lambda g: {"d_in": g["d_model"], "d_out": g.get("d_in", g["d_model"]), "rank": 128},
    "embedding": lambda g: {"vocab": 32_000},
    "head": lambda g: {"vocab": 32_000},
}


def flags() -> type:
    """One optional flag for each size that some spec has; None for the block's usual one."""
    users: dict[str, list[str]] = {}
    types: dict[str, Any] = {}
    for name, spec in NAMES.items():
        hints = get_type_hints(spec)
        for f in fields(spec):
            if f.name not in ("names", "d_model"):
                users.setdefault(f.name, []).append(name)
                types[f.name] = hints[f.name] | None
    made = [
        (f, Annotated[types[f], tyro.conf.arg(help=f"of {', '.join(by)}")], None)
        for f, by in sorted(users.items())
    ]
    made = [("d_model", Annotated[int, tyro.conf.arg(help="width of the stream")], 512), *made]
    return make_dataclass("Sizes", made, frozen=True, kw_only=True)


Sizes = flags()


def sized(name: str, sizes: Any) -> Block:
    """The spec of a block; `ValueError` for a size that it does not have."""
    spec = NAMES[name]
    given = {k: v for k, v in vars(sizes).items() if v is not None}
    known = {f.name: f for f in fields(spec) if f.name != "names"}
    if extra := set(given) - set(known) - {"d_model"}:
        field = min(extra)
        raise ValueError(
            f"{field} is {given[field]}, but {name} has no such size: {', '.join(known)}"
        )
    values = USUAL.get(name, lambda g: {})(given) | given
    values = {k: v for k, v in values.items() if k in known}
    missing = [k for k, f in known.items() if f.default is MISSING and k not in values]
    assert not missing, f"{name} needs {missing}"
    return spec(**values)


def sizes_of(spec: Block) -> dict[str, Any]:
    """A spec's fields as a row holds them."""
    return {f.name: getattr(spec, f.name) for f in fields(spec) if f.name != "names"}
