"""Tables of generated pages: a caption, a head, and the exact number behind each rounded one."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple


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
