"""Rows of benchmarks below the frameworks: of nccl-tests, of OSU, of plain MPI."""

from pathlib import Path
from typing import Any

from cookbook_lib.communication.collectives import collective
from cookbook_lib.communication.rows import bandwidths

Row = dict[str, Any]


def row(
    backend: str, op: str | None, ranks: int | None, nbytes: int, seconds: float, where: str
) -> Row:
    """As `cookbook bench comm` writes it, but for `seconds`: OSU and nccl-tests tell only a mean.

    nbytes: of the message as nccl-tests counts it. where: the line, for errors.
    """
    if op is None or ranks is None:
        what, flag = ("collective", "op") if op is None else ("number of ranks", "ranks")
        raise ValueError(f"{where}: the {what} is not in the file, expected it beside it: {flag}")
    try:
        collective(op)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{where}: the time is {seconds:g} s, expected more than 0")
    algbw, busbw = bandwidths(op, ranks, nbytes, seconds)
    return {
        "op": op,
        "ranks": ranks,
        "nbytes": nbytes,
        "backend": backend,
        "seconds": {"mean": seconds},
        "algbw": algbw,
        "busbw": busbw,
    }


def taken(row: Row) -> float:
    """Seconds of a row: its median, or the mean where that is all that is known."""
    return row["seconds"].get("median", row["seconds"].get("mean"))


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
