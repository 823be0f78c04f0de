"""Mamba-3's recurrence: a token is written with its share, and the one before it with the rest.

h' = exp(a) (h + (1 - s) dt x_last B_last) + s dt x B and y = h' C, where s is the share:
arXiv:2603.15569, section 3.1, one input and one output (SISO). B and C come turned, which takes the
place of a state that turns (section 3.2). Axes: b batch, l tokens, h heads, p headdim, n d_state,
w angles.
"""

from math import pi

import torch
from jaxtyping import Float, Int
from torch import Tensor, einsum

from cookbook_lib.blocks.chunks import unrounded
from cookbook_lib.blocks.ssd import weighted_chunks

State = tuple[Tensor, Tensor, Tensor]  # h (b h p n), B of the last token (b h n), its x (b h p)


def trapezoid_step(
    x: Float[Tensor, "b h p"],
    dt: Float[Tensor, "b h"],
    a: Float[Tensor, "b h"],
    share: Float[Tensor, "b h"],
    B: Float[Tensor, "b h n"],
    C: Float[Tensor, "b h n"],
    state: State,
) -> tuple[Float[Tensor, "b h p"], State]:
    """One token: its output and the new state. a: log of the decay."""
    h, last_B, last_x = state
    h = h + written(last_x, (1 - share) * dt, last_B)
    h = h * a.exp()[..., None, None] + written(x, share * dt, B)
    return einsum("bhpn, bhn -> bhp", h, C), (h, B, x)


def written(
    x: Float[Tensor, "b h p"], weight: Float[Tensor, "b h"], B: Float[Tensor, "b h n"]
) -> Float[Tensor, "b h p n"]:
    """What a token adds to the state."""
    return (weight[..., None] * x)[..., None] * B[..., None, :]


def trapezoid_recurrent(
    x: Float[Tensor, "b l h p"],
    dt: Float[Tensor, "b l h"],
    a: Float[Tensor, "b l h"],
    share: Float[Tensor, "b l h"],
    B: Float[Tensor, "b l h n"],
    C: Float[Tensor, "b l h n"],
    state: State,
) -> tuple[Float[Tensor, "b l h p"], State]:
    """Token by token: the definition."""
    ys = []
    for token in zip(*(t.unbind(1) for t in (x, dt, a, share, B, C)), strict=True):
        y, state = trapezoid_step(*token, state)
        ys.append(y)
    return torch.stack(ys, 1), state


@unrounded
def trapezoid_chunked(
    x: Float[Tensor, "b l h p"],
    dt: Float[Tensor, "b l h"],
    a: Float[Tensor, "b l h"],
    share: Float[Tensor, "b l h"],
    B: Float[Tensor, "b l h n"],
    C: Float[Tensor, "b l h n"],
    state: State,
    chunk_size: int = 64,
    seq_idx: Int[Tensor, "b l"] | None = None,
) -> tuple[Float[Tensor, "b l h p"], State]:
    """The same in chunks, by Mamba-2's: a token also gets the weight that the next one gives it.

    That weight is not yet there when the token reads itself, so it is taken off again.
    """
    h, last_B, last_x = state
    lent = (1 - share) * dt  # to the token before
    if seq_idx is not None:
        same = seq_idx[:, 1:] == seq_idx[:, :-1]
        lent = torch.cat([lent[:, :1], lent[:, 1:] * same[..., None]], 1)
    h = h + written(last_x, lent[:, 0], last_B)
    got = torch.cat([lent[:, 1:], torch.zeros_like(lent[:, :1])], 1)  # from the token after
    y, h = weighted_chunks(x, share * dt + got, a, B, C, h, chunk_size, seq_idx)
    y = y - (got * (B * C).sum(-1))[..., None] * x
    return y, (h, B[:, -1], x[:, -1])


def turned(
    t: Float[Tensor, "b l h n"], angles: Float[Tensor, "b l h w"]
) -> Float[Tensor, "b l h n"]:
    """Neighbours in the first 2 w channels, as points of a plane, turned by `angles`."""
    pairs = t[..., : 2 * angles.shape[-1]].unflatten(-1, (-1, 2))
    x, y = pairs.unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    pairs = torch.stack([x * cos - y * sin, x * sin + y * cos], -1).flatten(-2)
    return torch.cat([pairs, t[..., 2 * angles.shape[-1] :]], -1)


def total_angles(
    turn: Float[Tensor, "b l h w"], before: Float[Tensor, "b h w"]
) -> Float[Tensor, "b l h w"]:
    """All turns up to each token, from 0 to 2 pi; summed in float64, as sums of turns grow long."""
    total = before[:, None] + turn.double().cumsum(1)
    return total.remainder(2 * pi).to(turn.dtype)
