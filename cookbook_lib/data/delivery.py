"""The last pass over a piece: what stays and what goes, each into its file.

Names of files come from numbers alone, so nothing in a corpus decides where something is written.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cookbook_lib.data.pipeline import Pipeline
from cookbook_lib.data.sifting import count_tokens, counter
from cookbook_lib.data.steps import FilterStep, Substring
from cookbook_lib.data.storage import part, removed, write_json
from cookbook_lib.data.substrings import cut
from cookbook_lib.data.tally import Entry, Tally

ROWS = 1024  # held at once
LAYOUT = pa.schema([(name, pa.string()) for name in ("id", "text", "source", "metadata")])


def deliver(number: int, source: str, pipeline: Pipeline, state: Path, out: Path) -> None:
    """Write `kept/NUMBER` and `removed/NUMBER`, and what the report says of them."""
    tally, count = Tally(), counter(pipeline.tokenizer)
    side, kept = out / f"removed/{number:05}.jsonl", out / f"kept/{number:05}.{pipeline.format}"
    later = [
        (i, name)
        for i, (name, step) in enumerate(zip(pipeline.names, pipeline.steps, strict=True))
        if not isinstance(step, FilterStep)
    ]
    with part(side) as to_side, part(kept) as to_kept:
        shutil.copyfile(state / f"sifted-{number:05}.jsonl", to_side)
        with to_side.open("ab") as file, Writer(to_kept, source, pipeline.format) as writer:
            for rows in batches(state, number):
                for i, name in later:
                    if not isinstance(pipeline.steps[i], Substring):
                        there = [e for e, by, *_ in rows if by < 0 or by > i]
                        tally.pass_on(name, source, there)
                for entry, by, stays, _ in rows:
                    if by >= 0:
                        name, why = pipeline.names[by], f"duplicate of {stays}"
                        tally.drop(name, "duplicate", why, source, entry)
                        file.write(removed(entry, source, name, "duplicate", why, stays=stays))
                if isinstance(pipeline.steps[-1], Substring):
                    for entry, _, _, passages in rows:
                        if passages:
                            file.write(shorten(entry, passages, source, pipeline, count, tally))
                    there = [e for e, by, *_ in rows if by < 0]
                    tally.pass_on(pipeline.names[-1], source, there)
                writer.write([e for e, by, *_ in rows if by < 0])
    write_json(state / f"delivered-{number:05}.json", tally.to_json())


def shorten(
    entry: Entry,
    passages: list[list[int]],
    source: str,
    pipeline: Pipeline,
    count: Callable | None,
    tally: Tally,
) -> bytes:
    """Cut passages from a document; lines for the side file, one a passage."""
    name, text, tokens = pipeline.names[-1], entry.text, entry.tokens
    entry.text = cut(text, [(begin, end) for begin, end in passages])
    count_tokens([entry], count)
    tally.cut(name, source, len(text) - len(entry.text), tokens - entry.tokens)
    return b"".join(
        removed(Entry(entry.id, text[b:e], {}), source, name, "passage", "occurs earlier", begin=b)
        for b, e in passages
    )


Row = tuple[Entry, int, str | None, list[list[int]]]


def batches(state: Path, number: int) -> Iterator[list[Row]]:
    """Documents with the number of the step that drops them, or -1, the id of what stays, and
    passages to cut.
    """
    verdicts = pq.read_table(state / f"decided-{number:05}.parquet")
    columns = ["id", "text", "record", "tokens"]
    at = 0
    with pq.ParquetFile(state / f"kept-{number:05}.parquet") as stored:
        for batch in stored.iter_batches(ROWS, columns=columns):
            found = verdicts.slice(at, len(batch)).to_pydict()
            at += len(batch)
            entries = [
                Entry(row["id"], row["text"], orjson.loads(row["record"]), row["tokens"])
                for row in batch.to_pylist()
            ]
            yield list(zip(entries, found["by"], found["stays"], found["cuts"], strict=True))


class Writer:
    """A file of documents: id, text, source, and the record's other fields as one object."""

    def __init__(self, path: Path, source: str, format: str):
        self.source = source
        self.file: Any = (
            path.open("wb")
            if format == "jsonl"
            else pq.ParquetWriter(path, LAYOUT, compression="zstd")
        )

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.close()

    def write(self, entries: list[Entry]) -> None:
        rows = [{"id": e.id, "text": e.text, "source": self.source} for e in entries]
        if isinstance(self.file, pq.ParquetWriter):
            records = [orjson.dumps(e.record, default=str).decode() for e in entries]
            full = [r | {"metadata": m} for r, m in zip(rows, records, strict=True)]
            self.file.write_table(pa.Table.from_pylist(full, schema=LAYOUT))
        else:
            for row, entry in zip(rows, entries, strict=True):
                line = orjson.dumps(row | {"metadata": entry.record}, default=str)
                self.file.write(line + b"\n")
