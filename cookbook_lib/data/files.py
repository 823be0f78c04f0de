"""Which files a path stands for, and what each of them is: format, compression, source.

A path is a file, a folder, a glob, `-` for standard input, or a URL that fsspec opens (`s3://`,
`gs://`, `hf://`, …). Sizes are in bytes.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import Any

from cookbook_lib.data.compression import Damaged

KINDS = {
    **dict.fromkeys((".jsonl", ".ndjson", ".jsonlines"), "jsonl"),
    **dict.fromkeys((".txt", ".text"), "txt"),
    ".json": "json",
    ".parquet": "parquet",
    **dict.fromkeys((".arrow", ".feather"), "arrow"),
}
CODECS = {".gz": "gz", ".gzip": "gz", ".zst": "zst", ".zstd": "zst", ".bz2": "bz2", ".xz": "xz"}
EXPECTED = "expected .jsonl, .json, .txt, .parquet or .arrow, if need be with .gz, .zst, .bz2, .xz"


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of a corpus. `source` is what its documents are counted under."""

    path: str
    source: str
    kind: str
    codec: str | None = None
    size: int = 0
    modified: float = 0.0  # seconds since 1970; 0 where it is not known

    @property
    def splits(self) -> bool:
        """True if several workers can read parts of it."""
        return self.codec is None and self.kind in ("jsonl", "parquet", "arrow")

    @property
    def text(self) -> int:
        """About how many bytes of text it holds: compressed text shrinks to a quarter."""
        return self.size * (4 if self.codec or self.kind == "parquet" else 1)

    def open(self) -> Any:
        """Its bytes as they are stored, as an open file. `Damaged` if it cannot be opened."""
        if self.path == "-":
            return sys.stdin.buffer
        try:
            return open_remote(self.path) if is_remote(self.path) else open(self.path, "rb")
        except OSError as error:
            raise Damaged(f"cannot be opened: {error.strerror or error}", 0) from None


STDIN = File(path="-", source="-", kind="jsonl")


def find(paths: Iterable[str]) -> tuple[list[File], list[str]]:
    """The files of all paths in order, each once; and files in folders that are of another kind.

    The source of a file is the folder right below the path that led to it, or that path's own
    name. `ValueError` for a path without any data.
    """
    found, skipped = {}, []
    for path in paths:
        mine = list(expand(path))
        for file in mine:
            if isinstance(file, File):
                found.setdefault(file.path, file)
            else:
                skipped.append(file)
        if not any(isinstance(file, File) for file in mine):
            raise ValueError(f"{path}: no data in it: {EXPECTED}")
    if STDIN.path in found and len(found) > 1:
        raise ValueError("- is standard input and stands alone: give it no other path")
    return list(found.values()), skipped


def expand(path: str) -> Iterator[File | str]:
    """The files of one path, sorted; a bare name for one of an unknown kind."""
    if path == "-":
        yield STDIN
        return
    listing = remote_files if is_remote(path) else local_files
    for name, root, size, modified in listing(path):
        if what := kind_of(name):
            kind, codec = what
            source = source_of(name, root)
            yield File(
                path=name, source=source, kind=kind, codec=codec, size=size, modified=modified
            )
        else:
            yield name


def kind_of(name: str) -> tuple[str, str | None] | None:
    """Format and compression by the name's endings."""
    path = PurePosixPath(name)
    codec = CODECS.get(path.suffix.lower())
    kind = KINDS.get((path.with_suffix("") if codec else path).suffix.lower())
    if kind is None or (codec and kind in ("parquet", "arrow")):  # these compress inside
        return None
    return kind, codec


def source_of(name: str, root: str) -> str:
    below = name.removeprefix(root).strip("/").split("/")
    return below[0] if len(below) > 1 else PurePosixPath(root.rstrip("/")).name or root


Listed = Iterator[tuple[str, str, int, float]]


def local_files(path: str) -> Listed:
    """(name, root, size, modified) of each file of a local path."""
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        names = sorted(walk(path))
    elif os.path.exists(path):
        names = [path]
    elif has_magic(path):
        names = sorted(n for n in glob(path, recursive=True) if os.path.isfile(n))
    else:
        raise ValueError(f"{path}: no such file or folder")
    if has_magic(path) and not os.path.exists(path):
        path = os.path.dirname(path[: next(i for i, c in enumerate(path) if c in "*?[")]) or "."
    for name in names:
        facts = os.stat(name)
        root = path if os.path.isdir(path) else name
        yield Path(name).as_posix(), Path(root).as_posix(), facts.st_size, facts.st_mtime


def walk(folder: str) -> Iterator[str]:
    """The visible files below a folder; of a dataset that `datasets` saved, its data alone."""
    for here, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        if {"state.json", "dataset_info.json"} <= set(names):
            state = json.loads(Path(here, "state.json").read_bytes())
            names = [f["filename"] for f in state["_data_files"]]
        elif "dataset_dict.json" in names:
            names.remove("dataset_dict.json")
        yield from (os.path.join(here, n) for n in names if not n.startswith("."))


def is_remote(path: str) -> bool:
    return "://" in path


def on_disk(out: Path) -> Path:
    """A folder to write to. `ValueError` for a URL, of which a path makes a folder of that name."""
    if re.match(r"[A-Za-z][\w.+-]+:/", str(out)):
        raise ValueError(f"out is {out}, expected a folder on a disk: copy it from there")
    return out


def file_system(path: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def remote_files(path: str) -> Listed:
    system, inside = file_system(path)
    if has_magic(inside):
        names, root = system.glob(inside, detail=True), inside.partition("*")[0].rpartition("/")[0]
    elif system.isdir(inside):
        names, root = system.find(inside, detail=True), inside
    elif system.exists(inside):
        names, root = {inside: system.info(inside)}, inside
    else:
        raise ValueError(f"{path}: no such file or folder")
    for name, facts in sorted(names.items()):
        if facts.get("type") != "directory" and not PurePosixPath(name).name.startswith("."):
            yield system.unstrip_protocol(name), system.unstrip_protocol(root), facts["size"], 0.0


def open_remote(path: str) -> Any:
    system, inside = file_system(path)
    return system.open(inside, "rb")
