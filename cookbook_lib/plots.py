"""Plots and tables of the recipes: readable in a notebook, and on the site in light and dark.

`use()` once, then plain matplotlib. In a notebook a figure is dark ink on a white card, which can
be read on any background. The site replaces INK and PAPER by the colours of its scheme (see
`cookbook_lib/publishing/outputs.py`); the data colours have a contrast above 3:1 with both, and
stay apart in the three kinds of colour blindness.
"""

import io
import re
import sys
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.figure import Figure

from cookbook_lib.calculators.diagram import describe, draw
from cookbook_lib.calculators.model import Model

INK, PAPER = "#222324", "#fefeff"  # no one draws data in these by chance
NUMBER = re.compile(r"[-+−]?[\d,.]+(e[-+]?\d+)?( ?(%|x|×|[kMGTP]?i?B|[kMGTP]?FLOP(/s)?|[mµ]?s))?|")
COLORS = ("#2980c8", "#e86b05", "#7244fd", "#a8582d", "#786d8a", "#af837a")

STYLE: dict[str, Any] = {
    "figure.figsize": (5.8, 3.4),
    "figure.constrained_layout.use": True,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": "none",
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "grid.alpha": 0.15,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "font.size": 10,
    "lines.markersize": 4,
    "svg.fonttype": "path",  # the same shapes on every machine
    "svg.hashsalt": "cookbook",  # the same ids in every run
    **{
        f"{part}color": INK
        for part in ("text.", "axes.label", "axes.edge", "xtick.", "ytick.", "grid.")
    },
}


def use() -> None:
    """Set the house style; in a notebook, figures become SVG."""
    plt.rcParams.update(STYLE)
    if in_notebook():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})


def show(fig: Figure, alt: str, live: str = "", values: Any = None) -> None:
    """Show a figure with the text that a reader gets who cannot see it, and close it.

    `alt` is one sentence: what is plotted, and what it shows. Outside a notebook the figure is
    drawn, so that mistakes in it are found, and not shown. On the site the script
    `docs/assets/LIVE.js` may put something to play with in its place, and finds `values` there.
    """
    if not alt.strip():
        raise ValueError("alt is empty, expected one sentence that says what the figure shows")
    svg = io.StringIO()
    fig.savefig(svg, format="svg", metadata={"Date": None})
    plt.close(fig)
    drawing(svg.getvalue(), alt, {"live": live, "values": values} if live else {})


def model(spec: Model) -> None:
    """Draw a model from its layout: its layers, and what each of them holds."""
    drawing(draw(spec, INK, PAPER), describe(spec))


def drawing(svg: str, alt: str, more: Mapping[str, Any] | None = None) -> None:
    """Show an SVG in INK and PAPER with its text; nothing outside a notebook."""
    if in_notebook():
        from IPython.display import display

        data = {"image/svg+xml": svg, "text/plain": alt}
        display(data, raw=True, metadata={"image/svg+xml": {"alt": alt, **(more or {})}})


def in_notebook() -> bool:
    """True in a Jupyter kernel, False in a plain script or a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")


class Table:
    """Rows for the eye: an HTML table in a notebook and on the site, aligned text elsewhere."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]):
        self.rows = [dict(row) for row in rows]
        if not self.rows:
            raise ValueError("rows is empty, expected at least one row to show")
        self.head = list(dict.fromkeys(name for row in self.rows for name in row))
        self.cells = [[text(row.get(name, "")) for name in self.head] for row in self.rows]
        self.right = [
            all(NUMBER.fullmatch(cells[i]) for cells in self.cells) for i in range(len(self.head))
        ]

    def _repr_html_(self) -> str:
        def line(tag: str, cells: list[str]) -> str:
            tds = (
                f'<{tag} style="text-align: {"right" if right else "left"}">{escape(cell)}</{tag}>'
                for cell, right in zip(cells, self.right, strict=True)
            )
            return f"<tr>{''.join(tds)}</tr>"

        body = "".join(line("td", cells) for cells in self.cells)
        return f"<table><thead>{line('th', self.head)}</thead><tbody>{body}</tbody></table>"

    def __repr__(self) -> str:
        lines = [self.head, *self.cells]
        widths = [max(len(cells[i]) for cells in lines) for i in range(len(self.head))]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(cells, widths, self.right, strict=True)
            ).rstrip()
            for cells in lines
        )


def table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Rows as a table: keys are the head, whole numbers get thousands separators.

    The last expression of a cell, or `display(table(…))` in the middle of one.
    """
    return Table(rows)


def text(value: Any) -> str:
    """A value as a table shows it: 1,000 rather than 1000, four digits of a fraction."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
