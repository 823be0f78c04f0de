"""Documents of a corpus in order, past everything that is damaged: `documents(find(paths)[0])`.

A document's text is always valid Unicode. What is not, or has no text, is a `Damage` in its place.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from cookbook_lib.data.compression import Damaged
from cookbook_lib.data.files import File
from cookbook_lib.data.formats import (
    Damage,
    Reason,
    Rows,
    Same,
    kind,
    lines_before,
    lost,
    not_utf8,
    reader,
)

PIECE = 1 << 25  # bytes of a file that one worker reads, 32 MiB
UNITS = {"jsonl": "line", "json": "value"}  # what a reader numbers


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a file: what one worker reads at a time. It depends on the file alone."""

    file: File
    part: int = 0
    parts: int = 1

    @property
    def text(self) -> float:
        """About how many bytes of text it holds."""
        return self.file.text / self.parts


@dataclass(frozen=True, kw_only=True)
class Document:
    """A text with its name, where it comes from, and its record's other fields."""

    id: str
    text: str
    source: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Text(NamedTuple):
    """A text as it is counted: with its bytes in UTF-8 and the record that it came with."""

    text: str
    nbytes: int
    number: int
    record: Mapping[str, Any]


def pieces(files: Iterable[File], size: int = PIECE) -> list[Piece]:
    """Files in parts of at most about `size` bytes of text, where their format allows it."""
    found = []
    for file in files:
        parts = -(-file.text // size) if file.splits else 1
        parts = 1 if file.kind == "arrow" else max(parts, 1)
        found += [Piece(file=file, part=k, parts=parts) for k in range(parts)]
    return found


def texts(
    piece: Piece, field: str = "text", fields: list[str] | None = None
) -> Iterator[Text | Damage]:
    """The texts of a piece. `fields` are others to read with it; all of them if None."""
    file, unit = piece.file, UNITS.get(piece.file.kind, "row")
    wanted = None if fields is None else list(dict.fromkeys([field, *fields]))
    before = None  # lines of earlier parts, counted when first asked for
    for row in rows(piece, wanted):
        if type(row) is not Damage:
            number, record = row
            text = decoded(record.get(field))
            if type(text) is str:
                yield Text(
                    text, len(text) if text.isascii() else len(text.encode()), number, record
                )
                continue
            said = text if type(text) is Reason else missing(record, field)
            row = Damage(path=file.path, unit=unit, number=number, reason=f"{said}, expected text")
        if piece.part and row.unit == "line":
            if before is None:
                before = lines_before(file, file.size * piece.part // piece.parts)
            row = replace(row, number=row.number + before)
        yield row


def rows(piece: Piece, fields: list[str] | None) -> Rows:
    """What the format's reader finds; a file that cannot be opened is damage too."""
    try:
        yield from reader(piece.file.kind)(piece.file, piece.part, piece.parts, fields)
    except Damaged as error:
        yield lost(piece.file, error)


def missing(record: Mapping[str, Any], field: str) -> str:
    return f"{field} is {kind(record[field])}" if field in record else f"no field {field}"


def decoded(text: Any) -> Any:
    """Text that is valid Unicode, of a binary column too; a `Reason` if it is none."""
    if type(text) is bytes:
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            return not_utf8(error)
    if type(text) is str and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return Reason(f"a lone surrogate at character {error.start}")
    return text


def documents(
    files: Iterable[File],
    text_field: str = "text",
    id_field: str = "id",
    source_field: str | None = None,
) -> Iterator[Document | Damage]:
    """All documents of files. One without an id is called by its place, `file#7`."""
    for file in files:
        for found in texts(Piece(file=file), text_field):
            if isinstance(found, Damage):
                yield found
                continue
            rest = {k: v for k, v in found.record.items() if k != text_field}
            name, source = rest.get(id_field), rest.get(source_field)
            if isinstance(found.record, Same):
                name, rest = file.path, {}
            yield Document(
                id=f"{file.path}#{found.number}" if name is None else str(name),
                text=found.text,
                source=file.source if source is None else str(source),
                metadata=rest,
            )
