"""The page of references: every paper and page that code, recipes and prose name, and where.

They are read from the sources themselves, so that a constant's source is said once, on its line.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

PAPER = re.compile(
    r"arxiv(?:\.org/(?:abs|pdf|html)/|:\s*)(\d{4}\.\d{4,5}|[a-z-]+/\d{7})(?!\d)", re.I
)
BARE = re.compile(r"\"(\d{4}\.\d{5})\"")  # in computed.py, whose table makes links of them
ADDRESS = re.compile(r"https?://[^\s\"'`<>\\{}]+")
READ = ("cookbook_lib/**/*.py", "cookbook_lib/**/*.json", "recipes/[0-9]*.py", "docs/**/*.md")
OWN = ("github.com/hybrid-cookbook/", "hybrid-cookbook.github.io", "127.0.0.1", "localhost")
NAMESPACES = ("www.w3.org/",)  # names, not pages
TABLE = "cookbook_lib/publishing/computed.py"  # of this folder the one file that names sources


class Reference(NamedTuple):
    """One source. kind: paper or page; where: the files that name it, in order."""

    kind: str
    address: str
    title: str
    where: tuple[str, ...]


def key(address: str) -> str:
    """What two spellings of one address have in common."""
    parts = urlsplit(address)
    host = (parts.hostname or "").lower().removeprefix("www.")
    path = parts.path.rstrip("/").removesuffix(".git")
    return f"{host}{path}{'?' * bool(parts.query)}{parts.query}#{parts.fragment}".rstrip("#")


def cleaned(found: str) -> str:
    """An address without the punctuation of the sentence around it."""
    while found[-1] in ".,;:!?*|" or (found[-1] == ")" and found.count("(") < found.count(")")):
        found = found[:-1]
    return found.partition(")")[0] if "(" not in found else found


def addresses(text: str) -> Iterator[str]:
    """Papers as their page at arXiv, and other addresses as they are spelled."""
    for found in PAPER.findall(text):
        yield f"https://arxiv.org/abs/{found}"
    for found in map(cleaned, ADDRESS.findall(text)):
        shown = found.partition("://")[2]
        if not PAPER.search(found) and not shown.startswith((*OWN, *NAMESPACES)):
            yield found


@cache
def references(root: Path) -> tuple[Reference, ...]:
    """All of them: papers by their number, which is their month, then pages by their address."""
    where, spelled = defaultdict(list), {}
    for name, text in sources(root):
        for address in addresses(text):
            spelled.setdefault(key(address), address)
            where[key(address)].append(name)
    made = [reference(spelled[k], tuple(dict.fromkeys(where[k]))) for k in spelled]
    return tuple(sorted(made, key=lambda r: (r.kind != "paper", key(r.address).lower())))


def sources(root: Path) -> Iterator[tuple[str, str]]:
    """Name and text of each file that is read."""
    for file in sorted({path for pattern in READ for path in root.glob(pattern)}):
        name, text = file.relative_to(root).as_posix(), file.read_text()
        if name == TABLE:
            yield name, "\n".join(f"arXiv:{paper}" for paper in BARE.findall(text))
        elif "publishing" not in file.parts:
            yield name, text


def reference(address: str, where: tuple[str, ...]) -> Reference:
    paper = address.partition("arxiv.org/abs/")[2]
    return Reference("paper" if paper else "page", address, titles().get(paper, ""), where)


@cache
def titles() -> dict[str, str]:
    """Of papers, as their pages at arXiv give them."""
    return json.loads((Path(__file__).parent / "titles.json").read_text())


def page(root: Path, repository: str) -> str:
    """The page as Markdown."""
    known = references(root)
    papers = [r for r in known if r.kind == "paper"]
    pages = [r for r in known if r.kind == "page"]
    top = [
        "---\ndescription: Every source that the book's code, chapters and pages name\n---",
        "# References",
        f"{len(papers)} papers and {len(pages)} pages, collected from the lines that use them: a "
        "constant has its source beside it. Behind each stands where it is used.",
    ]
    places = {name: place(name, repository) for r in known for name in r.where}
    lists = {"Papers": papers, "Pages, code and data": pages}
    for title, of in lists.items():
        top.append(f"## {title}")
        top.append("\n".join(f"- {line(r, places)}" for r in of))
    return "\n\n".join(top)


def line(r: Reference, places: dict[str, str]) -> str:
    shown = r.address.partition("://")[2].removeprefix("www.").rstrip("/")
    shown = shown.replace("arxiv.org/abs/", "arXiv:")
    name = f"{r.title}, [{shown}]({r.address})" if r.title else f"[{shown}]({r.address})"
    used = ", ".join(places[name] for name in r.where)
    return f'{name} <span class="nb-small">in {used}</span>'


def place(name: str, repository: str) -> str:
    """A link to a file: to its page where it has one, else to its source."""
    path = Path(name)
    if path.parent.name == "recipes":
        return f"[chapter {path.stem[:3]}](recipes/{path.stem}.md)"
    if path.parts[0] == "docs":
        target = path.relative_to("docs")
        return f"[{target.with_suffix('')}]({target})"
    if path.parent.name == "presets":
        return f"[{path.stem}](models/{path.stem}.md)"
    return f"[`{path.relative_to('cookbook_lib')}`]({repository}/blob/main/{name})"
