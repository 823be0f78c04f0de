"""The second pass: which of the kept documents go because another one stays.

Reads the keys that the first pass wrote and never the texts, unless pairs are to be verified
exactly. Places are numbers of documents in the order of the pieces.
"""

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cookbook_lib.data.clusters import best_first, cluster, dropped, equal, stars, survivors
from cookbook_lib.data.minhash import jaccard, similarity
from cookbook_lib.data.pipeline import Pipeline
from cookbook_lib.data.shingles import normalise, shingles
from cookbook_lib.data.steps import FilterStep, MinHash, Substring
from cookbook_lib.data.substrings import repeated

Cuts = dict[int, list[tuple[int, int]]]  # place -> passages, as (begin, end) of characters
PAIRS = 20_000  # whose texts are held at once for an exact comparison


class Kept:
    """The documents that the filters kept, as columns over all pieces."""

    def __init__(self, paths: list[Path]):
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

    def keys(self, name: str, width: int, store: Path) -> tuple[np.ndarray, np.ndarray]:
        """(documents, width) bytes in a file of their own, and which documents have a key."""
        out = np.memmap(store, np.uint8, "w+", shape=(max(1, len(self)), width))
        valid = np.zeros(len(self), bool)
        for start, part in zip(self.starts, self.column(name), strict=False):
            part = part.combine_chunks()
            has = part.is_valid().to_numpy(zero_copy_only=False)
            flat = np.frombuffer(b"".join(part.drop_null().to_pylist()), np.uint8)
            out[start : start + len(part)][has] = flat.reshape(-1, width)
            valid[start : start + len(part)] = has
        return out[: len(self)], valid

    def take(self, places: np.ndarray, name: str) -> list[str]:
        """Values of one column at places that ascend; reads the row groups that hold them."""
        out = []
        for start, end, path in zip(self.starts, self.starts[1:], self.paths, strict=False):
            low, high = np.searchsorted(places, (start, end))
            if high > low:
                with pq.ParquetFile(path) as stored:
                    out += picked(stored, places[low:high] - start, name)
        return out


def picked(stored: pq.ParquetFile, rows: np.ndarray, name: str) -> list[str]:
    out, start = [], 0
    for group in range(stored.num_row_groups):
        end = start + stored.metadata.row_group(group).num_rows
        low, high = np.searchsorted(rows, (start, end))
        if high > low:
            column = stored.read_row_group(group, columns=[name])[name]
            out += column.take(rows[low:high] - start).to_pylist()
        start = end
    return out


def find_duplicates(
    kept: Kept, pipeline: Pipeline, rank: np.ndarray, folder: Path
) -> tuple[np.ndarray, np.ndarray, Cuts, dict[str, float]]:
    """For each document the number of the step that drops it (-1: none) and the place of the one
    that stays instead; passages to cut, by place; and the seconds of each step. A later step sees
    what earlier ones left.
    """
    cuts: Cuts = {}
    by = np.full(len(kept), -1)
    stays = np.arange(len(kept))
    length, seconds = kept.numbers("length"), {}
    for number, (name, step) in enumerate(zip(pipeline.names, pipeline.steps, strict=True)):
        if isinstance(step, FilterStep):
            continue
        started = time.perf_counter()
        here = np.flatnonzero(by < 0)
        if isinstance(step, Substring):
            found = repeated(kept.take(here, "text"), step.length)
            cuts = {int(k): passages for k, passages in zip(here, found, strict=True) if passages}
            seconds[name] = time.perf_counter() - started
            continue
        store = folder / f"{name}.keys"

        def ids(places: np.ndarray, here: np.ndarray = here) -> list[str]:
            return kept.take(here[places], "id")

        if isinstance(step, MinHash):
            raw, valid = kept.keys(name, 4 * step.permutations, store)
            signed = raw.view("<u4") if len(here) == len(kept) else raw[here].view("<u4")
            verify = verifier(step, signed, here, kept)
            if step.clusters == "stars":
                order = best_first(rank[here], length[here], kept.take(here, "id"))
                priority = np.empty(len(here), np.int64)
                priority[order] = np.arange(len(here))
                keeper = stars(signed, step.banding(), priority, verify, valid[here])
            else:
                label = cluster(signed, step.banding(), verify, valid[here])
                keeper = survivors(label, rank[here], length[here], ids)
        else:
            raw, valid = kept.keys(name, 16, store)
            label = equal(np.ascontiguousarray(raw[here]).view("V16").ravel(), valid[here])
            keeper = survivors(label, rank[here], length[here], ids)
        gone = dropped(keeper, rank[here], step.across)
        by[here[gone]], stays[here[gone]] = number, here[keeper[gone]]
        del raw
        store.unlink()
        seconds[name] = time.perf_counter() - started
    return by, stays, cuts, seconds


def verifier(step: MinHash, signed: np.ndarray, here: np.ndarray, kept: Kept):
    """The function that says which candidates are as similar as the threshold asks, or None."""
    if step.verify == "none":
        return None
    if step.verify == "signature":
        return lambda a, b: similarity(signed, a, b) >= step.threshold

    def exact(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        out = np.zeros(len(a), bool)
        for at in range(0, len(a), PAIRS):
            x, y = here[a[at : at + PAIRS]], here[b[at : at + PAIRS]]
            places = np.unique(np.concatenate([x, y]))
            found = [normalise(t) for t in kept.take(places, "text")]
            sets = shingles(found, step.ngram, step.kind).sets()
            pairs = zip(np.searchsorted(places, x), np.searchsorted(places, y), strict=True)
            out[at : at + PAIRS] = [jaccard(sets[i], sets[j]) >= step.threshold for i, j in pairs]
        return out

    return exact
