"""Readers: one for each format, from a file to numbered records, past everything that is damaged.

A reader takes a file, the part of it to read (`part` of `parts`) and the fields that are wanted
(all if None). It yields `(number, record)`, or `Damage` for what it could not read; only what is
damaged is left out. Numbers count lines, rows, or JSON values from 1.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import orjson

from cookbook_lib.data.compression import Damaged, chunks
from cookbook_lib.data.files import File

LONGEST = 1 << 27  # bytes of one record, 128 MiB: an endless line must not fill the memory


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Something that could not be read. `whole` if the file's rest, or a block of it, is lost."""

    path: str
    unit: str  # line, row, value or byte
    number: int
    reason: str
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.unit} {self.number}: {self.reason}"


Rows = Iterator[tuple[int, Mapping[str, Any]] | Damage]


def jsonl(file: File, part: int, parts: int, fields: list[str] | None) -> Rows:
    """A JSON object on each line. A line belongs to the part in which it begins."""
    begin, end = (file.size * k // parts for k in (part, part + 1))
    number = 0
    with closing(file.open()) as stored:
        if begin:
            stored.seek(begin - 1)
        try:
            for at, line in lines(chunks(stored, file.codec), max(begin - 1, 0)):
                if part and at < begin:  # the end of a line of the part before
                    continue
                if parts > 1 and at >= end:
                    break
                number += 1
                try:
                    record = orjson.loads(line)
                except (ValueError, TypeError):  # TypeError for None
                    record = careful(line, first=at == 0)
                if type(record) is dict:
                    yield number, record
                elif record is not BLANK:
                    said = record if type(record) is Reason else f"a {kind(record)}, not an object"
                    yield Damage(path=file.path, unit="line", number=number, reason=said)
        except Damaged as error:
            yield lost(file, error)


def lost(file: File, error: Damaged) -> Damage:
    return Damage(path=file.path, unit="byte", number=error.byte, reason=str(error), whole=True)


class Reason(str):
    """Why a line is not a record."""


BLANK = Reason("a blank line")
TOO_LONG = Reason(f"longer than {LONGEST >> 20} MiB")


def lines(blocks: Iterator[bytes], at: int) -> Iterator[tuple[int, bytes | None]]:
    """(byte at which it begins, line) of each line; None for one that is too long."""
    held, size = [], 0
    for block in blocks:
        *ends, rest = block.split(b"\n")
        for end in ends:
            size += len(end)
            yield at, None if size > LONGEST else b"".join((*held, end)) if held else end
            at += size + 1
            held, size = [], 0
        if rest:
            size += len(rest)
            held = [] if size > LONGEST else held
            held.append(rest)
    if size:
        yield at, None if size > LONGEST else b"".join(held)


def careful(line: bytes | None, first: bool) -> Any:
    """What Python's own `json` makes of a line, which takes a little more; or a `Reason`."""
    if line is None:
        return TOO_LONG
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        return not_utf8(error)
    if not text.strip():
        return BLANK
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        return Reason(f"{error.msg.removesuffix(' at')} at column {error.colno}")
    except RecursionError:
        return Reason("nested too deeply")
    except ValueError as error:  # an integer of more digits than Python takes
        return Reason(str(error))


def not_utf8(error: UnicodeDecodeError) -> Reason:
    return Reason(f"byte 0x{error.object[error.start]:02x} at {error.start} is not UTF-8")


def kind(value: Any) -> str:
    names = {list: "list", str: "text", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def lines_before(file: File, byte: int) -> int:
    """Lines that begin before a byte: what a part's first line is counted from."""
    count, last = 0, b"\n"
    with closing(file.open()) as stored:
        while byte > 0 and (data := stored.read(min(1 << 20, byte))):
            count, byte, last = count + data.count(b"\n"), byte - len(data), data[-1:]
    return count + (last != b"\n")


def txt(file: File, part: int, parts: int, fields: list[str] | None) -> Rows:
    """A text file is one document, whose text answers to every field."""
    held, size = [], 0
    with closing(file.open()) as stored:
        try:
            for block in chunks(stored, file.codec):
                size += len(block)
                if size > LONGEST:
                    raise Damaged(f"{TOO_LONG}: write it as .jsonl, a document a line", LONGEST)
                held.append(block)
        except Damaged as error:
            yield lost(file, error)
            return
    try:
        yield 1, Same(b"".join(held).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        said = not_utf8(error)
        yield Damage(path=file.path, unit="byte", number=error.start, reason=said, whole=True)


class Same(dict):
    """A record whose every field is the same text."""

    def __init__(self, text: str):
        super().__init__(text=text)

    def get(self, field: str, default: Any = None) -> str:
        return self["text"]


def reader(kind: str) -> Callable[[File, int, int, list[str] | None], Rows]:
    """The reader of a format; those for columns need pyarrow, which takes its time to load."""
    if kind in ("parquet", "arrow"):
        from cookbook_lib.data import columns

        return {"parquet": columns.parquet, "arrow": columns.arrow}[kind]
    if kind == "json":
        from cookbook_lib.data import values

        return values.json_values
    return {"jsonl": jsonl, "txt": txt}[kind]
