"""Sinkhorn balancing: scale rows and columns of exp(logits) until each expert is as busy as any.

BlackMamba, arXiv:2402.01771, section 3.2. Axes: n tokens, e experts. Scaling a token's row cannot
change which of its experts is largest, so for top-1 all of it comes down to one number for each
expert: the choice is argmax(logits + log(columns) / sharpness).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

STARTS = ("ones", "balanced", "unreciprocal")


@dataclass(frozen=True)
class Balance:
    """What Sinkhorn found: the plan, its column scales, and how many iterations it took."""

    plan: Float[Tensor, "n e"]
    columns: Float[Tensor, " e"]
    iterations: int


def sinkhorn(
    logits: Float[Tensor, "n e"],
    start: str = "balanced",
    sharpness: float = 2.0,
    tolerance: float = 1e-4,
    relative: bool = True,
    iterations: int = 100,
    eps: float = 1e-8,
) -> Balance:
    """A plan whose rows sum to 1 / n and whose columns sum, nearly, to 1 / e.

    start: column scales to begin with. "ones" is the ordinary choice; "balanced" is BlackMamba's,
        1 / (e * column sum), which already balances the columns; "unreciprocal" is the formula as
        it is sometimes copied, without the reciprocal.
    sharpness: of exp(sharpness * logits); BlackMamba's code has 2.
    relative: stop when the column scales change by less than `tolerance` of their own size. The
        published code compares with an absolute 1e-4; the scales of the balanced start are about
        1 / (n e), so it always stops after one iteration, balanced or not.
    """
    if start not in STARTS:
        raise ValueError(f"start is {start!r}, expected one of {', '.join(STARTS)}")
    n, e = logits.shape
    cost = (sharpness * logits.float()).exp()
    columns = {
        "ones": lambda: torch.ones_like(cost[0]),
        "balanced": lambda: 1 / (e * cost.sum(0)),
        "unreciprocal": lambda: e / n * cost.sum(0),
    }[start]()
    for done in range(1, iterations + 1):  # noqa: B007
        rows = 1 / n / (cost @ columns + eps)
        before, columns = columns, 1 / e / (rows @ cost + eps)
        change = (columns - before).abs().mean()
        if change <= tolerance * (columns.mean() if relative else 1):
            break
    return Balance(rows[:, None] * cost * columns, columns, done)


def load(experts: Int[Tensor, "..."], n_experts: int) -> Float[Tensor, " e"]:
    """Tokens that each expert got, over the mean: 1 everywhere is perfect balance."""
    counts = torch.bincount(experts.flatten(), minlength=n_experts).float()
    return counts / counts.mean()
