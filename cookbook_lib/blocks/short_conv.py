"""A causal depthwise convolution of a few taps along the sequence, with its state.

Axes: b batch, l tokens, d channels, t taps. The state is the last t inputs, oldest first.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def short_conv(
    x: Float[Tensor, "b l d"],
    weight: Float[Tensor, "d 1 t"],
    bias: Float[Tensor, " d"] | None = None,
    state: Float[Tensor, "b d t"] | None = None,
    seq_idx: Int[Tensor, "b l"] | None = None,
) -> Float[Tensor, "b l d"]:
    """Each token and the t - 1 before it, weighted; those of another document count as zeros."""
    taps, l = weight.shape[-1], x.shape[1]
    past = x.new_zeros(len(x), x.shape[2], taps) if state is None else state.to(x.dtype)
    held = torch.cat([past, x.mT], 2)
    if state is not None:
        state.copy_(held[..., -taps:])
    held = held[..., 1:]
    if seq_idx is None:
        return F.conv1d(held, weight, bias, groups=x.shape[2]).mT
    idx = F.pad(seq_idx, (taps - 1, 0), mode="replicate")
    y = 0 if bias is None else bias
    for back in range(taps):
        at = slice(taps - 1 - back, taps - 1 - back + l)
        same = (idx[:, at] == seq_idx)[..., None]
        y = y + held[..., at].mT * weight[:, 0, taps - 1 - back] * same
    return y
