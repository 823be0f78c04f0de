"""Released sites lie beside the newest one, and the head of each page leads to the same page of the
others, or to their first page."""

import re
import subprocess
import sys
import tarfile
from pathlib import Path
from urllib.parse import unquote, urljoin

import pytest

from cookbook_lib.publishing.versions import HEAD, NEWEST, link, unpacked

PAGE = '<div class="md-header__topic">\n <span class="md-ellipsis">\n Book\n </span></div><p>{}</p>'
PAGES = {  # version -> its pages
    NEWEST: ["index.html", "404.html", "a/index.html", "new/index.html"],
    "v0.2.0": ["index.html", "404.html", "a/index.html", "old/index.html"],
    "v0.10.0": ["index.html", "404.html", "a/index.html"],
}


def write(folder: Path, version: str) -> Path:
    for page in PAGES[version]:
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        (folder / page).write_text(PAGE.format(f"{version} {page}"))
    return folder


@pytest.fixture
def linked(tmp_path) -> Path:
    archives = tmp_path / "archives"
    archives.mkdir()
    for version in PAGES.keys() - {NEWEST}:
        with tarfile.open(archives / f"{version}.tar.gz", "w:gz") as archive:
            archive.add(write(tmp_path / "built" / version, version), ".")
    site = write(tmp_path / "site", NEWEST)
    names = unpacked(archives, site)
    assert names == ["v0.10.0", "v0.2.0"]
    link(site, names)
    return site


def test_each_page_leads_to_the_same_page_of_every_version(linked):
    for version, pages in PAGES.items():
        folder = "" if version == NEWEST else f"{version}/"
        for page in set(pages) - {"404.html"}:
            html = (linked / folder / page).read_text()
            links = re.findall(r'href="([^"]*)">([^<]*)</a>', html)
            assert [name for _, name in links] == [NEWEST, "v0.10.0", "v0.2.0"]
            assert f">{version}</button>" in html and html.endswith(f"<p>{version} {page}</p>")
            for address, name in links:
                here = f"http://book/{folder}{page.removesuffix('index.html')}"
                to = unquote(urljoin(here, address)).removeprefix("http://book/")
                target = (linked / to / "index.html").read_text()
                same = page if page in PAGES[name] else "index.html"
                assert target.endswith(f"<p>{name} {same}</p>"), (page, name, to)


def test_a_page_for_wrong_addresses_stays_as_it_is(linked):
    for page in linked.rglob("404.html"):
        assert "md-version" not in page.read_text()


def test_the_heads_of_the_site_have_room_for_it(site):
    for page in site.rglob("*.html"):
        assert len(HEAD.findall(page.read_text())) == 1, page


@pytest.mark.parametrize("name", ["latest.tar.gz", "0.1.0.tar.gz", "v1.tar.gz"])
def test_an_archive_that_is_no_version_is_refused_in_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    words = [sys.executable, "-m", "cookbook_lib.publishing.versions", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == f"versions: {name}: expected a name like v1.2.3.tar.gz"
