"""A linear layer that reads its weight at full speed also for the few rows of a decoding step."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

FEW = 16  # rows up to which that holds


def linear(
    x: Float[Tensor, "... d"], weight: Float[Tensor, "e d"], bias: Float[Tensor, " e"] | None = None
) -> Float[Tensor, "... e"]:
    """`F.linear`. In bf16 on a CPU PyTorch multiplies the weight with few columns 1.4 times as fast
    as few rows with its transpose, from 13 to 19 GB/s of weights on two cores of Sapphire Rapids.
    A single row in fp32 gains a tenth, from 28 to 31 GB/s.
    """
    rows = x.numel() // x.shape[-1] if x.shape[-1] else 0
    most = FEW if x.dtype == torch.bfloat16 else 1
    here = x.is_cpu and x.dtype == weight.dtype and 0 < rows <= most
    if not here or torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    if rows == 1:
        y = torch.mv(weight, x.reshape(-1))
    else:
        y = (weight @ x.reshape(rows, -1).mT).mT.contiguous()
    y = y if bias is None else y + bias
    return y.view(*x.shape[:-1], -1)


class Linear(nn.Linear):
    """`nn.Linear` by way of `linear`."""

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... e"]:
        return linear(x, self.weight, self.bias)
