"""The collectives that torch ran, by its profiler: which, of how many numbers and bytes.

`about_trace` judges by them, as `proof` does by a compiled program.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple

from torch.profiler import ProfilerActivity, profile

from cookbook_lib.communication.collectives import collective

BYTES = {"double": 8, "float": 4, "int": 4, "c10::BFloat16": 2, "c10::Half": 2}  # names in a trace
TRACED: Mapping[str, tuple[str, ...]] = {  # how a trace names them, behind "gloo:" or "nccl:"
    "all_reduce": ("all_reduce",),
    "all_gather": ("all_gather", "_all_gather_base"),
    "reduce_scatter": ("reduce_scatter", "_reduce_scatter_base"),
    "all_to_all": ("all_to_all",),
    "broadcast": ("broadcast",),
    "reduce": ("reduce",),
    "scatter": ("scatter",),
    "gather": ("gather",),
}


class Seen(NamedTuple):
    """An event of a process group: its backend, its name there, and what it takes in."""

    backend: str
    kind: str
    elements: int
    nbytes: int


def seen(run: Callable[[], object], device: str = "cpu") -> list[Seen]:
    """What a call runs on gloo or NCCL, in the order in which it started; it must wait for it."""
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (device == "cuda")]
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        with profile(activities=activities, record_shapes=True) as profiled:
            run()
        profiled.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    events = sorted((e for e in events if "dur" in e), key=lambda e: e["ts"])
    found = [(*e["name"].partition(":"), e.get("args", {})) for e in events]
    return [
        Seen(backend, name.split()[0], *size(args))
        for backend, _, name, args in found
        if backend in ("gloo", "nccl")
    ]


def size(args: dict) -> tuple[int, int]:
    """Elements and bytes of all inputs of an event."""
    counts = [prod(dims) for dims in args.get("Input Dims", [])]
    widths = [BYTES[name] for name in args.get("Input type", [])]
    return sum(counts), sum(n * width for n, width in zip(counts, widths, strict=True))


def about_trace(op: str, found: list[Seen], backend: str, sent: int, got: int) -> list[str]:
    """Whether one rank did what `op` claims, and with so many numbers.

    sent and got: numbers that this rank sends and gets in point-to-point operations, or puts into
    a collective; 0 if it has no part in it. NCCL fuses several sends into one event, "coalesced".
    """
    runs = collective(op).runs.get(backend, op)
    names = [t.kind for t in found]
    if runs in TRACED:
        match = [t for t in found if t.kind in TRACED[runs]]
        due = {"collective": (sent, match)}
    else:
        due = {
            "send": (sent, [t for t in found if t.kind.startswith(("send", "coalesced"))]),
            "recv": (got, [t for t in found if t.kind.startswith(("recv", "coalesced"))]),
        }
    complaints = []
    for what, (numbers, match) in due.items():
        if numbers and not match:
            said = ", ".join(names) or "nothing"
            complaints.append(f"the profile of {op} shows no {what} of {runs}: {said}")
        moved = sum(t.elements for t in match)
        if backend == "gloo" and match and moved != numbers:
            complaints.append(f"{op} must move {numbers:,} numbers; {what} has {moved:,}")
    return complaints
