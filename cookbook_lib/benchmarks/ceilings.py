"""The two ceilings of a roofline, measured where the block is: a large product and a large copy.

A data sheet promises rates that no program reaches; these are rates that a program has reached, on
the same device, with the same dtype and threads, in the same run. arXiv:0911.0787 calls for both.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cookbook_lib.benchmarks.timing import Clock, Stop, Timing, clock, measure
from cookbook_lib.blocks.dtypes import DTYPES
from cookbook_lib.calculators.chips import Chip

SIDES = {"cpu": (256, 1024, 2048), "cuda": (4096, 8192)}  # of square matrices: the best one counts
PATIENCE = 10.0  # seconds for one of them: a CPU without bf16 takes minutes for a large one
COPIED = {"cpu": 2**28, "cuda": 2**30}  # bytes, many times any cache: 50 MB of L2 in an H100


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """FLOP/s of a large product and bytes/s of a large copy, which reads and writes each byte."""

    flops: float
    bandwidth: float
    matmul: Timing
    copy: Timing

    @property
    def ridge(self) -> float:
        """FLOPs per byte at which arithmetic begins to take longer than memory traffic."""
        return self.flops / self.bandwidth

    @property
    def noisy(self) -> bool:
        return self.matmul.noisy or self.copy.noisy

    def bound(self, flops: int | float, nbytes: int | float) -> float:
        """Seconds that so much work takes at least, arithmetic and traffic hiding each other."""
        return max(flops / self.flops, nbytes / self.bandwidth)

    def chip(self, name: str) -> Chip:
        """The same as a chip, for `hardware.roofline`: its ceilings in place of a data sheet."""
        return Chip(
            name=name,
            flops=self.flops,
            bandwidth=self.bandwidth,
            memory=0.0,
            source="measured by cookbook_lib.benchmarks.ceilings",
            estimate="reached by PyTorch, not promised by a vendor",
        )

    def json(self) -> dict[str, float | bool]:
        return {"flops": self.flops, "bandwidth": self.bandwidth, "noisy": self.noisy}


def ceilings(
    device: str, dtype: str, stop: Stop | None = None, on: Clock | None = None
) -> Ceilings:
    """Measure both; some seconds on a CPU. `on`: another clock, for tests."""
    stop, on = stop or Stop(seconds=1.0), on or clock(device)
    products: dict[int, Timing] = {}
    for n in SIDES[device]:
        needed = [t.median * (n / side) ** 3 * stop.least for side, t in products.items()]
        if min(needed, default=0.0) > PATIENCE:
            break
        products[n] = measure(product(n, device, dtype), on, stop)
    side, matmul = max(products.items(), key=lambda it: it[0] ** 3 / it[1].median)
    copy = measure(copying(COPIED[device], device), on, stop)
    return Ceilings(
        flops=2 * side**3 / matmul.median,
        bandwidth=2 * COPIED[device] / copy.median,
        matmul=matmul,
        copy=copy,
    )


def product(n: int, device: str, dtype: str) -> Callable[[], object]:
    """A product of two n x n matrices of random numbers: zeros would draw less power."""
    a, b = (torch.randn(n, n, device=device).to(DTYPES[dtype]) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def copying(nbytes: int, device: str) -> Callable[[], object]:
    """A copy of so many bytes, which no cache holds."""
    source = torch.ones(nbytes // 4, device=device)
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)
