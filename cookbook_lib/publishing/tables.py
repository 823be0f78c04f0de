"""Tables of generated pages: cells are rounded as by the commands, and keep the exact number."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from cookbook_lib.commands.output import count, gb, nbytes, seconds


class Cell(NamedTuple):
    """What a reader sees (HTML), and the exact value that it stands for."""

    text: str
    value: int | float | str = ""


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Cell | str]]) -> str:
    """An HTML table in a box of its own that scrolls; the first cell of a row is its head.

    `caption`, `head` and cells that are strings are text. A column without a number stands left.
    """
    cells = [[c if isinstance(c, Cell) else Cell(escape(c), c) for c in row] for row in rows]
    words = [
        all(row[i].value and type(row[i].value) is str for row in cells) for i in range(len(head))
    ]
    kinds = [' class="nb-words"' if left else "" for left in words]
    columns = zip(head, kinds, strict=True)
    top = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in columns)
    body = "".join(f"<tr>{line(row, kinds)}</tr>" for row in cells)
    return (
        f'<div class="nb-output nb-html" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f'<table class="nb-table"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def line(row: Sequence[Cell], kinds: Sequence[str]) -> str:
    tags = ['th scope="row"', *["td"] * (len(row) - 1)]
    return "".join(
        f'<{tag}{kind} data-value="{escape(str(cell.value))}">{cell.text}</{tag[:2]}>'
        for tag, cell, kind in zip(tags, row, kinds, strict=True)
    )


def whole(n: int) -> Cell:
    return Cell(f"{n:,}", n)


def share(part: int | float, of: int | float, places: int = 1) -> Cell:
    return Cell(f"{part / of:.{places}%}", part / of)


def flop(n: int | float) -> Cell:
    return Cell(f"{count(n)}FLOP" if n else "0", n)


def size(n: int | float) -> Cell:
    return Cell(nbytes(n), n)


def giga(n: int | float) -> Cell:
    return Cell(gb(n), n)


def span(report: dict, key: str) -> Cell:
    """Two lower bounds of a time; the value is that of a fused run."""
    fast, slow = report[f"{key}_fused"], report[f"{key}_eager"]
    return Cell(f"{seconds(fast)} to {seconds(slow)}", fast)


def digits(n: int | float, unit: int | float) -> Cell:
    """A number in a unit, with three digits or with all before the point."""
    x = n / unit
    return Cell(f"{x:,.0f}" if x >= 100 else f"{x:#.3g}", n)
