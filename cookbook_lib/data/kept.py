"""The documents that the filters kept, as columns over all pieces, read as far as needed."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


class Kept:
    """Places are numbers of documents in the order of the pieces."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths
        sizes = [pq.read_metadata(path).num_rows for path in paths]
        self.starts = np.cumsum([0, *sizes])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def column(self, name: str) -> Iterable[pa.ChunkedArray]:
        for path in self.paths:
            yield pq.read_table(path, columns=[name])[name]

    def numbers(self, name: str) -> np.ndarray:
        found = [part.to_numpy() for part in self.column(name)]
        return np.concatenate([np.empty(0, np.int64), *found])

    def keys(self, name: str, width: int, store: Path, here: np.ndarray) -> np.ndarray:
        """Write the keys of the places `here`, `width` bytes each, one behind another into a file;
        which of them have a key.
        """
        valid = np.zeros(len(here), bool)
        with store.open("wb") as file:
            for start, part in zip(self.starts, self.column(name), strict=False):
                low, high = np.searchsorted(here, (start, start + len(part)))
                mine = part.combine_chunks().take(pa.array(here[low:high] - start))
                valid[low:high] = mine.is_valid()
                file.write(b"".join(mine.fill_null(bytes(width)).to_pylist()))
        return valid

    def nbytes(self, name: str) -> int:
        """Bytes of all values of a column, in UTF-8."""
        return sum(pc.sum(pc.binary_length(part)).as_py() or 0 for part in self.column(name))

    def take(self, places: np.ndarray, name: str) -> list[Any]:
        """Values of one column at places that ascend; reads the row groups that hold them."""
        out = []
        for start, end, path in zip(self.starts, self.starts[1:], self.paths, strict=False):
            low, high = np.searchsorted(places, (start, end))
            if high > low:
                with pq.ParquetFile(path) as stored:
                    out += picked(stored, places[low:high] - start, name)
        return out


def picked(stored: pq.ParquetFile, rows: np.ndarray, name: str) -> list[Any]:
    out, start = [], 0
    for group in range(stored.num_row_groups):
        end = start + stored.metadata.row_group(group).num_rows
        low, high = np.searchsorted(rows, (start, end))
        if high > low:
            column = stored.read_row_group(group, columns=[name])[name]
            out += column.take(rows[low:high] - start).to_pylist()
        start = end
    return out
