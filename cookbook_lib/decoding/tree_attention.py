"""Attention as a sum that can be cut anywhere: partial results of shards of keys, and their merge.

The energy of a query is F(z) = log sum_s exp(q.k_s + z.v_s); its gradient at z = 0 is attention
(Tree Attention, arXiv 2408.04093, section 4). A sum may be taken in any order, so each device adds
up the keys that it has, and partial sums are merged.
Axes: b batch, l queries, h query heads, g key heads, s keys, k head_dim, p parts.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Partial(NamedTuple):
    """Sums over some keys, each of whose scores is less by `m`, the largest of them.

    n: of exp(score - m) v. d: of exp(score - m). No key seen: zeros, and m is -inf. A kernel that
    returns an output and its logsumexp is the same thing with d = 1 and m = lse, but lse is rounded
    where m, a score, is not: at 1e4 in fp32 by up to 5e-4, and the weight of the shard with it.
    """

    n: Float[Tensor, "*p b h l k"]
    d: Float[Tensor, "*p b h l"]
    m: Float[Tensor, "*p b h l"]

    @property
    def lse(self) -> Float[Tensor, "*p b h l"]:
        return self.m + self.d.log()

    def output(self, dtype: torch.dtype) -> Float[Tensor, "*p b h l k"]:
        """Attention; zeros for a query that sees no key."""
        return (self.n / torch.where(self.d > 0, self.d, 1)[..., None]).to(dtype)


def energy(
    q: Float[Tensor, "b h l k"],
    k: Float[Tensor, "b h s k"],
    v: Float[Tensor, "b h s k"],
    z: Float[Tensor, "b h l k"],
    scale: float,
) -> Float[Tensor, "b h l"]:
    """log sum_s exp(scale q.k_s + z.v_s), of which attention is the gradient by z at 0."""
    return (scale * q @ k.mT + z @ v.mT).logsumexp(-1)


def partial(
    q: Float[Tensor, "b h l k"],
    k: Float[Tensor, "b g s k"],
    v: Float[Tensor, "b g s k"],
    scale: float | None = None,
    q_at: Int[Tensor, "#b l"] | None = None,
    k_at: Int[Tensor, "#b s"] | None = None,
    block: int = 4096,
) -> Partial:
    """What the queries get from these keys, in fp32, or fp64 if they have it.

    scale: of the scores, 1 / sqrt(k) if None. A query sees keys whose position is not after its
    own; without positions, all of them. block: keys whose scores are in memory at once.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    found = nothing(q)
    for start in range(0, k.shape[2], block):
        here = slice(start, start + block)
        at = None if k_at is None else k_at[:, here]
        found = merge(found, one_block(q, k[:, :, here], v[:, :, here], scale, q_at, at))
    return found


def one_block(
    q: Float[Tensor, "b h l k"],
    k: Float[Tensor, "b g s k"],
    v: Float[Tensor, "b g s k"],
    scale: float,
    q_at: Int[Tensor, "#b l"] | None,
    k_at: Int[Tensor, "#b s"] | None,
) -> Partial:
    (b, h, l, width), g = q.shape, k.shape[1]
    if h % g:
        raise ValueError(f"query heads are {h}, expected a multiple of the {g} key heads")
    acc = accumulator(q.dtype)
    folded = (q.to(acc) * scale).reshape(b, g, h // g * l, width)  # heads of a group share keys
    scores = folded @ k.to(acc).mT
    if k_at is not None and q_at is not None:
        hidden = k_at[:, None, :] > q_at[:, :, None]
        hidden = hidden[:, None].expand(-1, h // g, -1, -1).flatten(1, 2)[:, None]
        scores = scores.masked_fill_(hidden, -torch.inf)
    m = scores.amax(-1)
    weights = scores.sub_(finite(m)[..., None]).exp_()
    shape = (b, h, l)
    return Partial(
        (weights @ v.to(acc)).reshape(*shape, width), weights.sum(-1).reshape(shape), m.view(shape)
    )


def nothing(q: Float[Tensor, "b h l k"]) -> Partial:
    """Of no key: what is merged with it stays as it is."""
    acc = accumulator(q.dtype)
    zeros = torch.zeros(q.shape[:-1], dtype=acc, device=q.device)
    return Partial(torch.zeros_like(q, dtype=acc), zeros, torch.full_like(zeros, -torch.inf))


def accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def finite(m: Tensor) -> Tensor:
    """-inf, where no key is seen, as 0: exp(-inf - 0) is 0, and exp(-inf + inf) would be NaN."""
    return torch.where(m == -torch.inf, 0, m)


def rescaled(part: Partial, m: Float[Tensor, "*p b h l"]) -> Partial:
    """The same sums with another m, at least as large: no exponent is above 0."""
    weight = (part.m - finite(m)).exp()
    return Partial(part.n * weight[..., None], part.d * weight, m)


def merge(one: Partial, other: Partial) -> Partial:
    """The sums over the keys of both: associative and commutative but for rounding."""
    m = torch.maximum(one.m, other.m)
    a, b = rescaled(one, m), rescaled(other, m)
    return Partial(a.n + b.n, a.d + b.d, m)


def combine(parts: Partial) -> Partial:
    """The sums of all parts, which are stacked along the first axis."""
    m = parts.m.amax(0)
    found = rescaled(parts, m)
    return Partial(found.n.sum(0), found.d.sum(0), m)


def packed(part: Partial) -> Float[Tensor, "b h l w"]:
    """As one message of k + 2 numbers for each query and head."""
    return torch.cat([part.n, part.d[..., None], part.m[..., None]], -1)


def unpacked(message: Float[Tensor, "*p b h l w"]) -> Partial:
    return Partial(message[..., :-2], message[..., -2], message[..., -1])
