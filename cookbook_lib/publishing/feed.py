"""The changelog as an Atom feed, made when the site is built: an entry for each of its headings."""

import re
from html import escape, unescape

PAGE, FEED, TITLE = "changelog.md", "feed.xml", "What is new"
SECTION = re.compile(
    r'<h2 id="([^"]+)">(\d{4}-\d\d-\d\d): (.*?)<a class="headerlink".*?</h2>(.*?)(?=<h2|\Z)',
    re.DOTALL,
)
RELATIVE = re.compile(r'href="(?!https?:)([^"]*)"')


def feed(html: str, site_name: str, site_url: str) -> str:
    """The feed of a changelog's HTML, whose headings are `## YYYY-MM-DD: What happened`.

    Raises ValueError if there is no such heading.
    """
    found = SECTION.findall(html)
    if not found:
        raise ValueError("the changelog has no heading like '## 2026-11-24: What happened'")
    page = f"{site_url}{PAGE.removesuffix('.md')}/"
    entries = "".join(
        entry(f"{page}#{anchor}", date, unescape(title), absolute(text, page))
        for anchor, date, title, text in found
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom">'
        f"<title>{escape(site_name)}: {TITLE.lower()}</title><id>{page}</id>"
        f'<link href="{page}"/><link rel="self" href="{site_url}{FEED}"/>'
        f"<author><name>{escape(site_name)}</name></author>"
        f"<updated>{max(date for _, date, _, _ in found)}T00:00:00Z</updated>{entries}</feed>\n"
    )


def entry(address: str, date: str, title: str, html: str) -> str:
    return (
        f'<entry><title>{escape(title)}</title><id>{address}</id><link href="{address}"/>'
        f"<updated>{date}T00:00:00Z</updated>"
        f'<content type="html">{escape(html.strip())}</content></entry>'
    )


def absolute(html: str, page: str) -> str:
    """HTML whose links lead to the same places from anywhere."""
    from urllib.parse import urljoin

    return RELATIVE.sub(lambda link: f'href="{urljoin(page, link[1])}"', html)
