"""`python -m cookbook_lib.publishing.speed`: how soon each page of the built site shows something.

First contentful paint from this machine, in Chromium with the processor slowed four times: the
median of three cold visits. Other work on the machine counts too, so this is no test.
"""

import sys
from pathlib import Path
from statistics import median

from cookbook_lib.publishing.chromium import opened, pages, served

LIMIT = 1.0  # seconds
SLOWER, VISITS = 4, 3
PAINT = """new Promise((done) => new PerformanceObserver((list) => {
    for (const entry of list.getEntriesByName("first-contentful-paint")) done(entry.startTime);
}).observe({ type: "paint", buffered: true }))"""


def paint(browser, address: str) -> float:
    """Seconds until the first text or drawing of a page, with nothing kept from before."""
    context = browser.new_context()
    tab = context.new_page()
    context.new_cdp_session(tab).send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    tab.goto(address)
    seconds = tab.evaluate(PAINT) / 1000
    context.close()
    return seconds


def paints(site: Path) -> dict[str, float]:
    """Page -> median of its visits."""
    with served(site) as address, opened() as browser:
        paint(browser, address)  # the browser's own start
        return {
            page: median(paint(browser, address + page) for _ in range(VISITS))
            for page in pages(site)
        }


if __name__ == "__main__":
    try:
        measured = paints(Path("site"))
    except OSError as error:
        sys.exit(f"speed: {error}")
    for page, seconds in sorted(measured.items(), key=lambda item: -item[1])[:10]:
        print(f"{seconds:5.2f} s  /{page}")
    late = sum(seconds > LIMIT for seconds in measured.values())
    print(f"{len(measured)} pages, {late} later than {LIMIT:g} s at 1/{SLOWER} of the speed")
    sys.exit(late > 0)
