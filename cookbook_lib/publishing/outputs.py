"""What cells printed, as parts of a page: figures follow the scheme, tables can be scrolled."""

import re
from html import escape, unescape

from cookbook_lib.plots import INK, PAPER

NOTEBOOK = re.compile(r"<x-notebook>(.*)</x-notebook>", re.DOTALL)
OUTPUT = re.compile(r"<x-output>(.*?)</x-output>", re.DOTALL)
FIGURE = re.compile(
    r'<figure class="nb-output nb-figure" data-alt="(.*?)"( data-live="([\w-]+)".*?)?>'
    r"(.*?)</figure>",
    re.DOTALL,
)
STYLE_TAG = re.compile(r"<style.*?</style>", re.DOTALL)
NOT_SHOWN = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", re.DOTALL)
LABEL = re.compile(r"<!-- (.*?) -->", re.DOTALL)
WIDTH = re.compile(r'(<svg [^>]*?width=")([\d.]+)pt"')
DRAWN = re.compile(r'(?<=[ "])style="([^"]*)"')
ATTRIBUTE = r'\1="\2" '
DECLARED = re.compile(r"\s*([\w-]+):\s*([^;]+?)\s*(?:;|$)")
COMMON = re.compile(r'<style type="text/css">\*\{([^{}]*)\}</style>')
PATH = re.compile(r'(?<= )d="([^"]*)"')
HUNDREDTH = r"\1"
FRACTION = re.compile(r"(\.\d\d)\d+")
SMALLEST = 0.65  # of its size: a figure is not shrunk below this, but scrolled
PLACE = '<div class="nb-place" id="nb-place-{}"></div>'


def take_out(converted: str) -> tuple[str, list[str]]:
    """A notebook from our template as Markdown with a place for each output, and the outputs."""
    outputs: list[str] = []

    def place(match: re.Match) -> str:
        outputs.append(for_page(match[1]))
        return PLACE.format(len(outputs) - 1)

    notebook = unescape(NOTEBOOK.search(converted)[1])
    return OUTPUT.sub(place, notebook), outputs


def put_back(html: str, outputs: list[str]) -> str:
    """The page with each output in its place.

    Raises ValueError if a place was lost, as in a code fence that a recipe's prose does not close.
    """
    for i, output in enumerate(outputs):
        if html.count(PLACE.format(i)) != 1:
            raise ValueError(f"output {i + 1} has no place on the page: is a fence not closed?")
        html = html.replace(PLACE.format(i), output)
    return html


def for_page(output: str) -> str:
    if 'class="nb-output nb-html"' in output:
        return STYLE_TAG.sub("", output)  # pandas brings its own, for light pages only
    return FIGURE.sub(shown, output)


def shown(match: re.Match) -> str:
    """A figure, and the script that brings it to life if it names one."""
    alt, live, script, svg = match.groups()
    made = figure(svg, unescape(alt))
    if not live:
        return made
    made = made.replace("<figure", f"<figure{live}", 1)
    return f'{made}<script src="../../assets/{script}.js"></script>'


def figure(svg: str, alt: str) -> str:
    """An SVG in the page's own colours, with a text for those who cannot see it."""
    if not svg.lstrip().startswith(("<?xml", "<svg", "<!DOCTYPE")):
        return f'<figure class="nb-output nb-figure">{svg}</figure>'
    labels = dict.fromkeys(LABEL.findall(svg))  # matplotlib notes each text before its shapes
    alt = alt or "Figure: " + ", ".join(label for label in labels if not label.startswith("$"))
    svg = small(with_attributes(LABEL.sub("", NOT_SHOWN.sub("", svg)).strip()))
    svg = WIDTH.sub(at_least, svg, count=1)
    svg = svg.replace(INK, "currentColor").replace(PAPER, "var(--md-default-bg-color)")
    return (
        '<figure class="nb-output nb-figure" role="img" tabindex="0" '
        f'aria-label="{escape(alt)}">{svg}</figure>'
    )


def with_attributes(svg: str) -> str:
    """A drawing of matplotlib whose styles are attributes: a page's policy lets no style run."""
    svg, common = COMMON.sub("", svg), COMMON.search(svg)
    svg = DRAWN.sub(lambda style: DECLARED.sub(ATTRIBUTE, style[1]).strip(), svg)
    return svg.replace("<svg ", f"<svg {DECLARED.sub(ATTRIBUTE, common[1])}", 1) if common else svg


def small(svg: str) -> str:
    """The drawing with paths to a hundredth of a point, and without the room between lines."""
    svg = PATH.sub(lambda path: f'd="{FRACTION.sub(HUNDREDTH, " ".join(path[1].split()))}"', svg)
    return re.sub(r">\s+<", "><", svg)


def at_least(width: re.Match) -> str:
    return f'{width[1]}{width[2]}pt" style="min-width: {SMALLEST * float(width[2]):.0f}pt"'
