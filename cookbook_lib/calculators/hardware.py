"""A roofline bounds a block from both sides: no run is slower than every op alone and none faster
than all of them fused, at the peak rates of a chip."""

from dataclasses import dataclass
from functools import lru_cache
from math import fsum, prod

from cookbook_lib.calculators.chips import Chip
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import Op, Size, parse
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.storage import FORMATS, Storage, picked


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """Lower bounds of a forward pass in seconds, and the FLOPs and bytes behind them.

    `eager` runs each op alone and writes its result to memory; `fused` reads weights, state and
    input once and writes the state and the output once. A real kernel lies between the two.
    `math` is the arithmetic alone and `memory` the fused traffic alone.
    """

    flops: int
    eager_bytes: int | float
    fused_bytes: int | float
    math: float
    memory: float
    eager: float
    fused: float

    @property
    def intensity(self) -> float:
        """FLOPs for each byte, at best."""
        return self.flops / self.fused_bytes

    @property
    def bound_by(self) -> str:
        """Which of the two takes longer, added up over the blocks."""
        return "math" if self.math > self.memory else "memory"

    def __add__(self, other: "Roofline") -> "Roofline":
        """One after the other."""
        return Roofline(**{k: v + getattr(other, k) for k, v in vars(self).items()})


def roofline(block: Block, chip: Chip, run: Run, store: Storage | None = None) -> Roofline:
    """The bounds of one block, or of a model's blocks one after the other; all bf16 by default."""
    return bounds(block, chip, run, store or Storage())


@lru_cache(maxsize=4096)
def bounds(block: Block, chip: Chip, run: Run, store: Storage) -> Roofline:
    """`roofline`, computed once for each kind of block of a model."""
    if isinstance(block, Model):
        first, *rest = (bounds(part, chip, run, store) for _, part in block.layout)
        return sum(rest, first)
    # fsum: exact, so that every version of Python prints the same digits
    size, ops, rows = block.size(run), block.ops(run), block.rows(run)
    activation = FORMATS[store.wide].mean / 8  # bytes
    math = [r.flops / chip.rate(store.compute if r.params else store.wide) for r in rows]
    weights = [
        row.params * store.weight_bits(row) / 8 * picked(op, size)
        for op, row in zip(ops, rows, strict=True)
    ]
    alone = [w + moved(op, size) * activation for op, w in zip(ops, weights, strict=True)]
    ends = parse(ops[0].einsum)[0][0], parse(ops[-1].einsum)[1]  # what goes in, what comes out
    inout = sum(prod(map(size, axes)) for axes in ends if "b" in axes) * activation
    fused = fsum(weights) + inout + store.traffic(block, run)
    return Roofline(
        flops=sum(r.flops for r in rows),
        eager_bytes=fsum(alone),
        fused_bytes=fused,
        math=fsum(math),
        memory=fused / chip.bandwidth,
        eager=fsum(max(m, n / chip.bandwidth) for m, n in zip(math, alone, strict=True)),
        fused=max(fsum(math), fused / chip.bandwidth),
    )


def moved(op: Op, size: Size) -> int:
    """Elements that an op on its own reads and writes beside its weights."""
    inputs, out = parse(op.einsum)
    return sum(prod(map(size, axes)) for axes in (*inputs, out) if "b" in axes)
