"""Many measurements in a row, none of which is lost: each is written before the next one starts.

Run again with the same file, a sweep goes on where it was stopped, by Ctrl-C or by force. A size
that does not fit memory gets a row that says so.
"""

import gc
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from cookbook_lib.commands.output import progress
from cookbook_lib.free_memory import NO_MEMORY, limited, ran_out
from cookbook_lib.provenance import where
from cookbook_lib.results import agrees, append, ready

Row = dict[str, Any]


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
    with progress(len(left)) as begins:
        for i in left:
            begins(words(cases[i]))
            row = found[i] = cases[i] | again | attempt(lambda i=i: run(**cases[i]), device)
            if out:
                append(out, row)
            show(row)
    return [row for row in found if row]


def words(case: Row) -> str:
    return " ".join(str(v) for v in case.values() if v is not None)


def attempt(run: Callable[[], Row], device: str = "cpu") -> Row:
    """The row of one case, or one that says that memory was too small for it."""
    try:
        with limited() if device == "cpu" else nullcontext():
            return run()
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
    gc.collect()  # outside the handler, whose traceback holds what was allocated
    if device == "cuda":
        torch.cuda.empty_cache()
    return {"outcome": NO_MEMORY, **where(device)}
