"""Printing a result: JSON for programs, a table for people."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any


def print_json(thing: Any) -> None:
    """One JSON document on standard output; `ValueError` for what JSON has no number for."""
    print(json.dumps(thing, indent=2, allow_nan=False))


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table; numbers to the right with thousands apart, text to the left."""
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold")
    numeric = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(head))]
    for name, right in zip(head, numeric, strict=True):
        first = name == head[0]
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=first)
    for row in rows:
        table.add_row(*map(cell, row))
    width = None if sys.stdout.isatty() else 160  # a file or a pipe has room
    console = Console(highlight=False, width=width)
    console.print(title, style="bold", markup=False)
    console.print(table)


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar of `total` things on a terminal's standard error; none elsewhere, or without rich.

    Call what it yields with the name of each thing as that begins: the one before is done then.
    """
    if not total or not sys.stderr.isatty() or not find_spec("rich"):
        yield lambda name: None
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
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=2,  # what is measured needs the cores
    ) as bar:
        task, begun = bar.add_task("", total=total), 0

        def begins(name: str) -> None:
            nonlocal begun
            bar.update(task, description=name, completed=begun)
            begun += 1

        yield begins


def cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def nbytes(n: int | float) -> str:
    """Bytes for people, in powers of 1024: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(n) < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.2f} {unit}"
        n /= 1024
    return f"{n:.2f} TiB"


def gb(n: int | float) -> str:
    """Bytes as the memory of chips is sold, in powers of 1000, without the unit: 1.50."""
    return f"{n / 1e9:.2f}"


def count(n: int | float) -> str:
    """A count for people, in powers of 1000: 2.66 G."""
    for unit in ("", "k", "M", "G", "T", "P", "E"):
        if abs(n) < 1000:
            return f"{n:.0f}" if not unit else f"{n:.2f} {unit}"
        n /= 1000
    return f"{n:.2f} Z"


def seconds(t: int | float) -> str:
    """A time for people: 3.21 ms, 4.5 h, 30.2 d."""
    for limit, scale, unit in (
        (1e-3, 1e-6, "µs"),
        (1, 1e-3, "ms"),
        (120, 1, "s"),
        (7200, 60, "min"),
        (48 * 3600, 3600, "h"),
    ):
        if abs(t) < limit:  # a difference of times may be below 0
            return f"{t / scale:.2f} {unit}"
    return f"{t / 86400:,.1f} d"
