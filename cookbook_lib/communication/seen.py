"""The collectives that torch ran, by its profiler: which, of how many numbers and bytes."""

import json
import tempfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import NamedTuple

from torch.profiler import ProfilerActivity, profile

BYTES = {"double": 8, "float": 4, "c10::BFloat16": 2, "c10::Half": 2}  # names in a trace


class Seen(NamedTuple):
    """One collective: its name without the backend's, and its input."""

    kind: str
    elements: int
    nbytes: int


def seen(run: Callable[[], object]) -> list[Seen]:
    """What a call runs on gloo, in the order in which it started; it must wait for it."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
            run()
        profiled.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    events = sorted((e for e in events if "dur" in e), key=lambda e: e["ts"])
    calls = [(e["name"].partition(":"), e["args"]) for e in events if "gloo:" in e["name"]]
    return [Seen(name[2], *size(args)) for name, args in calls]


def size(args: dict) -> tuple[int, int]:
    """Elements and bytes of all inputs of an event."""
    counts = [prod(dims) for dims in args["Input Dims"]]
    widths = [BYTES[name] for name in args["Input type"]]
    return sum(counts), sum(n * width for n, width in zip(counts, widths, strict=True))
