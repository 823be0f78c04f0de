"""Sinkhorn balancing: scale rows and columns of exp(logits) until each expert is as busy as any.

BlackMamba, arXiv:2402.01771, section 3.2. Axes: n tokens, e experts. Scaling a token's row cannot
change which of its experts is largest, so for top-1 all of it comes down to one number for each
expert: the choice is argmax(logits + log(column scale) / sharpness).
"""

from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Float, Int
from torch import Tensor

STARTS = ("ones", "balanced", "unreciprocal")


@dataclass(frozen=True)
class Balance:
    """What Sinkhorn found: the plan and the column scales, as logarithms, after `iterations`."""

    log_plan: Float[Tensor, "n e"]
    log_columns: Float[Tensor, " e"]
    iterations: int


def sinkhorn(
    logits: Float[Tensor, "n e"],
    start: str = "balanced",
    sharpness: float = 2.0,
    tolerance: float = 1e-4,
    relative: bool = True,
    iterations: int = 100,
) -> Balance:
    """A plan whose rows sum to 1 / n and whose columns sum, nearly, to 1 / e.

    start: column scales to begin with. "ones" is the ordinary choice; "balanced" is BlackMamba's,
        1 / (e * column sum), which already balances the columns; "unreciprocal" is the formula as
        it is sometimes copied, without the reciprocal.
    sharpness: of exp(sharpness * logits); BlackMamba's code has 2, the ordinary Sinkhorn 1.
    relative: stop when the mean change of log(column scale) is at most `tolerance`, whatever the
        size of the scales. The published code compares the scales themselves with an absolute
        1e-4; those of the balanced start are about 1 / (n e), so that it always stops after one
        iteration, balanced or not. (It also adds 1e-8 to each sum, which logarithms do not need.)
    """
    if start not in STARTS:
        raise ValueError(f"start is {start!r}, expected one of {', '.join(STARTS)}")
    if iterations < 1:
        raise ValueError(f"iterations is {iterations!r}, expected at least 1")
    n, e = logits.shape
    cost = sharpness * (logits if logits.dtype == torch.float64 else logits.float())
    sums = cost.logsumexp(0)
    columns = {"ones": 0 * sums, "balanced": -log(e) - sums, "unreciprocal": log(e / n) + sums}[
        start
    ]
    for done in range(1, iterations + 1):  # noqa: B007
        rows = -log(n) - (cost + columns).logsumexp(1)
        before, columns = columns, -log(e) - (cost + rows[:, None]).logsumexp(0)
        change = columns - before if relative else columns.exp() - before.exp()
        if change.abs().mean() <= tolerance:
            break
    return Balance(rows[:, None] + cost + columns, columns, done)


def load(experts: Int[Tensor, "..."], n_experts: int) -> Float[Tensor, " e"]:
    """Tokens that each expert got, over the mean: 1 everywhere is perfect balance."""
    counts = torch.bincount(experts.flatten(), minlength=n_experts).float()
    return counts / counts.mean()


def drawn_logits(
    spread: float, bias: float, seed: int, n: int = 2048, e: int = 8
) -> Float[Tensor, "n e"]:
    """Router logits to try a balancer on: normal noise, and a normal bias for each expert."""
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, e, generator=random)
    return spread * noise + bias * torch.randn(e, generator=random)


def trial(
    start: str, spread: float, bias: float, sharpness: float, seeds: int = 10, **options
) -> tuple[float, float]:
    """Mean iterations, and mean load of the busiest expert, when Sinkhorn chooses for each token.

    `options` are those of `sinkhorn`, the rest those of `drawn_logits`.
    """
    runs = [
        sinkhorn(drawn_logits(spread, bias, seed), start, sharpness, **options)
        for seed in range(seeds)
    ]
    worst = [load(run.log_plan.argmax(1), run.log_plan.shape[1]).max().item() for run in runs]
    return sum(run.iterations for run in runs) / seeds, sum(worst) / seeds
