"""The map: every chapter with its question, its length and what it builds on, listed and drawn.

The drawing is a list of titles with an arc from each chapter to those that build on it, as SVG with
text that can be selected and follows the page's colours. It is as wide as a phone.
"""

import textwrap
from collections.abc import Iterator
from html import escape

from cookbook_lib.publishing.boxes import device, many, whole
from cookbook_lib.publishing.chapters import Chapter
from cookbook_lib.publishing.prose import from_root

WIDTH, MARGIN, ROW, LINE = 360, 84, 26, 14  # pixels of the drawing
CHARACTERS = 38  # of a title, in one line beside the arcs
Parts = dict[str, list[Chapter]]


def parts(nav: list, known: tuple[Chapter, ...]) -> Parts:
    """Title of each part of the book -> its chapters, from the filled menu."""
    by_page = {f"recipes/{of.name}.md": of for of in known}
    found = {
        title: [by_page[page] for page in pages if str(page) in by_page]
        for entry in nav
        if isinstance(entry, dict)
        for title, pages in entry.items()
        if isinstance(pages, list)
    }
    return {title: of for title, of in found.items() if of}


def page(book: Parts, ran: dict[str, dict]) -> str:
    """The page as Markdown. ran: what the executed notebook of each chapter says of its run."""
    of = [chapter for part in book.values() for chapter in part]
    minutes, problems = sum(c.minutes for c in of), sum(len(c.problems) for c in of)
    total = sum(ran[c.name]["seconds"] for c in of)
    top = [
        "---\nhide: [toc]\ndescription: Every chapter, its question, and what it builds on\n---",
        "# Map of the chapters",
        f"{len(of)} chapters, {minutes / 60:.0f} hours to read and {total / 60:.0f} minutes to "
        f"run, with [{problems} problems](problems.md). An arc leads from a chapter to those that "
        "build on it; what has no arc from above can be read first.",
        f'<nav class="chapter-map" aria-label="What builds on what">{drawing(book)}</nav>',
    ]
    return "\n\n".join([*top, *(line for part in book for line in listed(part, book[part], ran))])


def listed(title: str, of: list[Chapter], ran: dict[str, dict]) -> Iterator[str]:
    yield f"## {title}"
    for c in of:
        facts = [
            f"{c.minutes} min to read",
            f"runs in {whole(ran[c.name]['seconds'])} on {device(ran[c.name]['where'])}",
            f"needs a {c.needs}",
            f"[{many(len(c.problems), 'problem')}](problems.md#{c.name})" if c.problems else "",
        ]
        if c.builds_on:
            links = ", ".join(f"[{name[:3]}](recipes/{name}.md)" for name in c.builds_on)
            facts.append(f"builds on {links}")
        yield f"**[{c.number} {c.title}](recipes/{c.name}.md)**<br>\n{from_root(c.goal)}<br>\n" + (
            f'<span class="nb-small">{" · ".join(filter(None, facts))}</span>'
        )


def needed(of: list[Chapter]) -> dict[str, set[str]]:
    """What each chapter builds on, without what follows from the rest."""
    known = {c.name for c in of}
    direct = {c.name: set(c.builds_on) & known for c in of}

    def below(name: str) -> set[str]:
        return direct[name].union(*map(below, direct[name]))

    return {
        name: {one for one in on if not any(one in below(other) for other in on - {one})}
        for name, on in direct.items()
    }


def drawing(book: Parts) -> str:
    of_all = [c for part in book.values() for c in part]
    builds_on, at, rows, y = needed(of_all), {}, [], 0.0
    longest = ROW * len(of_all)
    for title, of in book.items():
        y += ROW
        rows.append(f'<text class="part" x="{MARGIN}" y="{y - 6:g}">{escape(title)}</text>')
        for c in of:
            lines = textwrap.wrap(c.title.partition(":")[0], CHARACTERS)
            at[c.name] = y + ROW / 2
            arcs = "".join(arc(at[on], at[c.name], longest) for on in sorted(builds_on[c.name]))
            rows.append(node(c, lines, at[c.name], arcs))
            y += ROW + LINE * (len(lines) - 1)
    return (
        f'<svg viewBox="0 0 {WIDTH} {y + 4:g}" width="{WIDTH}" height="{y + 4:g}">'
        f"{''.join(rows)}</svg>"
    )


def node(c: Chapter, lines: list[str], y: float, arcs: str) -> str:
    """A chapter's title as a link, with the arcs from what it builds on."""
    first, *more = (escape(line) for line in lines)
    text = f'<tspan class="number">{c.number}</tspan> {first}' + "".join(
        f'<tspan x="{MARGIN + 25}" dy="{LINE}">{line}</tspan>' for line in more
    )
    dot = f'<circle cx="{MARGIN - 8}" cy="{y:g}" r="3"/>'
    return (
        f'<g class="chapter">{arcs}{dot}<a href="../recipes/{c.name}/">'
        f'<text x="{MARGIN}" y="{y + 4:g}">{text}</text></a></g>'
    )


def arc(top: float, bottom: float, longest: float) -> str:
    """From a chapter down to one that builds on it, the further the wider."""
    x = MARGIN - 12
    out = x - 1.3 * min(1, (bottom - top) / longest) ** 0.5 * (x - 2)
    end = f"{x:g},{bottom:g}"
    head = f"M{x - 5:g},{bottom - 3:g}L{end}L{x - 5:g},{bottom + 3:g}"
    return f'<path d="M{x:g},{top:g}C{out:.4g},{top:g} {out:.4g},{bottom:g} {end}{head}"/>'
