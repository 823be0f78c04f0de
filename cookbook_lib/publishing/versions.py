"""`python -m cookbook_lib.publishing.versions FOLDER`: released sites beside the newest in site/.

FOLDER has `v1.2.3.tar.gz` of each release, a site as it was built then; it becomes `site/v1.2.3/`.
The head of every page gets a list of the versions, which leads to the same page where it exists.
"""

import os
import re
import sys
import tarfile
from html import escape
from pathlib import Path

NEWEST = "main"  # the name of what lies in the site's own folder
NAME = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
HEAD = re.compile(r'(<div class="md-header__topic">\s*<span class="md-ellipsis">[^<]*</span>)')


def unpacked(archives: Path, site: Path) -> list[str]:
    """Unpack each release into the site; their names, newest first.

    Raises ValueError for an archive whose name is no version.
    """
    found = {}
    for archive in archives.glob("*.tar.gz"):
        name = archive.name.removesuffix(".tar.gz")
        if not NAME.fullmatch(name):
            raise ValueError(f"{archive.name}: expected a name like v1.2.3.tar.gz")
        found[tuple(map(int, NAME.fullmatch(name).groups()))] = name
        with tarfile.open(archive) as packed:
            packed.extractall(site / name, filter="data")
    return [found[numbers] for numbers in sorted(found, reverse=True)]


def link(site: Path, names: list[str]) -> None:
    """Put the list of versions into the head of every page of every version."""
    folders = {NEWEST: site, **{name: site / name for name in names}}
    for name, folder in folders.items():
        for page in sorted(folder.rglob("*.html")):
            within = page.relative_to(folder)
            other_version = name == NEWEST and within.parts[0] in names
            if other_version or page.name == "404.html":  # shown for addresses of any folder
                continue
            entries = "".join(entry(page, within, other, folders[other]) for other in folders)
            shown = (
                '<div class="md-version"><button class="md-version__current" '
                f'aria-label="Version {name}: show others">{name}</button>'
                f'<ul class="md-version__list">{entries}</ul></div>'
            )
            page.write_text(HEAD.sub(lambda head, s=shown: head[1] + s, page.read_text(), count=1))


def entry(page: Path, within: Path, name: str, folder: Path) -> str:
    """A link from a page to the same one of a version, or to that version's first page."""
    there = folder / within if (folder / within).exists() else folder / "index.html"
    address = os.path.relpath(there.parent, page.parent)
    return (
        '<li class="md-version__item"><a class="md-version__link" '
        f'href="{escape(address)}/">{name}</a></li>'
    )


if __name__ == "__main__":
    try:
        released = unpacked(Path(sys.argv[1]), Path("site"))
    except (IndexError, OSError, ValueError) as error:
        sys.exit(f"versions: {error}")
    if released:
        link(Path("site"), released)
    print(f"versions: {', '.join([NEWEST, *released])}")
