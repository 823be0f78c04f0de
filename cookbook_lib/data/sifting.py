"""The first pass over a piece of a corpus: filters, and what duplicates are recognised by.

Each document is kept or removed, a thousand at a time, so memory does not grow with the corpus.
What is written depends on the piece and the pipeline alone.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cookbook_lib.data.encoding import load
from cookbook_lib.data.filters.base import FilterSet
from cookbook_lib.data.keys import keys_of, width
from cookbook_lib.data.pipeline import Pipeline
from cookbook_lib.data.proof import Differs, prove, sample
from cookbook_lib.data.reading import Damage, Piece, lines_before, texts
from cookbook_lib.data.steps import FilterStep, Source
from cookbook_lib.data.storage import part, removed, write_json
from cookbook_lib.data.tally import Entry, Tally

DOCUMENTS, CHARACTERS = 1024, 1 << 21  # of a batch


def sift(piece: Piece, source: Source, pipeline: Pipeline, number: int, folder: Path) -> None:
    """Write `kept-NUMBER.parquet`, `sifted-NUMBER.jsonl` and, last of all, `sifted-NUMBER.json`."""
    tally = Tally()
    count = counter(pipeline.tokenizer)
    steps = [
        (name, step.filters())
        for name, step in zip(pipeline.names, pipeline.steps, strict=True)
        if isinstance(step, FilterStep)
    ]
    kept_path, side_path = (
        folder / f"kept-{number:05}.parquet",
        folder / f"sifted-{number:05}.jsonl",
    )
    with part(kept_path) as kept, part(side_path) as side:
        schema = layout(pipeline)
        with pq.ParquetWriter(kept, schema, compression="zstd") as writer, side.open("wb") as out:
            for entries in batches(piece, source, tally):
                count_tokens(entries, count)
                tally.pass_on("read", source.name, entries)
                for name, filters in steps:
                    with tally.gauge(name):
                        if source.filtered:
                            entries = filtered(
                                entries, name, filters, source.name, tally, out, count
                            )
                    tally.pass_on(name, source.name, entries)
                writer.write_table(table(entries, pipeline, schema, tally))
    write_json(folder / f"sifted-{number:05}.json", tally.to_json())


def batches(piece: Piece, source: Source, tally: Tally) -> Iterator[list[Entry]]:
    """The documents of a piece; one without an id is called by its place, `file#7`."""
    held, size, before = [], 0, None
    for found in texts(piece, source.text):
        if isinstance(found, Damage):
            tally.damage.append(asdict(found) | {"source": source.name})
            continue
        record = {k: v for k, v in found.record.items() if k != source.text}
        name = record.get(source.id)
        if name is None and before is None:  # lines of the parts before this one
            start = piece.file.size * piece.part // piece.parts
            lines = piece.part and piece.file.kind == "jsonl"
            before = lines_before(piece.file, start) if lines else 0
        held.append(
            Entry(
                id=f"{piece.file.path}#{found.number + (before or 0)}"
                if name is None
                else str(name),
                text=found.text,
                record=record,
            )
        )
        size += len(found.text)
        if len(held) == DOCUMENTS or size > CHARACTERS:
            yield held
            held, size = [], 0
    yield held


def filtered(
    entries: list[Entry],
    step: str,
    filters: FilterSet,
    source: str,
    tally: Tally,
    out: Any,
    count: Callable | None,
) -> list[Entry]:
    """Those that all filters of a step keep; the others go to the side file as they came."""
    stay, changed = [], []
    for entry in entries:
        page = filters.page(entry.text, entry.record)
        verdict = filters.judge(page)
        if verdict is not None:
            reason, why = verdict
            tally.drop(step, reason, why, source, entry)
            out.write(removed(entry, source, step, reason, why))
            continue
        if page.text != entry.text:
            entry.text = page.text
            changed.append(entry)
        stay.append(entry)
    count_tokens(changed, count)
    return stay


def counter(name: str | None) -> Callable[[list[str]], list[int]] | None:
    """A function that counts the tokens of texts, or None; fast while that is proved equal."""
    if name is None:
        return None
    tokenizer, turn = load(name, parallel=False), -1
    encode = tokenizer.fast or tokenizer.exact
    if tokenizer.fast:
        with suppress(Differs):
            tokenizer.proof.right()
        encode = tokenizer.exact if tokenizer.refused else tokenizer.fast

    def count(found: list[str]) -> list[int]:
        nonlocal encode, turn
        turn += 1
        if encode is not tokenizer.exact:
            try:
                prove(encode, tokenizer.exact, sample(found, turn))
            except Differs:
                encode = tokenizer.exact
        return encode(found, ids=False)[1].tolist()

    return count


def count_tokens(entries: list[Entry], count: Callable | None) -> None:
    if count and entries:
        for entry, tokens in zip(entries, count([e.text for e in entries]), strict=True):
            entry.tokens = tokens


def layout(pipeline: Pipeline) -> pa.Schema:
    """The columns of `kept`: documents, and a key for each step that looks for duplicates."""
    columns = [("id", pa.string()), ("text", pa.string()), ("record", pa.binary())]
    columns += [("length", pa.int64()), ("tokens", pa.int64())]
    steps = zip(pipeline.names, pipeline.steps, strict=True)
    return pa.schema(columns + [(n, pa.binary(width(step))) for n, step in steps if width(step)])


def table(entries: list[Entry], pipeline: Pipeline, schema: pa.Schema, tally: Tally) -> pa.Table:
    columns: dict[str, Any] = {
        "id": [e.id for e in entries],
        "text": [e.text for e in entries],
        "record": [orjson.dumps(e.record, default=str) for e in entries],
        "length": [len(e.text) for e in entries],
        "tokens": [e.tokens for e in entries],
    }
    for name, step in zip(pipeline.names, pipeline.steps, strict=True):
        if width(step):
            with tally.gauge(name):
                columns[name] = keys_of(entries, step)
    return pa.table(columns, schema=schema)
