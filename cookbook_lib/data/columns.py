"""Readers of columns: parquet, and Arrow's own files and streams. See `formats`."""

from collections.abc import Iterator
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq

from cookbook_lib.data.files import File
from cookbook_lib.data.formats import Damage, Rows

ROWS = 1024  # of a batch: what is lost if its row group is damaged is not more


def parquet(file: File, part: int, parts: int, fields: list[str] | None) -> Rows:
    """The row groups that begin in a part; the rows of a group up to where it is damaged."""
    with closing(file.open()) as stored:
        try:
            table = pq.ParquetFile(stored, page_checksum_verification=True)
            sizes = [table.metadata.row_group(g).num_rows for g in range(table.num_row_groups)]
            wanted = (
                None if fields is None else [f for f in fields if f in table.schema_arrow.names]
            )
        except (pa.ArrowException, OSError, ValueError) as error:
            if part == 0:  # said once, by the first part
                yield lost(file, 1, error)
            return
        row = 0
        for group, size in enumerate(sizes):
            if group * parts // len(sizes) == part:
                found = table.iter_batches(ROWS, row_groups=[group], columns=wanted)
                yield from batches(file, found, row)
            row += size


def arrow(file: File, part: int, parts: int, fields: list[str] | None) -> Rows:
    """Record batches of an Arrow file or stream, as `datasets` saves them."""
    with closing(file.open()) as stored:
        magic = stored.read(6)
        stored.seek(0)
        try:
            if magic == b"ARROW1":
                table = pa.ipc.open_file(stored)
                every = range(table.num_record_batches)
                found = (table.get_batch(i) for i in every)
            else:
                found = iter(pa.ipc.open_stream(stored))
        except (pa.ArrowException, OSError, ValueError) as error:
            yield from [lost(file, 1, error)] * (part == 0)
            return
        yield from batches(file, found, 0, fields)


def batches(
    file: File,
    found: Iterator[pa.RecordBatch],
    row: int,
    fields: list[str] | None = None,
) -> Rows:
    """Rows of batches, numbered from 1 after `row`; a batch that cannot be read ends them."""
    while True:
        try:
            batch = next(found, None)
        except (pa.ArrowException, OSError, ValueError) as error:
            yield lost(file, row + 1, error)
            return
        if batch is None:
            return
        if fields is not None:
            batch = batch.select([f for f in fields if f in batch.schema.names])
        try:
            columns = [(name, batch[name].to_pylist()) for name in batch.schema.names]
        except (UnicodeDecodeError, pa.ArrowException):  # look at each row
            yield from singly(file, batch, row)
        else:
            names = [name for name, _ in columns]
            rows = zip(*(c for _, c in columns), strict=True) if columns else [()] * len(batch)
            for number, values in enumerate(rows, row + 1):
                yield number, dict(zip(names, values, strict=True))
        row += len(batch)


def singly(file: File, batch: pa.RecordBatch, row: int) -> Rows:
    for i in range(len(batch)):
        try:
            yield row + i + 1, batch.slice(i, 1).to_pylist()[0]
        except (UnicodeDecodeError, pa.ArrowException) as error:
            said = one_line(error)
            yield Damage(path=file.path, unit="row", number=row + i + 1, reason=said)


def lost(file: File, row: int, error: Exception) -> Damage:
    """All rows from here on, of the file or of its row group."""
    return Damage(path=file.path, unit="row", number=row, reason=one_line(error), whole=True)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
