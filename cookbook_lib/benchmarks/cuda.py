"""Time on a GPU, which works on while Python goes ahead: taken by the GPU itself, in its stream.

Events are recorded in the stream before and after a call. A large fill before each sample takes
what the last one left out of the L2 cache, and keeps the GPU busy while Python queues the call, so
that a short one is not measured as the launches that it waits for. `graph` removes the launches of
longer ones.
"""

import subprocess
from collections.abc import Callable
from time import perf_counter

import torch

from cookbook_lib.cuda_graphs import captured

FLUSH = 256 * 2**20  # bytes, beyond any L2: 50 MB in an H100; triton.testing.do_bench fills as much
FIELDS = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")  # MHz, MHz, W, degrees C


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


def gpu_state() -> dict[str, float]:
    """Clocks (MHz), power (W) and temperature (degrees C) now; empty without nvidia-smi."""
    card = f"GPU-{torch.cuda.get_device_properties('cuda').uuid}"
    ask = ["nvidia-smi", f"--id={card}", f"--query-gpu={','.join(FIELDS)}"]
    try:
        done = subprocess.run(
            [*ask, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return parsed(done.stdout) if done.returncode == 0 else {}


def parsed(line: str) -> dict[str, float]:
    """nvidia-smi's line of numbers; a field that the card does not tell is left out."""
    found = {}
    for field, value in zip(FIELDS, line.strip().split(","), strict=False):
        try:
            found[field] = float(value)
        except ValueError:  # "[N/A]"
            continue
    return found
