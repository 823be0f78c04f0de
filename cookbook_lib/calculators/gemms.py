"""The matrix products of a block as a GPU sees them: tiles of the result, dealt out in waves.

A product of m x k with k x n is cut into tiles of the result; each streaming multiprocessor (SM)
works on one at a time. Tiles at the edge are computed whole, and the last wave waits for its few
tiles: NVIDIA, "Matrix Multiplication Background", DU-09799-001, sections 3.1 and 3.2.
"""

from collections.abc import Iterator
from math import ceil, prod
from typing import NamedTuple

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import Op, Size, parse
from cookbook_lib.calculators.runs import Run

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

    def tilings(self, sms: int) -> list["Tiling"]:
        """How each of the efficient tiles covers it, and in how many waves `sms` work them off."""
        found = []
        for rows, columns in TILES:
            tiles = self.count * ceil(self.m / rows) * ceil(self.n / columns)
            waves = ceil(tiles / sms)
            busy = self.count * self.m * self.n / (waves * sms * rows * columns)
            found.append(Tiling((rows, columns), tiles, waves, busy))
        return found

    def tiling(self, sms: int) -> "Tiling":
        """The one that keeps tiles and SMs busiest: the kernel may choose a worse one."""
        return max(self.tilings(sms), key=lambda t: t.efficiency)

    def efficiency(self, sms: int) -> float:
        """The busy share of tiles and SMs, at best."""
        return self.tiling(sms).efficiency


class Tiling(NamedTuple):
    """A product cut into tiles of rows x columns; `efficiency`: the useful share of the waves."""

    tile: tuple[int, int]
    tiles: int
    waves: int
    efficiency: float


def gemms(block: Block, run: Run) -> list[Gemm]:
    """The products of a block's input with its weights, in the order they run."""
    return [gemm for gemm, weighs in found(block, run) if weighs]


def products(block: Block, run: Run) -> list[Gemm]:
    """The same and those of two activations: the scores of attention, a scan in chunks.

    Masks are not looked at: a causal product counts, and runs, as a dense one.
    """
    return [gemm for gemm, _ in found(block, run)]


def found(block: Block, run: Run) -> Iterator[tuple[Gemm, bool]]:
    """Every product of matrices, and whether one of the two is a weight."""
    size = block.size(run)
    for op in block.ops(run):
        if made := product(op, block.renamed(op.name), size):
            yield made, not all("b" in axes for axes in parse(op.einsum)[0])


def product(op: Op, name: str, size: Size) -> Gemm | None:
    """One op as a product of matrices; None if it is something else."""
    inputs, out = parse(op.einsum)
    if len(inputs) != 2 or op.kind or "+" in op.einsum:
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
