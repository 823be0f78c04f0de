"""A page as a browser gets it: Material's gaps mended, and a policy that allows only its own parts.

GitHub Pages sends no headers of ours, so the Content-Security-Policy is a <meta>. Scripts and style
attributes inside a page are named by their hash, so that nothing else inside it can run.
"""

import hashlib
import re
from base64 import b64encode
from html import unescape

from cookbook_lib.publishing.feed import FEED, TITLE

STARS = 'data-md-component="source"'  # Material's script asks GitHub for them wherever it sees this
EMPTY = ' tabindex=""'  # on Material's labels; no number, so nothing
SEARCH = 'data-md-component="search" role="dialog"'  # Material's dialog has no name
CHARSET = '<meta charset="utf-8">'
INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)
STYLE = re.compile(r'<[^<>]+\sstyle="([^"]*)"')
ALIGNED = re.compile(r' style="text-align: (left|right);?"')
SHEET = re.compile(r'<link rel="stylesheet" href="([^"]*)assets/cookbook\.css">')
FONT = "assets/formulas.woff2"
AHEAD = rf'<link rel="preload" as="font" type="font/woff2" crossorigin href="\1{FONT}">\g<0>'
NEWS = rf'<link rel="alternate" type="application/atom+xml" title="{TITLE}" href="\1{FEED}">\g<0>'
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",  # icons in Material's style sheets
    "font-src": "'self'",
    "connect-src": "'self'",  # the search index
    "worker-src": "'self'",  # search, and the planner's Python
    "manifest-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
}


def delivered(html: str, strict: bool = True) -> str:
    """The page without what asks another host; if strict, its policy is the first thing read."""
    html = html.replace(STARS, "").replace(EMPTY, "")
    html = html.replace(SEARCH, f'{SEARCH} aria-label="Search"')
    html = SHEET.sub(NEWS, html, count=1)
    if "<math" in html:
        html = SHEET.sub(AHEAD, html, count=1)  # else the text moves when its font comes
    html = ALIGNED.sub(r' class="nb-\1"', html)
    return html.replace(CHARSET, CHARSET + policy(html), 1) if strict else html


def policy(html: str) -> str:
    rules = dict(POLICY)
    if scripts := hashes(INLINE.findall(html)):
        rules["script-src"] += scripts
    if styles := hashes(map(unescape, STYLE.findall(html))):
        rules["style-src-attr"] = f"'unsafe-hashes'{styles}"  # attributes, each by its hash
    content = "; ".join(f"{name} {value}" for name, value in rules.items())
    return f'<meta http-equiv="Content-Security-Policy" content="{content}">'


def hashes(texts) -> str:
    """The sources that name these texts, each behind a space."""
    digests = (b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return "".join(f" 'sha256-{digest}'" for digest in dict.fromkeys(digests))
