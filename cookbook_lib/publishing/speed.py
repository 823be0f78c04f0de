"""`python -m cookbook_lib.publishing.speed`: how soon each page of the built site shows something.

First contentful paint from this machine, in Chromium with the processor slowed four times: the
median of three cold visits. Other work on the machine counts too, so this is no test.
"""

import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

from cookbook_lib.publishing.book import BROWSERS

LIMIT = 1.0  # seconds
SLOWER, VISITS = 4, 3
PAINT = """new Promise((done) => new PerformanceObserver((list) => {
    for (const entry of list.getEntriesByName("first-contentful-paint")) done(entry.startTime);
}).observe({ type: "paint", buffered: true }))"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


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
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        raise OSError(f"no browser of {', '.join(BROWSERS)} is on this machine")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    pages = sorted(page.parent.relative_to(site).as_posix() for page in site.rglob("index.html"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        paint(browser, address)  # the browser's own start
        seconds = {
            page: median(paint(browser, f"{address}{page}/") for _ in range(VISITS))
            for page in pages
        }
        browser.close()
    server.shutdown()
    return seconds


if __name__ == "__main__":
    try:
        measured = paints(Path("site"))
    except OSError as error:
        sys.exit(f"speed: {error}")
    for page, seconds in sorted(measured.items(), key=lambda item: -item[1])[:10]:
        print(f"{seconds:5.2f} s  {page}")
    late = sum(seconds > LIMIT for seconds in measured.values())
    print(f"{len(measured)} pages, {late} later than {LIMIT:g} s at 1/{SLOWER} of the speed")
    sys.exit(late > 0)
