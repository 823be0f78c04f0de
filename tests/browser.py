"""A built site served on this machine as `site_url` says, and the browser to look at it with."""

from functools import partial

import pytest

from cookbook_lib.publishing import chromium

CHROMIUM = chromium.executable()
needs_browser = pytest.mark.skipif(
    not CHROMIUM, reason="no chromium on this machine: the browser was not tried"
)
served = partial(chromium.served, below="/cookbook")
browser = partial(chromium.opened, "--disable-gpu", "--disable-background-networking")


def check_host(wrong: list[str], address: str, request) -> None:
    if not request.url.startswith((address, "data:", "blob:")):
        wrong.append(f"asked {request.url}")
