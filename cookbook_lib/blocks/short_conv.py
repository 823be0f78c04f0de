"""A causal depthwise convolution of a few taps along the sequence, with its state.

Axes: b batch, l tokens, d channels, t taps. The state is the last t inputs, oldest first.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cookbook_lib.blocks import kernels


def short_conv(
    x: Float[Tensor, "b l d"],
    weight: Float[Tensor, "d 1 t"],
    bias: Float[Tensor, " d"] | None = None,
    state: Float[Tensor, "b d t"] | None = None,
    seq_idx: Int[Tensor, "b l"] | None = None,
) -> Float[Tensor, "b l d"]:
    """Each token and the t - 1 before it, weighted; those of another document count as zeros."""
    taps, l = weight.shape[-1], x.shape[1]
    if l == 1 and state is not None and seq_idx is None and not torch.is_grad_enabled():
        return one_token(x, weight, bias, state)
    past = x.new_zeros(len(x), taps, x.shape[2]) if state is None else state.mT.to(x.dtype)
    held = torch.cat([past, x], 1)
    if state is not None:
        state.copy_(held[:, -taps:].mT.detach())
    held, idx = held[:, 1:], None
    if seq_idx is not None:
        idx = torch.cat([seq_idx[:, :1].expand(-1, taps - 1), seq_idx], 1)
    if (y := kernels.conv(held, weight, bias, idx)) is not None:
        return y
    if idx is None:
        return Taps.apply(held, weight, bias)
    y = 0 if bias is None else bias
    for at in range(taps):
        same = (idx[:, at : at + l] == seq_idx)[..., None]
        y = y + held[:, at : at + l] * weight[:, 0, at] * same
    return y


def one_token(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor) -> Tensor:
    """`short_conv` of a single token: the state's last inputs move up, and are summed at once."""
    held = torch.cat([state[..., 1:], x.mT.to(state.dtype)], 2)
    state.copy_(held)
    exact = torch.promote_types(x.dtype, torch.float32)
    y = (held.to(exact) * weight[:, 0]).sum(-1)
    return (y if bias is None else y + bias)[:, None].to(x.dtype)


def conv(x: Float[Tensor, "b m d"], weight: Float[Tensor, "d 1 t"], bias: Tensor | None = None):
    """Without padding: m - t + 1 tokens. As an image one pixel high, channels are laid out last."""
    image = x.mT.unsqueeze(2)
    return F.conv2d(image, weight.unsqueeze(2), bias, groups=x.shape[2]).squeeze(2).mT


class Taps(torch.autograd.Function):
    """`conv`, whose weight gradient PyTorch computes several times slower on a CPU than this."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return conv(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        d, _, taps = weight.shape
        wide = F.pad(dy, (0, 0, taps - 1, taps - 1))
        dx = conv(wide, weight.flip(-1).to(dy.dtype))  # autocast's, which is off by now
        exact = torch.promote_types(dy.dtype, torch.float32)
        dweight = torch.zeros(taps, d, dtype=exact, device=dy.device)
        for part, first in zip(dy.split(64, 1), range(0, dy.shape[1], 64), strict=True):
            for at in range(taps):
                seen = x[:, first + at : first + at + part.shape[1]]
                dweight[at] += (part.to(exact) * seen).sum((0, 1))
        dbias = dy.sum((0, 1)).to(weight.dtype) if ctx.has_bias else None
        return dx.to(x.dtype), dweight.T[:, None].to(weight.dtype), dbias
