"""What the planner looks at: every combination of a few choices, more than ten thousand."""

from collections.abc import Iterator
from typing import Any

from cookbook_lib.calculators.families import HEAD_DIM, Choice

WIDTHS = (*range(512, 4096, 256), *range(4096, 8193, 512))  # multiples of 256 fill tiles
DEPTHS = (12, 16, 20, 24, 30, 32, 40, 48, 60, 64, 80)  # of layers that mix and have an MLP
SLIMMEST, WIDEST = 48, 140  # d_model / layers; Llama, Mistral, Qwen2 and OLMo have 51 to 128
ONE_THING = ("mamba1", "mamba2", "mamba2-plain", "mamba2-shared")  # layers that hold a mixer only


def grid(vocab: int = 32768, tied: bool = True) -> Iterator[Choice]:
    """Every choice: widths and depths of published proportions, with every shape that divides."""
    for d in WIDTHS:
        for layers in DEPTHS:
            if not SLIMMEST <= d / layers <= WIDEST:
                continue
            for own in shapes():
                depth = 2 * layers if own["family"] in ONE_THING else layers
                heads = d // HEAD_DIM * (2 if own.get("blocks") else 1)
                whole = depth % (own.get("attention") or 1) == 0  # so that the share is exact
                if whole and heads % own.get("per_kv", 1) == 0:
                    yield Choice(d_model=d, layers=depth, vocab=vocab, tied=tied, **own)


def shapes() -> Iterator[dict[str, Any]]:
    """What can be chosen at any width and depth."""
    every = (4, 6, 8, 10)
    for ff in (8 / 3, 4.0):
        for per_kv in (1, 4, 8):
            yield {"family": "dense", "attention": 1, "per_kv": per_kv, "ff": ff}
        for per_kv in (4, 8):
            for experts, topk in ((8, 2), (32, 4), (64, 8), (128, 8)):
                routed = {"experts": experts, "topk": topk}
                yield {"family": "moe", "attention": 1, "per_kv": per_kv, "ff": ff} | routed
        for d_state in (64, 128):
            for k in (0, *every):
                for per_kv in (1, 4, 8) if k else (1,):
                    own = {"attention": k, "per_kv": per_kv, "d_state": d_state, "ff": ff}
                    yield {"family": "mamba2-mlp"} | own
                    if k:
                        yield {"family": "mamba2-plain"} | own
        for k in (0, *every):
            own = {"attention": k, "per_kv": 4 if k else 1, "d_state": 16, "ff": ff}
            yield {"family": "gdn-mlp"} | own | {"d_state": 128}
            yield {"family": "mamba1-mlp"} | own
            yield {"family": "mamba1-mlp", "experts": 16, "topk": 2} | own
            for experts, topk in ((16, 2), (64, 8)):
                routed = {"experts": experts, "topk": topk, "d_state": 128}
                yield {"family": "mamba2-moe"} | own | routed
    yield {"family": "mamba1", "d_state": 16}
    for d_state in (64, 128):
        yield {"family": "mamba2", "d_state": d_state}
        for k in (6, 8, 10):
            for blocks in (1, 2):
                for per_kv in (1, 4):
                    own = {"attention": k, "per_kv": per_kv, "d_state": d_state, "ff": 4.0}
                    yield {"family": "mamba2-shared", "blocks": blocks} | own
