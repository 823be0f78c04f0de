"""Programs that read the site find what they look for: each page is in the sitemap and has a text
and a picture for those who link to it; the feed has what is new; a wrong address leads on."""

import re
import xml.etree.ElementTree as ET
from html import unescape
from urllib.parse import urljoin, urlsplit

import pytest

from cookbook_lib.publishing import book, cards
from cookbook_lib.publishing.feed import FEED, feed

SITE = "https://hybrid-cookbook.github.io/cookbook/"
ATOM = "{http://www.w3.org/2005/Atom}"
PROPERTY = re.compile(r'<meta property="og:([\w:]+)" content="([^"]*)">')


@pytest.fixture
def pages(site):
    """Address -> HTML of every page but 404.html, which is no page of its own."""
    files = [path for path in site.rglob("*.html") if path.name != "404.html"]
    return {path.parent.relative_to(site).as_posix() + "/": path.read_text() for path in files}


def test_the_sitemap_has_every_page_and_robots_are_told_where_it_is(site, pages):
    listed = re.findall(r"<loc>(.*?)</loc>", (site / "sitemap.xml").read_text())
    assert sorted(listed) == sorted(SITE + page.removeprefix("./") for page in pages)
    assert f"Sitemap: {SITE}sitemap.xml" in (site / "robots.txt").read_text().splitlines()


def test_each_page_has_its_own_text_and_a_light_picture(site, pages):
    from PIL import Image

    texts = {}
    for page, html in pages.items():
        said = {name: unescape(value) for name, value in PROPERTY.findall(html)}
        assert said["url"] == SITE + page.removeprefix("./"), page
        picture = site / said["image"].removeprefix(SITE)
        assert picture.stat().st_size < 40_000, picture
        with Image.open(picture) as image:
            assert image.size == cards.SIZE == (int(said["image:width"]), int(said["image:height"]))
        assert '<meta name="description" content="' in html
        assert 20 < len(said["description"]) <= cards.LONGEST + 1, (page, said["description"])
        texts.setdefault(said["title"] + said["description"], []).append(page)
    assert not [same for same in texts.values() if len(same) > 1]


def test_a_long_text_ends_with_a_sentence_or_says_that_it_goes_on():
    assert cards.summary("<p><strong>Goal.</strong> Count. <strong>Needs</strong> a CPU.") == ""
    text = "<p><strong>Goal.</strong> Count &lt; 3. <strong>Needs</strong> a CPU.</p>"
    assert cards.summary("<p>Of <math>x</math></p>" + text) == "Count < 3."
    assert cards.shortened("One sentence. " + "word " * 60) == "One sentence."
    assert cards.shortened("word " * 60).endswith(" word…")


def test_the_feed_has_each_entry_of_the_changelog_and_every_page_names_it(site, pages):
    tree = ET.parse(site / FEED).getroot()
    entries = tree.findall(f"{ATOM}entry")
    headings = re.findall(r'<h2 id="([^"]+)"', pages["changelog/"])
    links = [entry.find(f"{ATOM}link").get("href") for entry in entries]
    assert links == [f"{SITE}changelog/#{anchor}" for anchor in headings] and links
    dates = [entry.find(f"{ATOM}updated").text for entry in entries]
    assert dates == sorted(dates, reverse=True)
    assert tree.find(f"{ATOM}updated").text == dates[0]
    for entry in entries:
        for link in re.findall(r'href="([^"]*)"', entry.find(f"{ATOM}content").text):
            assert urlsplit(link).scheme == "https", link
    for page, html in pages.items():
        link = re.search(r'type="application/atom\+xml"[^>]*href="([^"]*)"', html)[1]
        assert urljoin(SITE + page, link) == SITE + FEED


def test_a_changelog_without_a_date_is_refused():
    with pytest.raises(ValueError, match="no heading like"):
        feed("<h2>News</h2>", "Book", SITE)


def test_a_wrong_address_leads_on(site):
    html = re.search(r"<article.*?</article>", (site / "404.html").read_text(), re.DOTALL)[0]
    links = re.findall(r'href="(/cookbook/[^"]*)"', html)
    assert {"/cookbook/planner/", "/cookbook/models/"} <= set(links)


def test_the_book_has_each_chapter_once_and_its_links_stay_inside(site, pages):
    html = book.book(site, SITE)
    outside = "".join(book.DRAWING.split(html)[::2])
    ids = re.findall(r'<[^<>]*\sid="([^"]*)"', outside)
    assert len(ids) == len(set(ids))
    chapters = [page for page in pages if page.startswith("recipes/")]
    assert chapters and {book.place(page) for page in chapters} <= set(ids)
    for link in re.findall(r'<a [^>]*href="([^"]*)"', outside):
        assert link[1:] in ids if link.startswith("#") else urlsplit(link).scheme, link
    assert "<script" not in html and "<details class" not in html
