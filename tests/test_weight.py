"""A page is light and stays still: no more than 350 kB compressed with all that it needs, without
the planner's Python, and nothing moves while it loads. Search has as much for the whole site."""

import gzip
import re
from functools import cache
from pathlib import Path

from browser import needs_browser

from cookbook_lib.publishing.planner.runtime import FILES

MOST = 350_000  # bytes
INDEX = "search/search_index.json"  # of the whole site: fetched when the page is there, and kept
STILL = 1e-3  # Chromium's score of layout shifts: a heading moved by a pixel has 2e-4
IMAGE = re.compile(r"<img\b[^>]*>")


@cache
def compressed(file: Path) -> int:
    return len(gzip.compress(file.read_bytes()))


def weight(visit, site: Path) -> int:
    """The page and all that the browser asked for, without search and the planner's runtime."""
    files = {visit.page}
    for address in visit.loaded - {INDEX, *(f"planner/{name}" for name in FILES)}:
        path = site / address.partition("?")[0]
        if path.is_file():
            files.add(path)
    return sum(map(compressed, files))


@needs_browser
def test_no_page_weighs_more_than_350_kilobytes(site, visited):
    weights = sorted(((weight(v, site), v.page) for v in visited), reverse=True)
    for nbytes, page in weights[:5]:
        print(f"{nbytes / 1000:6.1f} kB  {page.relative_to(site)}")
    assert compressed(site / "assets" / "cookbook.css") < weights[-1][0] < weights[0][0] < MOST
    assert any("assets/cookbook.css" in v.loaded for v in visited)


def test_the_search_index_of_the_whole_site_is_no_heavier_than_a_page(site):
    assert 0 < compressed(site / INDEX) < MOST


@needs_browser
def test_nothing_moves_while_a_page_loads(visited):
    moved = [
        f"{v.page} ({v.scheme}): {v.shifts}" for v in visited if sum(s for s, _ in v.shifts) > STILL
    ]
    assert visited and not moved, "\n".join(moved)


def test_an_image_has_its_size_and_comes_when_it_is_seen(site):
    for page in site.rglob("*.html"):
        for image in IMAGE.findall(page.read_text()):
            assert re.search(r' width="\d+".* height="\d+"', image), (page, image[:200])
            assert 'loading="lazy"' in image or "data:" in image, (page, image[:200])
