"""The order in which documents survive, made by several workers: each sorts a range of it.

The bounds of the ranges come from a sample, ids included, so that a range is about as long as
another even where all texts are of one length. A worker holds the ids of its range, some 250 bytes
for each document, and the process that gives out the ranges holds numbers alone. The outcome is
that of `clusters.best_first`, however many workers and blocks there are.
"""

from itertools import pairwise
from math import inf

import numpy as np

from cookbook_lib.data.gauge import Gauge
from cookbook_lib.data.kept import Kept
from cookbook_lib.data.linking import Each, carry_out
from cookbook_lib.data.storage import Arrays
from cookbook_lib.data.survival import BLOCK

SAMPLE = 64  # documents for each range: most ranges are then within a third of the mean
Bound = tuple[int | float, str]  # grade and id of the first document of a range


def ranked(files: Arrays, rank: np.ndarray, each: Each, workers: int, gauge: Gauge) -> np.ndarray:
    """The place in the order for each document, 0 the best, from the rank of its source.

    `here` lies in the files already: the places of the documents among all that are kept.
    """
    with gauge(files.name):
        here, kept = files.load("here"), Kept(files.kept)
        length = kept.numbers("length")[here]
        grade = rank * (length.max(initial=0) + 1) - length  # by source, then the longest first
        files.save("grades", grade)
        some = np.arange(0, len(here), max(1, len(here) // (SAMPLE * workers)))
        seen = sorted(zip(grade[some].tolist(), kept.take(here[some], "id"), strict=True))
        shares = min(workers, len(seen))
        cuts = [seen[len(seen) * k // shares] for k in range(1, shares)]
        ranges = list(enumerate(pairwise([(-inf, ""), *cuts, (inf, "")])))
    tasks = [(arrange, (files, low, high, f"order-{k}")) for k, (low, high) in ranges]
    carry_out(tasks, files, each, gauge)
    with gauge(files.name):
        order = np.concatenate([files.load(f"order-{k}") for k, _ in ranges])
        priority = np.empty(len(here), np.int64)
        priority[order] = np.arange(len(here))
        return priority


def arrange(files: Arrays, low: Bound, high: Bound, out: str) -> None:
    """The documents between two bounds in order; of equal ones the first place is the best."""
    grade, here, kept = files.load("grades"), files.load("here"), Kept(files.kept)
    mine, found = np.flatnonzero((grade >= low[0]) & (grade <= high[0])), []
    for at in range(0, len(mine), BLOCK):
        block = mine[at : at + BLOCK]
        ids = kept.take(here[block], "id")
        keys = zip(grade[block].tolist(), ids, block.tolist(), strict=True)
        found += [key for key in keys if low <= key < high]
    found.sort()
    files.save(out, np.array([place for *_, place in found], np.int64))
