"""State space duality: a linear recurrence per head, computed as matrix products.

h' = exp(a) h + x B and y = h' C, where a is a number per head and token: arXiv:2405.21060,
section 6. Axes: b batch, l tokens, c chunks, q and k positions in a chunk, h heads, g groups of
heads that share B and C, r heads of a group, p headdim, n d_state. x comes multiplied by dt, and
a is dt A.
"""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, einsum

from cookbook_lib.blocks.chunks import documents, in_chunks


def ssd_step(
    x: Float[Tensor, "b h p"],
    a: Float[Tensor, "b h"],
    B: Float[Tensor, "b g n"],
    C: Float[Tensor, "b g n"],
    state: Float[Tensor, "b h p n"],
) -> tuple[Float[Tensor, "b h p"], Float[Tensor, "b h p n"]]:
    """One token: its output and the new state. The definition, with the form below."""
    B, C = (t.repeat_interleave(x.shape[1] // t.shape[1], 1) for t in (B, C))
    state = state * a.exp()[..., None, None] + x[..., None] * B[..., None, :]
    return einsum("bhpn, bhn -> bhp", state, C), state


def ssd_recurrent(
    x: Float[Tensor, "b l h p"],
    a: Float[Tensor, "b l h"],
    B: Float[Tensor, "b l g n"],
    C: Float[Tensor, "b l g n"],
    state: Float[Tensor, "b h p n"],
) -> tuple[Float[Tensor, "b l h p"], Float[Tensor, "b h p n"]]:
    """Token by token: the definition."""
    ys = []
    for token in zip(*(t.unbind(1) for t in (x, a, B, C)), strict=True):
        y, state = ssd_step(*token, state)
        ys.append(y)
    return torch.stack(ys, 1), state


def ssd_chunked(
    x: Float[Tensor, "b l h p"],
    a: Float[Tensor, "b l h"],
    B: Float[Tensor, "b l g n"],
    C: Float[Tensor, "b l g n"],
    state: Float[Tensor, "b h p n"],
    chunk_size: int = 64,
    seq_idx: Int[Tensor, "b l"] | None = None,
) -> tuple[Float[Tensor, "b l h p"], Float[Tensor, "b h p n"]]:
    """The same in chunks: attention with a decaying mask inside a chunk, a state between chunks.

    A state is held as (n, r p) here: then the heads of a group are one matrix product.
    """
    l, g = x.shape[1], B.shape[2]
    x, a, B, C = (in_chunks(t, chunk_size) for t in (x, a, B, C))
    x = rearrange(x, "b c k (g r) p -> b c g k r p", g=g)
    B, C = (rearrange(t, "b c k g n -> b c g k n") for t in (B, C))
    a = rearrange(a, "b c k (g r) -> b c g r k", g=g).cumsum(-1)  # log decay since the chunk began
    start, end, through = a.exp(), (a[..., -1:] - a).exp(), a[..., -1].exp()
    unseen = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=a.device).triu(1)
    if seq_idx is not None:
        docs = documents(seq_idx, chunk_size)
        unseen = unseen | ~docs.pairs[:, :, None, None]
        start, end = start * docs.start[:, :, None, None], end * docs.end[:, :, None, None]
        through = through * docs.through[:, :, None, None]
    decay = (a[..., :, None] - a[..., None, :]).masked_fill(unseen, -torch.inf).exp()
    mask = einsum("bcgqn, bcgkn -> bcgqk", C, B)[:, :, :, None] * decay
    within = einsum("bcgrqk, bcgkrp -> bcgrqp", mask, x)
    ended = x * rearrange(end, "b c g r k -> b c g k r 1")
    added = einsum("bcgkn, bcgkd -> bcgnd", B, ended.flatten(-2))
    h = rearrange(state, "b (g r) p n -> b g n r p", g=g)
    states, through = [], rearrange(through, "b c g r -> c b g 1 r 1")
    for decayed, new in zip(through, added.unflatten(-1, x.shape[-2:]).unbind(1), strict=True):
        states.append(h)
        h = torch.addcmul(new, h, decayed)
    between = einsum("bcgqn, bcgnd -> bcgqd", C, torch.stack(states, 1).flatten(-2))
    between = between.unflatten(-1, x.shape[-2:]) * rearrange(start, "b c g r q -> b c g q r 1")
    y = rearrange(within, "b c g r q p -> b c g q r p") + between
    y = rearrange(y, "b c g q r p -> b (c q) (g r) p")
    return y[:, :l], rearrange(h, "b g n r p -> b (g r) p n")
