"""What the Mamba blocks share: the time steps that they start with, the norm behind a gate,
and the dtype of what must be exact."""

from math import log

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def exact(x: Tensor) -> Tensor:
    """In float32, or in float64 if it is: what decays and states are computed in."""
    return x if x.dtype == torch.float64 else x.float()


def draw_dt_bias(*shape: int, low: float = 1e-3, high: float = 0.1) -> nn.Parameter:
    """A bias whose softplus, the time step, is drawn evenly on a log scale.

    The range is that of arXiv:2312.00752, section 3.6.
    """
    dt = torch.empty(shape).uniform_(log(low), log(high)).exp()
    return nn.Parameter(dt + (-torch.expm1(-dt)).log())  # the inverse of softplus


class GatedNorm(nn.Module):
    """RMSNorm of x * silu(z), in groups: each is divided by its own root mean square.

    norm_before_gate: norm x alone, then multiply.
    """

    def __init__(
        self, d: int, groups: int = 1, eps: float = 1e-5, *, norm_before_gate: bool = False
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))
        self.groups, self.eps, self.norm_before_gate = groups, eps, norm_before_gate

    def forward(
        self, x: Float[Tensor, "... d"], z: Float[Tensor, "... d"]
    ) -> Float[Tensor, "... d"]:
        """x is in float32 or more; the result is in the dtype of z."""
        gate = F.silu(z.to(x.dtype))
        x = (x if self.norm_before_gate else x * gate).unflatten(-1, (self.groups, -1))
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1]
        x = (x * (square + self.eps).rsqrt()).flatten(-2)
        x = self.weight * x.to(z.dtype)
        return x * gate.to(z.dtype) if self.norm_before_gate else x
