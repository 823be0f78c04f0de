"""`python -m cookbook_lib.publishing.book`: the built site's chapters as one PDF, by Chromium.

The pages are set one behind the other in the order of the menu; a link to one of them leads to its
place in the book, and folded answers are open.
"""

import re
import sys
from html import escape, unescape
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from cookbook_lib.publishing.chromium import opened

ORIGIN = "http://book.invalid/"  # answered from the site's folder: nothing is asked of a network
LEFT_OUT = re.compile(r"planner/|models/.+")  # what a page of paper cannot do, and 38 sheets
LINK = re.compile(r'<a href="([^"#]+)" class="md-nav__link')
ARTICLE = re.compile(r"<article[^>]*>(.*?)</article>", re.DOTALL)
TITLE = re.compile(r"<h1[^>]*>(.*?)(?:<a class=\"headerlink\".*?)?</h1>", re.DOTALL)
NOT_PRINTED = re.compile(
    r"<script.*?</script>|<noscript.*?</noscript>|<a class=\"headerlink\".*?</a>"
    r'|<a [^>]*class="md-content__button.*?</a>',
    re.DOTALL,
)
DRAWING = re.compile(r"(<svg.*?</svg>)", re.DOTALL)
NAMED = re.compile(r'(<[^<>]*?\s)(id|for|href|aria-labelledby|aria-describedby)="([^"]*)"')
FOOT = (
    '<div style="width: 100%; font-size: 8px; text-align: center">'
    '<span class="pageNumber"></span></div>'
)


def addresses(site: Path) -> list[str]:
    """The pages of the menu in their order, as addresses below the site: "" is the first."""
    menu = LINK.findall((site / "404.html").read_text())
    base = menu[0].removesuffix(".")  # the first page's link
    found = dict.fromkeys(link.removeprefix(base).removeprefix(".") for link in menu)
    return [address for address in found if not LEFT_OUT.fullmatch(address)]


def book(site: Path, site_url: str) -> str:
    """One HTML page with all chapters."""
    within = addresses(site)
    chapters = {address: chapter(site, address, within, site_url) for address in within}
    head = re.search(r"<title>(.*?)</title>", (site / "index.html").read_text())[1]
    styles = re.findall(r'<link rel="stylesheet"[^>]*>', (site / "index.html").read_text())
    first = chapters.pop("")
    titles = (
        f'<li><a href="#{place(address)}">{re.sub("<[^>]*>", "", TITLE.search(html)[1])}</a></li>'
        for address, html in chapters.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{head}</title>'
        f'{"".join(styles)}</head><body dir="ltr" data-md-color-scheme="default" '
        'data-md-color-primary="indigo"><article class="md-typeset md-book">'
        f"{first}<nav><h2>Contents</h2><ol>{''.join(titles)}</ol></nav>"
        f"{''.join(chapters.values())}</article></body></html>"
    )


def place(address: str, anchor: str = "") -> str:
    """The id that a page, or an anchor on it, has in the book."""
    return "-".join(filter(None, ["page", *address.strip("/").split("/"), anchor]))


def chapter(site: Path, address: str, within: list[str], site_url: str) -> str:
    """A page's article, whose ids and links are the book's."""
    html = NOT_PRINTED.sub("", ARTICLE.search((site / address / "index.html").read_text())[1])
    html = html.replace("<details", "<details open")

    def named(match: re.Match) -> str:
        start, name, value = match.groups()
        if name != "href":
            return f'{start}{name}="{place(address, value)}"'
        to = urlsplit(urljoin(ORIGIN + address, unescape(value)))
        inside = f"{to.scheme}://{to.netloc}/" == ORIGIN
        if inside and to.path[1:] in within:
            return f'{start}href="#{place(to.path[1:], to.fragment)}"'
        link = to.geturl().replace(ORIGIN, site_url)
        return f'{start}href="{escape(link)}"'

    parts = DRAWING.split(html)  # a drawing names its own parts
    parts[::2] = [NAMED.sub(named, part) for part in parts[::2]]
    return f'<section id="{place(address)}">{"".join(parts)}</section>'


def printed(html: str, site: Path, path: Path) -> None:
    """Write the page as PDF, with bookmarks and page numbers."""

    def answer(route) -> None:
        file = site / urlsplit(route.request.url).path[1:]
        if file.is_file():
            return route.fulfill(path=file)
        return route.fulfill(body=html, content_type="text/html")

    with opened() as browser:
        tab = browser.new_page()
        tab.set_default_timeout(300_000)
        tab.route("**/*", answer)
        tab.goto(ORIGIN)
        tab.pdf(
            path=path,
            prefer_css_page_size=True,
            outline=True,
            tagged=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOT,
        )


if __name__ == "__main__":
    from mkdocs.config import load_config

    built, made = Path("site"), Path("build/book.pdf")
    try:
        printed(book(built, load_config("mkdocs.yml").site_url), built, made)
    except OSError as error:
        sys.exit(f"the book: {error}")
    print(f"The book is {made}, {made.stat().st_size / 1e6:.1f} MB.")
