"""Chromium on this machine, for what looks at a built site: the book, its speed, its pictures."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")


class Quiet(SimpleHTTPRequestHandler):
    def __init__(self, *args, below: str, **more):
        self.below = below
        super().__init__(*args, **more)

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.removeprefix(self.below))

    def log_message(self, *args) -> None:
        pass


@contextmanager
def served(site: Path, below: str = "") -> Iterator[str]:
    """The address of a folder, served on this machine; below: a path such as `/cookbook`."""
    handler = partial(Quiet, directory=site, below=below)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}{below}/"
    server.shutdown()
    server.server_close()


def executable() -> str:
    """Where the browser is; empty if nowhere."""
    return next(filter(None, map(shutil.which, NAMES)), "")


@contextmanager
def opened(*flags: str) -> Iterator:
    """The browser; `OSError` if there is none."""
    from playwright.sync_api import sync_playwright

    if not (found := executable()):
        raise OSError(f"no browser of {', '.join(NAMES)} is on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", *flags])
        yield browser
        browser.close()


def pages(site: Path) -> list[str]:
    """The addresses of all pages below the site's."""
    folders = (page.parent.relative_to(site).as_posix() for page in site.rglob("index.html"))
    return sorted("" if folder == "." else f"{folder}/" for folder in folders)
