"""Many measurements in a row, none of which is lost: each is written before the next one starts.

Run again with the same file, a sweep goes on where it was stopped, by Ctrl-C or by force. A size
that does not fit memory gets a row that says so.
"""

import gc
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from cookbook_lib.benchmarks.provenance import where
from cookbook_lib.results import append, ready

Row = dict[str, Any]
NO_MEMORY = "out of memory"


def sweep(
    cases: Iterable[Mapping[str, Any]],
    run: Callable[..., Row],
    out: Path | None = None,
    *,
    device: str = "cpu",
    again: Row | None = None,
    show: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Call `run(**case)` for each case that `out` does not hold yet; the rows of all cases.

    A case is what tells a row from the others; `again` is what its row must also agree with to
    count as done (a device, for example). `show` is called with each new row. Ctrl-C raises
    KeyboardInterrupt as ever, with all that was measured in the file.
    """
    cases = json.loads(json.dumps(list(map(dict, cases))))  # as they will be read again
    again = again or {}
    held = ready(out) if out else []
    found = [next((r for r in held if agrees(r, case | again)), None) for case in cases]
    left = [i for i, row in enumerate(found) if row is None]
    for i in progress(left, lambda i: words(cases[i])):
        row = found[i] = cases[i] | again | attempt(lambda i=i: run(**cases[i]), device)
        if out:
            append(out, row)
        show(row)
    return [row for row in found if row]


def agrees(row: Row, case: Row) -> bool:
    return all(k in row and row[k] == v for k, v in case.items())


def words(case: Row) -> str:
    return " ".join(str(v) for v in case.values() if v is not None)


def attempt(run: Callable[[], Row], device: str = "cpu") -> Row:
    """The row of one case, or one that says that memory was too small for it."""
    try:
        with limited() if device == "cpu" else unlimited():
            return run()
    except (torch.OutOfMemoryError, MemoryError):
        pass
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # DefaultCPUAllocator's words
            raise
    gc.collect()  # outside the handler, whose traceback holds what was allocated
    if device == "cuda":
        torch.cuda.empty_cache()
    return {"outcome": NO_MEMORY, **where(device)}


@contextmanager
def unlimited() -> Iterator[None]:
    yield


@contextmanager
def limited(nbytes: int | None = None) -> Iterator[None]:
    """Allocations beyond what is free fail inside, instead of the process being killed (Linux).

    nbytes: what may be allocated beyond what the process holds; what is free by default.
    """
    status, free = Path("/proc/self/status"), available() if nbytes is None else nbytes
    if free is None or not status.exists():
        yield
        return
    import resource

    old = resource.getrlimit(resource.RLIMIT_AS)
    lines = status.read_text().splitlines()
    held = next(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmSize:"))
    most = held + free if old[1] == resource.RLIM_INFINITY else min(held + free, old[1])
    resource.setrlimit(resource.RLIMIT_AS, (most, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


def available() -> int | None:
    """Bytes that Linux says can be allocated without swapping; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable:")), None)


def progress(items: list[int], name: Callable[[int], str]) -> Iterator[int]:
    """The items, with a bar on a terminal's standard error; none elsewhere, or without rich."""
    if not items or not sys.stderr.isatty() or not find_spec("rich"):
        yield from items
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    with bar:
        task = bar.add_task("", total=len(items))
        for item in items:
            bar.update(task, description=name(item))
            yield item
            bar.advance(task)
