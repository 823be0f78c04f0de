"""State space duality: a linear recurrence per head, computed as matrix products.

h' = exp(dt A) h + dt x B and y = h' C, where A is a number per head: arXiv:2405.21060, section 6.
Axes: b batch, l tokens, q and k positions in a chunk, h heads, g groups of heads that share B and
C, r heads of a group, p headdim, n d_state.
"""

from math import log

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, einsum

from cookbook_lib.blocks.chunks import documents, unrounded


def ssd_step(
    x: Float[Tensor, "b h p"],
    dt: Float[Tensor, "b h"],
    A: Float[Tensor, " h"],
    B: Float[Tensor, "b g n"],
    C: Float[Tensor, "b g n"],
    state: Float[Tensor, "b h p n"],
) -> tuple[Float[Tensor, "b h p"], Float[Tensor, "b h p n"]]:
    """One token: its output and the new state."""
    B, C = (t.repeat_interleave(x.shape[1] // t.shape[1], 1) for t in (B, C))
    write = (dt[..., None] * x)[..., None] * B[..., None, :]
    state = state * (dt * A).exp()[..., None, None] + write
    return einsum("bhpn, bhn -> bhp", state, C), state


def ssd_update(
    x: Float[Tensor, "b h p"],
    dt: Float[Tensor, "b h"],
    A: Float[Tensor, " h"],
    B: Float[Tensor, "b g n"],
    C: Float[Tensor, "b g n"],
    state: Float[Tensor, "b h p n"],
) -> Float[Tensor, "b h p"]:
    """`ssd_step` with the state updated in its place: it is read and written twice, not copied."""
    b, g, n = B.shape
    state.mul_((dt * A).exp()[..., None, None])
    grouped = state.view(b, g, -1, n)  # the rows of all heads that share B and C
    grouped.addcmul_((dt[..., None] * x).view(b, g, -1, 1), B[:, :, None])
    return (grouped @ C[..., None]).view(x.shape)


def ssd_recurrent(
    x: Float[Tensor, "b l h p"],
    dt: Float[Tensor, "b l h"],
    A: Float[Tensor, " h"],
    B: Float[Tensor, "b l g n"],
    C: Float[Tensor, "b l g n"],
    state: Float[Tensor, "b h p n"],
) -> tuple[Float[Tensor, "b l h p"], Float[Tensor, "b h p n"]]:
    """Token by token: the definition."""
    ys = []
    for x_t, dt_t, B_t, C_t in zip(*(t.unbind(1) for t in (x, dt, B, C)), strict=True):
        y, state = ssd_step(x_t, dt_t, A, B_t, C_t, state)
        ys.append(y)
    return torch.stack(ys, 1), state


@unrounded
def ssd_chunked(
    x: Float[Tensor, "b l h p"],
    dt: Float[Tensor, "b l h"],
    A: Float[Tensor, " h"],
    B: Float[Tensor, "b l g n"],
    C: Float[Tensor, "b l g n"],
    state: Float[Tensor, "b h p n"],
    chunk_size: int = 64,
    seq_idx: Int[Tensor, "b l"] | None = None,
) -> tuple[Float[Tensor, "b l h p"], Float[Tensor, "b h p n"]]:
    """The same in chunks, for training and for prompts."""
    return weighted_chunks(x, dt, dt * A, B, C, state, chunk_size, seq_idx)


def weighted_chunks(
    x: Float[Tensor, "b l h p"],
    weight: Float[Tensor, "b l h"],
    a: Float[Tensor, "b l h"],
    B: Float[Tensor, "b l g n"],
    C: Float[Tensor, "b l g n"],
    state: Float[Tensor, "b h p n"],
    chunk_size: int = 64,
    seq_idx: Int[Tensor, "b l"] | None = None,
) -> tuple[Float[Tensor, "b l h p"], Float[Tensor, "b h p n"]]:
    """h' = exp(a) h + weight x B: attention with a decaying mask inside a chunk, a state between.

    One chunk after the other, so that what a chunk needs stays in a CPU's cache.
    """
    g, ys = B.shape[2], []
    x = rearrange(x, "b l (g r) p -> b g r l p", g=g)
    weight, a = (rearrange(t, "b l (g r) -> b g r l 1", g=g) for t in (weight, a))
    B, C = (rearrange(t, "b l g n -> b g 1 l n") for t in (B, C))
    h = rearrange(state, "b (g r) p n -> b g r n p", g=g)
    later = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=x.device).triu(1)
    docs = None if seq_idx is None else documents(seq_idx, chunk_size)
    parts = zip(*(t.split(chunk_size, 3) for t in (x, weight, a, B, C)), strict=True)
    for i, (x_i, weight_i, a_i, B_i, C_i) in enumerate(parts):
        k = x_i.shape[3]
        a_i = (a_i.double() / log(2)).cumsum(3)  # decay since the chunk began, as a power of 2
        last, unseen = a_i[..., -1:, :], later[:k, :k]
        start, end, through = (power(t.to(x.dtype, copy=True)) for t in (a_i, last - a_i, last))
        if docs is not None:
            pairs, own_start, own_end, whole = (t[:, i, None, None] for t in docs)
            unseen = unseen | ~pairs[..., :k, :k]
            start, end = start * own_start[..., :k, None], end * own_end[..., :k, None]
            through = through * whole[..., None, None]
        x_i = x_i * weight_i
        decay = power((a_i - a_i.mT).to(x.dtype), unseen)
        y = ((C_i @ B_i.mT) * decay) @ x_i + (C_i @ h) * start
        ys.append(rearrange(y, "b g r q p -> b q (g r) p"))
        h = h * through + B_i.mT @ (x_i * end)
    return torch.cat(ys, 1), rearrange(h, "b g r n p -> b (g r) p n")


def power(
    gap: Float[Tensor, "*shape k"], unseen: Bool[Tensor, "..."] | None = None
) -> Float[Tensor, "*shape k"]:
    """2 ** gap in its place, or 0 if that is below 2 ** -64 or unseen.

    So little would be lost in any sum, but the products of so little are numbers that CPUs multiply
    a hundred times slower. What is 0 here has no gradient either: so no need to record it.
    """
    with torch.no_grad():
        F.threshold_(gap, -64.0, -torch.inf)
        if unseen is not None:
            gap.masked_fill_(unseen, -torch.inf)
    return gap.exp2_()
