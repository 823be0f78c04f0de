"""The picture that a link to a page is shown with elsewhere, drawn when the site is built."""

import hashlib
import re
from html import escape, unescape
from pathlib import Path
from textwrap import wrap

FOLDER = "assets/cards"
SIZE = (1200, 630)  # pixels: what Open Graph's readers show whole
PAPER, INK, SOFT = "#303f9f", "#ffffff", "#c5cae9"  # the site's indigo
LEFT = 80
PARAGRAPH = re.compile(r"<p>(.*?)</p>", re.DOTALL)
NOT_WORDS = re.compile(r"<math.*?</math>|<[^>]*>", re.DOTALL)
LONGEST = 200  # characters of a description


def summary(html: str) -> str:
    """The first paragraph of a page as text: a recipe's goal, without what it needs to run."""
    for paragraph in PARAGRAPH.findall(html):
        if "<math" not in paragraph:
            words = " ".join(unescape(NOT_WORDS.sub("", paragraph)).split())
            words = words.removeprefix("Goal. ").partition(" Needs ")[0]
            return shortened(words)
    return ""


def shortened(words: str) -> str:
    """The sentences that fit, or the words of the first one that do."""
    if len(words) <= LONGEST:
        return words
    whole = words[:LONGEST].rpartition(". ")[0]
    return f"{whole}." if whole else words[:LONGEST].rpartition(" ")[0] + "…"


def tags(title: str, text: str, address: str, picture: str) -> str:
    """What a page's head says of it to those who show a link: Open Graph's properties."""
    properties = {
        "og:type": "article",
        "og:title": title,
        "og:description": text,
        "og:url": address,
        "og:image": picture,
        "og:image:width": str(SIZE[0]),
        "og:image:height": str(SIZE[1]),
        "og:image:alt": f"{title}. {text}",
    }
    lines = [f'<meta property="{n}" content="{escape(v)}">' for n, v in properties.items()]
    return "\n".join([*lines, '<meta name="twitter:card" content="summary_large_image">'])


def card(kept: Path, site: str, title: str, text: str) -> Path:
    """The picture of a page as PNG, drawn once and kept in a folder."""
    key = hashlib.sha256("\0".join((site, title, text, PAPER)).encode()).hexdigest()[:16]
    path = kept / f"{key}.png"
    if not path.exists():
        kept.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        draw(site, title, text).save(part, "PNG", optimize=True)
        part.replace(path)
    return path


def draw(site: str, title: str, text: str):
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"

    def font(name: str, size: int):
        return ImageFont.truetype(str(fonts / f"{name}.ttf"), size)

    image = Image.new("RGB", SIZE, PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((LEFT, 70), site, SOFT, font("DejaVuSans", 34))
    lines = wrap(title, 26)
    pen.multiline_text(
        (LEFT, 160), "\n".join(lines[:3]), INK, font("DejaVuSans-Bold", 64), spacing=16
    )
    below = 200 + 84 * len(lines[:3])
    rows = wrap(text, 56)[: (SIZE[1] - below) // 46]
    pen.multiline_text((LEFT, below), "\n".join(rows), SOFT, font("DejaVuSans", 32), spacing=12)
    return image.quantize(16)
