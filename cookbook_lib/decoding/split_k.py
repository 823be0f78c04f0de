"""Split-K decoding: one query against a long cache, cut into parts that are attended side by side.

A single query gives a device as many independent pieces of work as there are sequences and key
heads; with few of them most of a GPU waits. Parts of the cache are attended as if they were
sequences of their own, and the partial results weighed by their log sum of exponentials:
FlashDecoding, https://pytorch.org/blog/flash-decoding (2023-10). Axes: b batch, h query heads,
g key heads, r queries that share a key, s keys, p parts, k head_dim.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def partial(
    q: Float[Tensor, "... r k"],
    keys: Float[Tensor, "... s k"],
    values: Float[Tensor, "... s k"],
    scale: float | None = None,
) -> tuple[Float[Tensor, "... r k"], Float[Tensor, "... r"]]:
    """Attention over some of the keys, and the log of the sum of exponentials of its scores.

    In bf16 scores and weights are rounded once more than inside a fused kernel.
    """
    exact = torch.promote_types(q.dtype, torch.float32)
    scores = (q @ keys.mT).to(exact) * (q.shape[-1] ** -0.5 if scale is None else scale)
    total = scores.logsumexp(-1)
    return (scores - total[..., None]).exp().to(values.dtype) @ values, total


def combine(
    y: Float[Tensor, "b g p r k"], total: Float[Tensor, "b g p r"]
) -> Float[Tensor, "b g r k"]:
    """The partial results as one: each weighs as much as its part of the whole sum."""
    share = total.softmax(2)[..., None]
    return (y.to(share.dtype) * share).sum(2).to(y.dtype)


def split_k(
    q: Float[Tensor, "b h 1 k"],
    k: Float[Tensor, "b g s k"],
    v: Float[Tensor, "b g s k"],
    parts: int,
    scale: float | None = None,
) -> Float[Tensor, "b h 1 k"]:
    """`attention_parallel` of a single query that sees all keys; the last part may be shorter."""
    if parts < 1:
        raise ValueError(f"parts is {parts}, expected at least 1")
    (b, g, s, d), size = k.shape, -(-k.shape[2] // parts)
    queries = q.reshape(b, g, -1, d)
    whole = s // size * size
    pieces = [t[:, :, :whole].unflatten(2, (-1, size)) for t in (k, v)]
    y, total = partial(queries[:, :, None], *pieces, scale)
    if rest := s - whole:
        last, sum_ = partial(queries, k[:, :, -rest:], v[:, :, -rest:], scale)
        y, total = torch.cat([y, last[:, :, None]], 2), torch.cat([total, sum_[:, :, None]], 2)
    return combine(y, total).view(q.shape)
