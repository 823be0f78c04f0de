"""A corpus of real text that every machine with Python has: what its packages say and are.

For trying things out. The texts stay where they are, under their own licences.
"""

import ast
import csv
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, distributions
from itertools import islice
from pathlib import Path, PurePosixPath

import orjson

LICENCES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "AUTHORS")


def local_corpus(folder: Path, limit: int = 400) -> dict[str, Path]:
    """Write one file of JSON lines for each source, of at most `limit` documents; their paths.

    Descriptions of packages, docstrings and code of the standard library, and licences.
    """
    sources = {
        "descriptions": descriptions(),
        "docstrings": docstrings(),
        "licences": licences(),
        "code": code(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, texts in sources.items():
        paths[name] = folder / f"{name}.jsonl"
        with paths[name].open("wb") as file:
            for place, text in islice(texts, limit):
                file.write(orjson.dumps({"id": f"{name}/{place}", "text": text}) + b"\n")
    return paths


@cache
def packages() -> list[tuple[str, Distribution, str]]:
    """Name, package and what it says about itself, by name."""
    found = {}
    for package in distributions():
        about = package.metadata
        found[about["Name"]] = (package, about.get_payload() or about["Description"] or "")
    return [(name, *found[name]) for name in sorted(found, key=str)]


def descriptions() -> Iterator[tuple[str, str]]:
    for name, _, text in packages():
        if text.strip():
            yield name, valid(text)


def licences() -> Iterator[tuple[str, str]]:
    """The licence files that packages bring: many, and most of them the same few."""
    for name, package, _ in packages():
        files = (row[0] for row in csv.reader((package.read_text("RECORD") or "").splitlines()))
        for file in sorted(f for f in files if PurePosixPath(f).name.startswith(LICENCES)):
            path = Path(str(package.locate_file(file)))
            if path.is_file():
                yield f"{name}/{file}", read(path)


@cache
def modules() -> list[Path]:
    """The standard library without its tests."""
    root = Path(sysconfig.get_path("stdlib"))
    folders = [p for p in root.iterdir() if (p / "__init__.py").exists() and p.name != "test"]
    return sorted([*root.glob("*.py"), *(p for folder in folders for p in folder.rglob("*.py"))])


def code() -> Iterator[tuple[str, str]]:
    for path in modules():
        if text := read(path):
            yield within(path), text


def docstrings() -> Iterator[tuple[str, str]]:
    """All that the docstrings of one module say, as one document."""
    for path in modules():
        try:
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(read(path))
        except (SyntaxError, ValueError):
            continue
        defined = (n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef))
        inner = (n for c in tree.body if isinstance(c, ast.ClassDef) for n in c.body)
        nodes = (tree, *defined, *(n for n in inner if isinstance(n, ast.FunctionDef)))
        said = (ast.get_docstring(node) for node in nodes)
        if text := "\n\n".join(filter(None, said)):
            yield within(path), valid(text)


def within(path: Path) -> str:
    return path.relative_to(sysconfig.get_path("stdlib")).as_posix()


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def valid(text: str) -> str:
    """Text without lone surrogates, which UTF-8 cannot hold."""
    return text.encode(errors="replace").decode()
