"""From logits to the next token: temperature, and three ways to leave the unlikely out.

Each takes logits and returns them with -inf where a token is left out, so they can be chained; at
least the likeliest token always stays. Axes: b sequences, v vocabulary.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to choose: in this order, each step on what the one before left.

    temperature: divides the logits; 0 always takes the likeliest.
    top_k: keep so many; 0 for all. top_p: keep the likeliest that together have this probability.
    min_p: keep what is at least this part of the likeliest's probability.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self):
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}, expected 0 or more")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}, expected 0 (all) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, expected above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p is {self.min_p}, expected from 0 to 1")


def keep_top_k(logits: Float[Tensor, "b v"], k: int) -> Float[Tensor, "b v"]:
    """The k likeliest; more where several are equal to the last of them."""
    least = logits.topk(min(k, logits.shape[-1]), -1).values[:, -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def keep_top_p(logits: Float[Tensor, "b v"], p: float) -> Float[Tensor, "b v"]:
    """The fewest of the likeliest that have probability p together: arXiv:1904.09751."""
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities  # what those likelier have already
    out = (before >= p).scatter(-1, order, before >= p)
    return logits.masked_fill(out, -torch.inf)


def keep_min_p(logits: Float[Tensor, "b v"], p: float) -> Float[Tensor, "b v"]:
    """Those at least p times as probable as the likeliest: arXiv:2407.01082."""
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(-1, keepdim=True), -torch.inf)


def probabilities(logits: Float[Tensor, "b v"], how: Sampling) -> Float[Tensor, "b v"]:
    """What the next token is drawn from; at temperature 0 all of it on the likeliest."""
    if how.temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / how.temperature
    if how.top_k:
        logits = keep_top_k(logits, how.top_k)
    if how.top_p < 1:
        logits = keep_top_p(logits, how.top_p)
    if how.min_p > 0:
        logits = keep_min_p(logits, how.min_p)
    return logits.softmax(-1)


def sample(
    logits: Float[Tensor, "b v"], how: Sampling, random: torch.Generator | None = None
) -> Int[Tensor, " b"]:
    """The next token of each sequence."""
    if how.temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial(probabilities(logits, how), 1, generator=random)[:, 0]
