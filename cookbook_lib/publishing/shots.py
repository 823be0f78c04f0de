"""`python -m cookbook_lib.publishing.shots [WORD…]`: pictures of the built pages in build/shots.

Each page whose address holds one of the words, or every page, in three widths and both schemes.
"""

import sys
from pathlib import Path

from cookbook_lib.publishing.chromium import opened, pages, served

WIDTHS = (1440, 768, 390)  # pixels
SCHEMES = ("light", "dark")
TALLEST = 16_000  # pixels of a picture: Chromium draws no larger ones


def shoot(site: Path, folder: Path, words: list[str]) -> int:
    """Take the pictures; their number."""
    chosen = [page for page in pages(site) if not words or any(word in page for word in words)]
    folder.mkdir(parents=True, exist_ok=True)
    with served(site) as address, opened() as browser:
        for width in WIDTHS:
            for scheme in SCHEMES:
                size = {"width": width, "height": 900}
                tab = browser.new_page(color_scheme=scheme, viewport=size)
                tab.set_default_timeout(180_000)  # ms: a long page takes its time
                for page in chosen:
                    tab.goto(address + page)
                    name = page.strip("/").replace("/", "-") or "index"
                    height = min(TALLEST, tab.evaluate("document.documentElement.scrollHeight"))
                    tab.screenshot(
                        path=folder / f"{name}-{width}-{scheme}.png",
                        full_page=True,
                        clip={"x": 0, "y": 0, "width": width, "height": height},
                    )
                tab.close()
    return len(chosen) * len(WIDTHS) * len(SCHEMES)


if __name__ == "__main__":
    made = Path("build/shots")
    try:
        number = shoot(Path("site"), made, sys.argv[1:])
    except OSError as error:
        sys.exit(f"shots: {error}")
    print(f"{number} pictures are in {made}/")
