"""Products of matrices, timed and checked: each shape once for a device, whoever asks for it.

Which model has a shape, and how often, follows from the specs; so a row holds the shape alone.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cookbook_lib.benchmarks.ceilings import Ceilings
from cookbook_lib.benchmarks.rows import row
from cookbook_lib.benchmarks.sweep import Row, sweep
from cookbook_lib.benchmarks.timing import Stop, clock, measure
from cookbook_lib.blocks.dtypes import DTYPES
from cookbook_lib.calculators.gemms import Gemm
from cookbook_lib.calculators.runs import BITS
from cookbook_lib.calculators.varied import Use
from cookbook_lib.provenance import machine

Case = dict[str, Any]
CHECKED = 4  # rows of the result, computed again in float64
WRONG = {"fp32": 1e-3, "bf16": 2e-2, "fp16": 4e-3}  # of the largest: TF32 has 10 bits, bf16 has 7


def case(product: Gemm, dtype: str) -> Case:
    """What tells a row from others. The second operand lies as `nn.Linear` keeps it: n x k."""
    shape = {name: getattr(product, name) for name in ("count", "m", "n", "k")}
    return {"benchmark": "gemm", **shape, "layout": "nk", "dtype": dtype}


def operands(case: Case, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Random x (count m k) and w (count k n) as it lies in memory, and a place for the result."""
    torch.manual_seed(0)
    count, m, n, k = (case[name] for name in ("count", "m", "n", "k"))
    dtype = DTYPES[case["dtype"]]
    x = torch.randn(count, m, k, device=device, dtype=dtype)
    lies = (count, n, k) if case["layout"] == "nk" else (count, k, n)
    w = torch.randn(lies, device=device, dtype=dtype)
    return x, w.mT if case["layout"] == "nk" else w, x.new_empty(count, m, n)


def timed(case: Case, *, device: str, stop: Stop, top: Ceilings | None = None) -> Row:
    """The row of a case. `ValueError` if the product is not what float64 says it is."""
    x, w, out = operands(case, device)
    if case["count"] == 1:
        found = measure(lambda: torch.mm(x[0], w[0], out=out[0]), clock(device), stop)
    else:
        found = measure(lambda: torch.bmm(x, w, out=out), clock(device), stop)
    wrong = error(x, w, out)
    if not wrong < WRONG[case["dtype"]]:
        raise ValueError(f"{case}: the result is off by {wrong:.1e} of its largest number")
    flops = 2 * case["count"] * case["m"] * case["n"] * case["k"]
    nbytes = (x.numel() + w.numel() + out.numel()) * BITS[case["dtype"]] // 8
    what = case | {"error": wrong}
    return row(what, found, device=device, flops=flops, nbytes=nbytes, ceilings=top)


def error(x: Tensor, w: Tensor, out: Tensor) -> float:
    """The largest difference from float64, as a part of the largest number, in some rows."""
    count, m, _ = x.shape
    worst = 0.0
    for i in range(CHECKED):
        j, at = i * (count - 1) // (CHECKED - 1), i * (m - 1) // (CHECKED - 1)
        want = x[j, at].double() @ w[j].double()
        worst = max(worst, ((out[j, at].double() - want).abs().max() / want.abs().max()).item())
    return worst


def swept(
    products: Iterable[Gemm],
    dtype: str,
    *,
    device: str,
    stop: Stop,
    top: Ceilings | None = None,
    out: Path | None = None,
) -> list[Row]:
    """The rows of these products, one for each shape; those that `out` has are not run again."""
    shapes = {str(made): made for made in (case(product, dtype) for product in products)}

    def run(**case: Any) -> Row:
        return timed(case, device=device, stop=stop, top=top)

    return sweep(shapes.values(), run, out, device=device, again=machine(device))


class Total(NamedTuple):
    """All uses of some products, one after the other; seconds are None if one was too large.

    low, high: the sums of the ends of their intervals, which is wider than the interval of the sum.
    """

    flops: int
    seconds: float | None
    low: float = 0.0
    high: float = 0.0
    noisy: bool = False

    @property
    def rate(self) -> float:
        """FLOP/s; 0 where nothing was measured."""
        return self.flops / self.seconds if self.seconds else 0.0


def shape_of(row: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(row[name] for name in ("count", "m", "n", "k"))


def total(uses: Iterable[Use], rows: Iterable[Row]) -> Total:
    """What a model's uses of products take, by the rows of their shapes; the last row counts."""
    took = {shape_of(row): row.get("seconds") for row in rows}
    flops, seconds, low, high, noisy = 0, 0.0, 0.0, 0.0, False
    missing = False
    for use in uses:
        flops += use.flops
        product = use.product
        one = took.get((product.count, product.m, product.n, product.k))
        if one is None:
            missing = True
            continue
        seconds += use.uses * one["median"]
        low += use.uses * one["low"]
        high += use.uses * one["high"]
        noisy |= one["noisy"]
    return Total(flops, None) if missing else Total(flops, seconds, low, high, noisy)


def fastest(totals: Mapping[int, Total]) -> tuple[int, list[int]]:
    """The value of the highest FLOP/s, and those whose intervals cannot be told from its own."""
    measured = {value: t for value, t in totals.items() if t.seconds}
    if not measured:
        raise ValueError("nothing was measured: every size was too large for the memory")
    best = max(measured, key=lambda value: measured[value].rate)
    slowest = measured[best].flops / measured[best].high
    near = [v for v, t in measured.items() if v != best and t.flops / t.low >= slowest]
    return best, near
