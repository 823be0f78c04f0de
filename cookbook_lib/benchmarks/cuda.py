"""Time on a GPU, which works on while Python goes ahead: taken by the GPU itself, in its stream.

Events are recorded in the stream before and after a call. A large fill before each sample takes
what the last one left out of the L2 cache, and keeps the GPU busy while Python queues the call, so
that a short one is not measured as the launches that it waits for. `graph` removes the launches of
longer ones.
"""

from collections.abc import Callable
from time import perf_counter

import torch

from cookbook_lib.cuda_graphs import captured

FLUSH = 256 * 2**20  # bytes, beyond any L2: 50 MB in an H100; triton.testing.do_bench fills as much


class CudaClock:
    """Seconds by the GPU's own clock; `graph`: capture what is timed once, and replay it."""

    shortest = 0.0  # one call a sample: each finds what it reads in memory, not in the L2 cache

    def __init__(self, graph: bool = False):
        self.graph = graph
        self.fill = torch.empty(FLUSH, dtype=torch.int8, device="cuda")

    def now(self) -> float:
        torch.cuda.synchronize()
        return perf_counter()

    def sample(self, run: Callable[[], object], times: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.fill.zero_()
        start.record()
        for _ in range(times):
            run()
        end.record()
        end.synchronize()
        return seconds_between(start, end) / times

    def prepared(self, run: Callable[[], object]) -> Callable[[], object]:
        """What is really called: the replay of a graph, if that was asked for."""
        return captured(run) if self.graph else run


def seconds_between(start, end) -> float:
    """Of two events: `elapsed_time` is in milliseconds."""
    return start.elapsed_time(end) / 1e3
