"""Tiny models to try architectures on: equal in parameters, or different in one thing only."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from cookbook_lib.blocks.models import LanguageModel, Options, Residual, Zamba2
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.configs import from_dict
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.model import Model

Makers = dict[str, Callable[[], LanguageModel]]  # name -> a model with fresh random weights


def tiny(
    pattern: str, vocab: int, d_model: int = 64, d_state: int = 16, d_ff: int | None = None
) -> Model:
    """A small hybrid: `m` Mamba-2, `a` attention with RoPE, `-` an MLP, `8` as many experts, of
    which a token picks one; each behind its norm."""
    heads = max(1, d_model // 32)
    blocks: dict[str, Block] = {
        "m": specs.Mamba2(d_model=d_model, d_state=d_state, headdim=32, chunk_size=32),
        "a": specs.Attention(d_model=d_model, n_heads=heads, n_kv_heads=heads, head_dim=32),
        "-": specs.MLP(d_model=d_model, d_ff=d_ff or 2 * d_model),
        "8": specs.MoE(
            d_model=d_model, d_ff=d_ff or d_model, n_experts=8, topk=1, router_bias=True
        ),
    }
    norm = specs.Norm(d_model=d_model)
    return Model(
        name=f"tiny {pattern}",
        family="tiny",
        pattern=pattern,
        before=(("model.embed_tokens", specs.Embedding(vocab=vocab, d_model=d_model)),),
        layers=tuple(
            (k, (("model.layers.{i}.norm", norm), ("model.layers.{i}.mixer", block)))
            for k, block in blocks.items()
            if k in pattern
        ),
        after=(("model.norm", norm), ("lm_head", specs.Head(d_model=d_model, vocab=vocab))),
    )


def level(patterns: list[str], vocab: int, d_model: int = 64, d_state: int = 16) -> list[Model]:
    """Models of these patterns with equally many parameters, by the width of their MLPs.

    They differ by less than one unit of that width; the largest gets half the width of the model.
    """

    def grown(pattern: str, d_ff: int) -> Model:
        return tiny(pattern, vocab, d_model, d_state, d_ff)

    size = max(grown(p, d_model // 2).params() for p in patterns)
    models = []
    for pattern in patterns:
        one, two = (grown(pattern, d_ff).params() for d_ff in (1, 2))
        if one == two:
            raise ValueError(f"pattern is {pattern!r}, expected one with an MLP ('-') to widen")
        models.append(grown(pattern, 1 + (size - one) // (two - one)))
    return models


def mixers(vocab: int) -> Makers:
    """Attention, Mamba-2 and one of each, at equal parameters."""
    names = {"attention": "a-a-", "Mamba-2": "m-m-", "hybrid": "m-a-"}
    models = level(list(names.values()), vocab)
    return {
        name: lambda spec=spec: Residual(spec, Options(rope=RoPE()))
        for name, spec in zip(names, models, strict=True)
    }


class NoConcatenation(Zamba2):
    """Zamba2 whose shared block reads nothing but the stream: the embeddings' half is zero."""

    def read(self, x: Float[Tensor, "b l d"], x0: Float[Tensor, "b l d"]) -> Float[Tensor, "b l e"]:
        return super().read(x, torch.zeros_like(x0))


def zamba2(
    vocab: int,
    blocks: int = 1,
    lora: bool = True,
    layers: str = "mhmh",
    d_model: int = 64,
    d_ff: int | None = None,
) -> Model:
    """A small Zamba2: Mamba-2 (`m`), and Mamba-2 that first asks a shared block (`h`)."""
    kinds = {"m": "linear_attention", "h": "hybrid"}
    config = {
        "model_type": "zamba2",
        "vocab_size": vocab,
        "hidden_size": d_model,
        "num_hidden_layers": len(layers),
        "layers_block_type": [kinds[k] for k in layers],
        "n_mamba_heads": d_model // 16,
        "mamba_d_state": 16,
        "chunk_size": 32,
        "num_attention_heads": d_model // 16,
        "intermediate_size": d_ff or 2 * d_model,
        "num_mem_blocks": blocks,
        "adapter_rank": 8,
    }
    spec = from_dict(config, "tiny zamba2")
    if lora:
        return spec
    kept = (
        (k, tuple((name, b) for name, b in layout if b.component != "lora"))
        for k, layout in spec.layers
    )
    return spec.but(layers=tuple(kept))


def ablations(vocab: int) -> Makers:
    """Zamba2, and Zamba2 without each of its ideas."""
    options = Options(rope=RoPE(), activation="gelu")
    return {
        "Mamba-2 only": lambda: Zamba2(zamba2(vocab, layers="mmmm"), options),
        "shared block": lambda: Zamba2(zamba2(vocab), options),
        "no LoRA": lambda: Zamba2(zamba2(vocab, lora=False), options),
        "no concatenation": lambda: NoConcatenation(zamba2(vocab), options),
        "a block for each use": lambda: Zamba2(zamba2(vocab, blocks=2), options),
    }
