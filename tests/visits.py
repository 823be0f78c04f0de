"""Every page of the site in a browser, once in a wide light window and once in a narrow dark one:
what went wrong on it, what it loaded, how far it scrolls sideways and what shifted.

axe-core looks at each page too. What it would look at again and again is shown to it once: the
menu, colours of code that occurred before, rows of a table that are like those above.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import axe_playwright_python
from browser import browser, check_host

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
WINDOWS = {"light": 1440, "dark": 320}  # scheme -> pixels
SCHEMES = {"light": "default", "dark": "slate"}
COLOURS = ("color-contrast", "link-in-text-block")  # the rules that depend on the scheme
SHIFTS = """
    window.shifts = [];
    new PerformanceObserver((list) => {
      for (const shift of list.getEntries()) {
        if (!shift.hadRecentInput) {
          const what = shift.sources.map(({ node }) => node?.className || node?.nodeName).join();
          window.shifts.push([shift.value, what]);
        }
      }
    }).observe({ type: "layout-shift", buffered: true });
"""
SETTLED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
BOXES = ".nb-output, .formula, .md-typeset__scrollwrap, pre, :has(> .headerlink)"
CUT = """(boxes) => [...document.querySelectorAll(
    ".md-content :is(a, input, select, textarea, button, summary)"
)].filter((control) => {
    if (control.closest(boxes)) return false;
    const { left, right, width } = control.getBoundingClientRect();
    return width && (left < 0 || right > window.innerWidth);
}).map((control) => control.outerHTML.slice(0, 200))"""
ONCE = """(menu) => {
    const seen = new Set();
    for (const token of document.querySelectorAll(".highlight code span[class]:not(:has(*))")) {
      if (seen.has(token.className)) token.replaceWith(token.textContent);
      seen.add(token.className);
    }
    for (const row of document.querySelectorAll(".nb-html tbody tr:nth-child(n + 3)")) row.remove();
    for (const shape of document.querySelectorAll("figure[aria-label] svg > g")) shape.remove();
    if (!menu) document.querySelector(".md-sidebar--primary").remove();
}"""
RUN = """(rules) => axe.run(
    { exclude: [["math"]] },
    { resultTypes: ["violations"], ...(rules && { runOnly: rules }) },
).then(({ violations }) => violations.flatMap(({ id, impact, nodes }) => nodes.map(
    ({ html, any, all, none }) => [impact, id, [...any, ...all, ...none][0]?.message, html],
)))"""


@dataclass
class Visit:
    """What one page did in one window."""

    page: Path  # its file
    scheme: str
    wrong: list[str] = field(default_factory=list)  # errors, other hosts, what the policy refused
    loaded: set[str] = field(default_factory=set)  # addresses below the site's
    cut: list[str] = field(default_factory=list)  # controls that lie partly beside the window
    over: int = 0  # pixels that the page is wider than its window
    shifts: list[tuple[float, str]] = field(default_factory=list)
    access: list[tuple[str, str, str, str]] = field(default_factory=list)  # impact, rule, why, what


def visits(site: Path, address: str) -> Iterator[Visit]:
    pages = sorted(site.rglob("*.html"))
    with browser() as opened:
        for scheme, width in WINDOWS.items():
            size = {"width": width, "height": 900}
            context = opened.new_context(color_scheme=scheme, viewport=size)
            context.set_default_timeout(180_000)  # ms: a machine may be busy
            context.add_init_script(SHIFTS)
            for page in pages:
                visit, tab = Visit(page, scheme), context.new_page()
                listen(tab, visit, address)
                path = page.relative_to(site).as_posix().removesuffix("index.html")
                tab.goto(address + path, wait_until="load")
                look(tab, visit, menu=not path)
                tab.close()
                yield visit
            context.close()


def listen(tab, visit: Visit, address: str) -> None:
    wrong = visit.wrong
    tab.on("request", lambda r: check_host(wrong, address, r))
    tab.on("request", lambda r: visit.loaded.add(r.url.removeprefix(address)))
    tab.on("response", lambda r: r.status < 400 or wrong.append(f"{r.status} {r.url}"))
    tab.on("console", lambda m: m.type != "error" or wrong.append(m.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))


def look(tab, visit: Visit, menu: bool) -> None:
    tab.wait_for_selector(f'body[data-md-color-scheme="{SCHEMES[visit.scheme]}"]')
    tab.evaluate(SETTLED)
    visit.shifts = tab.evaluate("window.shifts")
    tab.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    tab.evaluate(SETTLED)
    visit.over = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    visit.cut = tab.evaluate(CUT, BOXES)
    tab.evaluate(ONCE, menu)
    tab.evaluate(AXE)
    visit.access = tab.evaluate(RUN, None if visit.scheme == "light" else COLOURS)


def axe(tab) -> list:
    """What axe-core finds on a page as it is now."""
    tab.evaluate(AXE)
    return tab.evaluate(RUN)
