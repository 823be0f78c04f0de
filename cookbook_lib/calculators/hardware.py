"""A roofline bounds a block from both sides: no run is slower than every op alone and none faster
than all of them fused, at the peak rates of a chip."""

from dataclasses import dataclass
from math import prod

from cookbook_lib.calculators.chips import Chip
from cookbook_lib.calculators.costs import BITS, Block, Run
from cookbook_lib.calculators.einsums import parse
from cookbook_lib.calculators.model import Model


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """Lower bounds of a forward pass in seconds, and the FLOPs and bytes behind them.

    `eager` runs each op alone and writes its result to memory; `fused` reads weights, state and
    input once and writes the state and the output once. A real kernel lies between the two.
    """

    flops: int
    eager_bytes: int | float
    fused_bytes: int | float
    eager: float
    fused: float

    def __add__(self, other: "Roofline") -> "Roofline":
        """One after the other."""
        return Roofline(**{k: v + getattr(other, k) for k, v in vars(self).items()})


def roofline(block: Block, chip: Chip, run: Run, dtype: str = "bf16") -> Roofline:
    """The bounds of one block, or of a model's blocks one after the other."""
    if isinstance(block, Model):
        first, *rest = (roofline(part, chip, run, dtype) for _, part in block.layout)
        return sum(rest, first)
    size, rows, nbytes = block.size(run), block.rows(run), BITS[dtype] / 8
    ops = block.ops(run)
    ends = parse(ops[0].einsum)[0][0], parse(ops[-1].einsum)[1]  # what goes in, what comes out
    inout = sum(prod(map(size, axes)) for axes in ends if "b" in axes)
    weights = sum(min(r.params, r.params_active * run.b * run.l) for r in rows)
    fused = (weights + inout) * nbytes + state_traffic(block, run, dtype)
    flops = sum(r.flops for r in rows)
    return Roofline(
        flops=flops,
        eager_bytes=sum(r.elements for r in rows) * nbytes,
        fused_bytes=fused,
        eager=sum(chip.seconds(r.flops, r.elements * nbytes) for r in rows),
        fused=chip.seconds(flops, fused),
    )


def state_traffic(block: Block, run: Run, dtype: str) -> int:
    """Bytes of state read and written: a cache is read and added to, any other state replaced."""
    before = run.s - run.l
    read = {x.name: x.nbytes for x in block.states(run.b, before, dtype)} if before else {}
    written = sum(
        x.nbytes - read.get(x.name, 0) * (x.kind == "kv") for x in block.states(run.b, run.s, dtype)
    )
    return sum(read.values()) + written
