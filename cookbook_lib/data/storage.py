"""Files that are whole or not there, and a folder that belongs to one run."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from cookbook_lib.data.ledger import lock, write
from cookbook_lib.data.tally import Entry


@contextmanager
def part(path: Path) -> Iterator[Path]:
    """A place to write a file, which is moved to its own when it is whole."""
    temporary = path.with_name(path.name + ".part")
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Arrays of one step that workers share, as files, and where the kept documents lie."""

    name: str
    folder: Path
    kept: tuple[Path, ...]

    def file(self, what: str) -> Path:
        return self.folder / f"{self.name}.{what}"

    def save(self, what: str, array: Any) -> None:
        with part(self.file(what)) as path, path.open("wb") as file:
            np.save(file, array)

    def load(self, what: str) -> np.ndarray:
        return np.load(self.file(what), mmap_mode="r")

    def clear(self) -> None:
        for path in self.folder.glob(f"{self.name}.*"):
            path.unlink()


def write_json(path: Path, thing: Any) -> None:
    write(path, json.dumps(thing))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def removed(entry: Entry, source: str, step: str, reason: str, why: str, **more: Any) -> bytes:
    """One line of a side file: the document whole, and why it is not in the corpus."""
    row = {"id": entry.id, "source": source, "step": step, "reason": reason, "why": why, **more}
    return orjson.dumps(row | {"text": entry.text, "record": entry.record}, default=str) + b"\n"


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """The folder for this run alone, until the process ends in whatever way."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        held = lock(out / ".lock")
    except OSError as error:
        raise ValueError(f"{out}: cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        os.close(held)
