"""The built site is complete and stands alone: each recipe has a page, each link leads somewhere,
and no page asks another host for anything or scrolls sideways on a phone."""

import gzip
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import needs_browser

from cookbook_lib.plots import INK, PAPER
from cookbook_lib.publishing.recipes import recipes

ROOT = Path(__file__).parent.parent
LOADS = {  # tag -> attributes whose address a browser fetches
    "script": {"src"},
    "img": {"src", "srcset"},
    "iframe": {"src"},
    "source": {"src", "srcset"},
    "video": {"src", "poster"},
    "audio": {"src"},
    "embed": {"src"},
    "object": {"data"},
    "use": {"href", "xlink:href"},
    "image": {"href", "xlink:href"},
}
NOT_LOADED = {"canonical", "prev", "next", "edit", "license", "alternate"}  # rel of a <link>
URL = re.compile(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)")


class Page(HTMLParser):
    """The addresses that a page loads, those that it links to, and the anchors that it has."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.loads, self.links, self.anchors = path, [], [], {""}
        self.text = path.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        values = {name: value for name, value in attrs if value is not None}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        self.loads += [values[name] for name in LOADS.get(tag, set()) & set(values)]
        if tag == "link" and values.get("rel") not in NOT_LOADED:
            self.loads.append(values["href"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_each_recipe_has_a_page_a_place_in_the_menu_and_a_link_to_its_source(site, pages):
    found = recipes(ROOT)
    assert found, "there is no recipe"
    menu = pages[site / "index.html"].links
    for recipe in found:
        page = pages[site / "recipes" / recipe.name / "index.html"]
        assert f"recipes/{recipe.name}/" in menu
        assert any(link.endswith(f"/edit/main/recipes/{recipe.name}.py") for link in page.links)
        assert (page.path.parent / f"{recipe.name}.ipynb").exists()
    assert {path.parent.name for path in pages if path.parent.parent.name == "recipes"} == {
        recipe.name for recipe in found
    }, "a page of a recipe that is gone"


def test_the_menu_has_the_recipes_in_reading_order(site, pages):
    menu = [link for link in pages[site / "404.html"].links if re.search(r"/recipes/\d", link)]
    order = list(dict.fromkeys(link.rstrip("/").rpartition("/")[2] for link in menu))
    assert order == sorted(order) and len(order) == len(recipes(ROOT))


def test_pages_are_small_and_show_no_source_of_a_formula_or_error(pages):
    for path, page in pages.items():
        assert len(gzip.compress(page.text.encode())) < 350_000, path
        assert '<script type="math' not in page.text and "arithmatex" not in page.text, path
        assert not re.search(r"<m[a-z]+>\\", page.text), path
        assert "x-output" not in page.text and "nb-place" not in page.text, path
        assert "<!-- computed" not in page.text, path
        assert INK not in page.text and PAPER not in page.text, path


def test_every_figure_and_image_has_a_text(pages):
    for path, page in pages.items():
        for figure in re.findall(r'<figure class="nb-output nb-figure"[^>]*><svg', page.text):
            assert re.search(r'aria-label="[^"]{8,}"', figure), (path, figure)
        for image in re.findall(r"<img .*?>", page.text):
            assert " alt=" in image, (path, image[:200])


def test_no_page_and_no_style_loads_from_another_host(site, pages):
    for path, page in pages.items():
        for address in page.loads:
            parts = urlsplit(address)
            assert not parts.netloc and parts.scheme in {"", "data"}, (path, address)
    for path in site.rglob("*.css"):
        for address in URL.findall(path.read_text()):
            assert not re.match(r"(https?:)?//", "".join(address)), (path, address)


def test_every_internal_link_leads_to_a_page_and_an_anchor(site, pages):
    for path, page in pages.items():
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path
            if parts.path:  # Material's 404 page has absolute links, below the site's own folder
                base = site if link.startswith("/") else path.parent
                target = (base / unquote(parts.path.removeprefix("/cookbook/"))).resolve()
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), (path, link)
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].anchors, (path, link)


@needs_browser
def test_a_browser_asks_no_other_host_reports_no_error_and_scrolls_only_down(visited):
    wrong = [f"{v.page} ({v.scheme}): {what}" for v in visited for what in v.wrong]
    wrong += [
        f"{v.page} is {v.over} px wider than a {v.scheme} window" for v in visited if v.over > 0
    ]
    assert visited and not wrong, "\n".join(wrong)
