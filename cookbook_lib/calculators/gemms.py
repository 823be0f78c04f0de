"""The matrix products of a block as a GPU sees them: tiles of the result, dealt out in waves.

A product of m x k with k x n is cut into tiles of the result; each streaming multiprocessor (SM)
works on one at a time. Tiles at the edge are computed whole, and the last wave waits for its few
tiles: NVIDIA, "Matrix Multiplication Background", DU-09799-001, sections 3.1 and 3.2.
"""

from math import ceil, prod
from typing import NamedTuple

from cookbook_lib.calculators.costs import Block, Run
from cookbook_lib.calculators.einsums import Op, Size, parse

TILES = ((256, 128), (128, 256), (128, 128))  # the efficient ones: DU-09799-001, section 2.3
SMS = {  # streaming multiprocessors of a chip
    "h200": 132,  # the H100's die
    "h100": 132,  # NVIDIA H100 white paper (2022), table 3: SXM5
    "a100": 108,  # DU-09799-001, section 3.2
    "l40s": 142,  # NVIDIA L40S data sheet (2023-08): 18176 cores, 128 to an SM
    "rtx4090": 128,  # NVIDIA Ada white paper v2.1 (2023), table 1
}


class Gemm(NamedTuple):
    """`count` products of m x k by k x n; `ins` and `outs` are the axes that make k and n."""

    op: str
    count: int
    m: int
    n: int
    k: int
    outs: tuple[str, ...]
    ins: tuple[str, ...]

    @property
    def flops(self) -> int:
        return 2 * self.count * self.m * self.n * self.k

    def efficiency(self, sms: int) -> float:
        """The busy share of tiles and SMs, at best: the kernel may choose a worse tile."""

        def busy(rows: int, columns: int) -> float:
            tiles = self.count * ceil(self.m / rows) * ceil(self.n / columns)
            waves = ceil(tiles / sms)
            return self.count * self.m * self.n / (waves * sms * rows * columns)

        return max(busy(*tile) for tile in TILES)


def gemms(block: Block, run: Run) -> list[Gemm]:
    """The products of a block's input with its weights, in the order they run."""
    size = block.size(run)
    found = (gemm(op, block.renamed(op.name), size) for op in block.ops(run))
    return [product for product in found if product]


def gemm(op: Op, name: str, size: Size) -> Gemm | None:
    """One op as a product of matrices; None if it is something else."""
    inputs, out = parse(op.einsum)
    if len(inputs) != 2 or op.kind or "+" in op.einsum or ("b" in inputs[0]) == ("b" in inputs[1]):
        return None
    x, w = inputs if "b" in inputs[0] else inputs[::-1]
    ins = tuple(a for a in w if a in x and a not in out)
    outs = tuple(a for a in w if a in out and a not in x)
    if not ins or not outs:
        return None
    rows = prod(size(a) for a in x if a not in w)
    count = prod(size(a) for a in w if a in x and a in out)
    if op.gather:  # spread over the experts, evenly at best
        count *= min(size(op.gather), rows)
        rows = ceil(rows / size(op.gather))
    return Gemm(name, count, rows, prod(map(size, outs)), prod(map(size, ins)), outs, ins)
