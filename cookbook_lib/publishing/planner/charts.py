"""Two small charts as SVG in the page's own colours: curves over powers of two, stacked bars."""

from collections.abc import Mapping, Sequence
from html import escape
from math import floor, log2

from cookbook_lib.commands.output import nbytes

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 74, 12, 10, 44


def curves(
    title: str, x: Sequence[int], lines: Mapping[str, Sequence[int]], mark: int | None = None
) -> str:
    """Bytes over tokens, both on axes of powers of two; `mark` is a point on the x axis."""
    values = [v for line in lines.values() for v in line if v > 0]
    if not values:
        return ""
    low, high = (
        floor(log2(min(values))),
        max(floor(log2(max(values))) + 1, floor(log2(min(values))) + 4),
    )
    first, last = log2(x[0]), log2(x[-1])

    def across(n: int | float) -> float:
        return LEFT + (log2(n) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def up(n: int | float) -> float:
        return HEIGHT - BOTTOM - (log2(n) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    step = max(1, round((high - low) / 5))
    parts = [
        f'<path class="grid" d="M{LEFT} {up(2**k):.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 8}" y="{up(2**k) + 4:.1f}" text-anchor="end">{short(2**k)}</text>'
        for k in range(low, high + 1, step)
    ]
    parts += [
        f'<text x="{across(n):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
        f"{tokens(n)}</text>"
        for n in x[::2]
    ]
    parts.append(
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        "context (tokens)</text>"
    )
    if mark and x[0] <= mark <= x[-1]:
        parts.append(f'<path class="mark" d="M{across(mark):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
    for name, line in lines.items():
        points = [f"{across(n):.1f} {up(v):.1f}" for n, v in zip(x, line, strict=True) if v > 0]
        parts.append(f'<path class="line {escape(name)}" d="M{"L".join(points)}"/>')
    return svg(title, HEIGHT, "".join(parts))


def bars(title: str, rows: Mapping[str, Mapping[str, int | float]], limit: int | float) -> str:
    """A bar for each row, its parts side by side, and the limit as a line across all."""
    widest = max([limit, *(sum(parts.values()) for parts in rows.values())]) * 1.04
    scale = (WIDTH - 34 - RIGHT) / widest
    drawn, height = [], 16 + 44 * len(rows)
    for i, (name, parts) in enumerate(rows.items()):
        x, y = 34.0, 8 + 44 * i
        drawn.append(f'<text x="2" y="{y + 22}">{escape(name)}</text>')
        for n, (part, value) in enumerate(parts.items()):
            width = value * scale
            drawn.append(
                f'<rect class="part part{n}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="32">'
                f"<title>{escape(part)}: {value / 1e9:.2f} GB</title></rect>"
            )
            x += width
    edge = 34 + limit * scale
    drawn.append(f'<path class="limit" d="M{edge:.1f} 0V{height}"/>')
    return svg(title, height, "".join(drawn))


def svg(title: str, height: int, inside: str) -> str:
    return (
        f'<svg class="planner-chart" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">{inside}</svg>'
    )


def short(n: int | float) -> str:
    """Bytes without digits that say nothing: 512 MiB."""
    number, unit = nbytes(n).split()
    return f"{float(number):g} {unit}"


def tokens(n: int) -> str:
    for unit, size in (("M", 2**20), ("k", 2**10)):
        if n >= size:
            return f"{n // size}{unit}"
    return str(n)
