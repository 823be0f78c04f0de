"""Clusters with several workers, here or on a cluster: the tasks, and the files between them.

Workers share the bands and find the pairs that meet in a bucket; then they share the pairs, where
these are to be verified; and forests of the pairs that passed are merged two by two. The outcome
is that of `clusters.cluster`, however many workers there are.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cookbook_lib.data.banding import WINDOW
from cookbook_lib.data.clusters import chained, meet, passed, rounds
from cookbook_lib.data.components import Edges, forest, joined
from cookbook_lib.data.gauge import Gauge
from cookbook_lib.data.kept import Kept
from cookbook_lib.data.steps import MinHash
from cookbook_lib.data.storage import Arrays, part, read_json
from cookbook_lib.data.verification import verifier
from cookbook_lib.data.workers import Task

Each = Callable[[str, list[Task]], None]  # carries out tasks of a step


@dataclass(frozen=True, kw_only=True)
class Search(Arrays):
    """What a worker is told: the step, and where signatures, places and texts lie."""

    step: MinHash
    documents: int  # with a signature each

    def edges(self, what: str) -> Edges:
        a, b = self.load(what)
        return a, b

    def signed(self) -> np.ndarray:
        shape = (self.documents, self.step.permutations)
        if not self.documents:  # an empty file has no map
            return np.empty(shape, np.uint32)
        return np.memmap(self.file("keys"), "<u4", "r", shape=shape)


def clusters(search: Search, each: Each, workers: int, gauge: Gauge) -> np.ndarray:
    """The label of each place that is compared: the first place in its cluster."""
    label = np.arange(len(search.load("distinct")))
    for first, last in rounds(search.step.verify != "none", WINDOW):
        search.save("label", label)
        files = passing(search, each, workers, gauge, first, last, True)
        while len(files) > 1:
            two = zip(files[::2], files[1::2], strict=False)
            carry_out([(merge, (search, b, a)) for a, b in two], search, each, gauge)
            files = files[::2]
        with gauge(search.name):
            label = joined(label, *search.edges(files[0]))
    return label


def passing(
    search: Search,
    each: Each,
    workers: int,
    gauge: Gauge,
    first: int,
    last: int,
    forests: bool,
) -> list[str]:
    """Names of files of pairs that passed, or of forests that connect what these connect."""
    bands = search.step.banding().bands
    shares = range(min(workers, bands))
    found = [f"pairs-{share}" for share in shares]
    verified = search.step.verify != "none"
    looked = (first, last, forests and not verified)
    tasks = [(find, (search, range(k, bands, len(shares)), *looked, found[k])) for k in shares]
    carry_out(tasks, search, each, gauge)
    if not verified:
        return found
    out = [f"passed-{share}" for share in shares]
    tasks = [(check, (search, found, k, forests, out[k])) for k in shares]
    carry_out(tasks, search, each, gauge)
    return out


def carry_out(tasks: list[Task], files: Arrays, each: Each, gauge: Gauge) -> None:
    """Carry out tasks, the last argument of each a file, and add up what they took."""
    each(files.name, [(measured, task) for task in tasks])
    for _, arguments in tasks:
        gauge.add(read_json(files.file(f"{arguments[-1]}.json")))


def measured(task: Callable[..., None], arguments: tuple) -> None:
    files, gauge = arguments[0], Gauge()
    with gauge(files.name):
        task(*arguments)
    with part(files.file(f"{arguments[-1]}.json")) as path:
        path.write_text(json.dumps(gauge.to_json()))


def find(
    search: Search, bands: Sequence[int], first: int, last: int, forests: bool, out: str
) -> None:
    """Pairs that meet in some bands, but for those that are joined already."""
    signed, distinct, banding = search.signed(), search.load("distinct"), search.step.banding()
    if forests:
        found = chained(signed, distinct, banding, bands)
    else:
        label = search.load("label")
        found = meet(signed, distinct, banding, bands, first, last, label)
    search.save(out, found)


def check(search: Search, files: list[str], share: int, forests: bool, out: str) -> None:
    """Of the pairs in all files one worker's share, and of these the ones that pass."""
    distinct, codes = search.load("distinct"), []
    n = max(1, len(distinct))
    for file in files:
        a, b = search.edges(file)
        mine = a % len(files) == share
        codes.append(a[mine] * n + b[mine])
    pairs = np.divmod(np.unique(np.concatenate(codes)), n)
    verify = verifier(search.step, search.signed(), search.load("here"), Kept(search.kept))
    found = passed(pairs, distinct, verify)
    search.save(out, forest(n, found) if forests else found)


def merge(search: Search, other: str, out: str) -> None:
    """Make one forest of two, in the place of the second."""
    n = len(search.load("distinct"))
    search.save(out, forest(n, search.edges(other), search.edges(out)))
