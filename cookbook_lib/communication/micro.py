"""Rows of benchmarks below the frameworks: of nccl-tests, of OSU, of plain MPI."""

from pathlib import Path
from typing import Any

Row = dict[str, Any]

WIRE = {  # busbw over algbw for n ranks, NVIDIA/nccl-tests doc/PERFORMANCE.md
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "gather": lambda n: (n - 1) / n,
    "scatter": lambda n: (n - 1) / n,
    "broadcast": lambda n: 1.0,
    "reduce": lambda n: 1.0,
    "send_recv": lambda n: 1.0,
    "send_recv_both": lambda n: 1.0,
}


def row(source: str, op: str | None, ranks: int | None, nbytes: int, seconds: float, where: str):
    """One measurement; bandwidths follow from the size, by NCCL's definitions.

    nbytes: of the message as nccl-tests counts it: the whole that the ranks share.
    """
    if op is None or ranks is None:
        what = "collective" if op is None else "number of ranks"
        raise ValueError(f"{where}: the {what} is not said in the file, expected it with the file")
    if op not in WIRE:
        raise ValueError(f"{where}: op is {op!r}, expected one of {', '.join(WIRE)}")
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{where}: the time is {seconds:g} s, expected more than 0")
    algbw = nbytes / seconds
    return {
        "source": source,
        "op": op,
        "ranks": ranks,
        "nbytes": nbytes,
        "seconds": seconds,
        "algbw": algbw,
        "busbw": algbw * WIRE[op](ranks),
    }


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
