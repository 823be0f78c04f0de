"""What cells printed, as parts of a page: figures follow the scheme, tables can be scrolled."""

import re
from html import escape, unescape

from cookbook_lib.plots import INK, PAPER

OUTPUT = re.compile(r"<x-output>(.*?)</x-output>", re.DOTALL)
FIGURE = re.compile(r'<figure class="nb-output nb-figure" data-alt="(.*?)">(.*?)</figure>', re.DOTALL)
STYLE_TAG = re.compile(r"<style.*?</style>", re.DOTALL)
NOT_SHOWN = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", re.DOTALL)
LABEL = re.compile(r"<!-- (.*?) -->", re.DOTALL)
PLACE = '<div class="nb-place" id="nb-place-{}"></div>'


def take_out(markdown: str) -> tuple[str, list[str]]:
    """Markdown with a place for each output, and the outputs as HTML."""
    outputs: list[str] = []

    def place(match: re.Match) -> str:
        outputs.append(for_page(match[1]))
        return PLACE.format(len(outputs) - 1)

    return OUTPUT.sub(place, markdown), outputs


def put_back(html: str, outputs: list[str]) -> str:
    """The page with each output in its place.

    Raises ValueError if a place was lost, as in a code fence that a recipe's prose does not close.
    """
    for i, output in enumerate(outputs):
        if html.count(PLACE.format(i)) != 1:
            raise ValueError(f"output {i + 1} has no place on the page: is a code fence not closed?")
        html = html.replace(PLACE.format(i), output)
    return html


def for_page(output: str) -> str:
    if 'class="nb-output nb-html"' in output:
        return STYLE_TAG.sub("", output)  # pandas brings its own, for light pages only
    return FIGURE.sub(lambda match: figure(match[2], unescape(match[1])), output)


def figure(svg: str, alt: str) -> str:
    """An SVG in the page's own colours, with a text for those who cannot see it."""
    if not svg.lstrip().startswith(("<?xml", "<svg", "<!DOCTYPE")):
        return f'<figure class="nb-output nb-figure">{svg}</figure>'
    labels = dict.fromkeys(LABEL.findall(svg))  # matplotlib notes each text before its shapes
    alt = alt or "Figure: " + ", ".join(label for label in labels if not label.startswith("$"))
    svg = LABEL.sub("", NOT_SHOWN.sub("", svg)).strip()
    svg = svg.replace(INK, "currentColor").replace(PAPER, "var(--md-default-bg-color)")
    return (
        '<figure class="nb-output nb-figure" role="img" tabindex="0" '
        f'aria-label="{escape(alt)}">{svg}</figure>'
    )


LIST_ITEM = re.compile(r"(?:[-*+]|\d+\.) ")


def spaced(markdown: str) -> str:
    """Markdown with a blank line before each list: Python-Markdown needs it, Jupyter does not."""
    lines: list[str] = []
    fence = ""
    for line in markdown.split("\n"):
        mark = re.match(r"(`{3,}|~{3,})", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and line.strip() == fence:
            fence = ""
        before = lines[-1] if lines else ""
        starts = LIST_ITEM.match(line) and before.strip() and not fence
        if starts and not LIST_ITEM.match(before) and not before.startswith(" "):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)
