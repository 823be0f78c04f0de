"""Which documents are the same one, and which of them stays.

Pairs of candidates may be verified before they join a cluster; a cluster is a connected component
of the pairs that passed; and who survives follows from a rule alone, not from an order of arrival.
"""

from collections.abc import Callable, Iterable

import numpy as np

from cookbook_lib.data.banding import WINDOW, Banding, band_key, candidates, keys
from cookbook_lib.data.components import Edges, components, equal, forest, joined
from cookbook_lib.data.greedy import nearest

Verify = Callable[[np.ndarray, np.ndarray], np.ndarray]  # places of pairs -> which of them pass


def cluster(
    signed: np.ndarray,
    banding: Banding,
    verify: Verify | None = None,
    valid: np.ndarray | None = None,
    window: int = WINDOW,
) -> np.ndarray:
    """The label of each document: the first place in its cluster.

    Where `valid` is false, as for a text without words, a document is in no cluster but its own.
    Documents of equal signatures are one for the comparison: many copies cost no more than one.
    `linking` does the same with several workers.
    """
    speaker, distinct = speakers(signed, valid)
    if verify is None:
        a, b = chained(signed, distinct, banding, range(banding.bands))
        return spread(components(len(distinct), a, b), speaker, distinct)
    label = np.arange(len(distinct))
    for first, last in rounds(True, window):
        pairs = meet(signed, distinct, banding, range(banding.bands), first, last, label)
        label = joined(label, *passed(pairs, distinct, verify))
    return spread(label, speaker, distinct)


def stars(
    signed: np.ndarray,
    banding: Banding,
    priority: np.ndarray,
    verify: Verify | None = None,
    valid: np.ndarray | None = None,
    window: int = WINDOW,
) -> np.ndarray:
    """The place of the document that stays, for each document: itself, or one of its own pairs.

    Unlike in a cluster, which chains can draw out, nothing goes for the sake of a document that it
    is not like. `priority` is each document's rank, 0 the best, and no two have the same.
    """
    speaker, distinct = speakers(signed, valid, priority)
    pairs = meet(signed, distinct, banding, range(banding.bands), 1, window)
    a, b = passed(pairs, distinct, verify)
    return nearest(distinct[a], distinct[b], priority)[speaker]


def speakers(
    signed: np.ndarray, valid: np.ndarray | None = None, priority: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Of equal signatures one speaks for all: the best, or else the first. For each place its
    speaker, and the places of those that are compared.
    """
    speaker = equal(keys(signed, 0, signed.shape[1]), valid)
    if priority is not None:
        best = np.full(len(speaker), len(speaker))
        np.minimum.at(best, speaker, priority)
        speaker = np.argsort(priority)[best[speaker]]
    speaks = speaker == np.arange(len(speaker))
    return speaker, np.flatnonzero(speaks if valid is None else speaks & valid)


def spread(label: np.ndarray, speaker: np.ndarray, distinct: np.ndarray) -> np.ndarray:
    """Labels of all places from those of the places that were compared."""
    out = np.arange(len(speaker))
    out[distinct] = distinct[label]
    return out[speaker]


def rounds(verified: bool, window: int) -> list[tuple[int, int]]:
    """Which neighbours in a bucket are looked at, one round after another.

    A chain connects a bucket. Where pairs are verified a link of it may fail, and then the others
    are looked at too: those of documents that the chains have not joined.
    """
    return [(1, 1), (2, window)] if verified else [(1, 1)]


def chained(
    signed: np.ndarray, distinct: np.ndarray, banding: Banding, bands: Iterable[int]
) -> Edges:
    """A forest of places in `distinct` that connects the buckets of some bands, band by band."""
    found = np.empty(0, np.int64), np.empty(0, np.int64)
    for band in bands:
        for edges in candidates(band_key(signed, banding, band)[distinct], 1):
            found = forest(len(distinct), found, edges)
    return found


def meet(
    signed: np.ndarray,
    distinct: np.ndarray,
    banding: Banding,
    bands: Iterable[int],
    first: int,
    last: int,
    label: np.ndarray | None = None,
) -> Edges:
    """Pairs of places in `distinct` that meet in a bucket of some bands, each pair once.

    With labels, those that have the same one already are left out.
    """
    n, codes = max(1, len(distinct)), np.empty(0, np.int64)
    for band in bands:
        found = [codes]
        key = band_key(signed, banding, band)[distinct]
        for a, b in candidates(key, last, first):
            apart = slice(None) if label is None else label[a] != label[b]
            found.append(a[apart] * n + b[apart])
        codes = np.unique(np.concatenate(found))
    return np.divmod(codes, n)


def passed(pairs: Edges, distinct: np.ndarray, verify: Verify | None) -> Edges:
    """Those of the pairs that are as similar as is asked."""
    a, b = pairs
    if verify is None or not len(a):
        return a, b
    right = verify(distinct[a], distinct[b])
    return a[right], b[right]


def survivors(
    label: np.ndarray, rank: np.ndarray, length: np.ndarray, ids: Callable[[np.ndarray], list[str]]
) -> np.ndarray:
    """The place of the document that stays, for each document.

    The best source (lowest rank), then the longest text, then the least id: the same document in
    whatever order they come. `ids` gives the ids of places; it is asked for those in clusters only.
    """
    keeper = np.arange(len(label))
    shared = np.bincount(label, minlength=len(label)) > 1
    places = np.flatnonzero(shared[label])
    if not len(places):
        return keeper
    order = best_first(rank[places], length[places], ids(places))
    order = places[order[np.argsort(label[places[order]], kind="stable")]]
    starts = np.flatnonzero(np.append(True, label[order][1:] != label[order][:-1]))
    keeper[order] = np.repeat(order[starts], np.diff(np.append(starts, len(order))))
    return keeper


def best_first(rank: np.ndarray, length: np.ndarray, ids: list[str]) -> np.ndarray:
    """The order in which documents survive."""
    by_id = np.argsort(np.argsort(np.array(ids, object), kind="stable"))
    return np.lexsort((by_id, -length, rank))


def dropped(keeper: np.ndarray, rank: np.ndarray, across: bool = False) -> np.ndarray:
    """Which documents go: all but the survivor, or only those of lesser sources than its own.

    The second is Zyda-2's rule: duplicates inside one source stay (arXiv:2411.06068).
    """
    return rank > rank[keeper] if across else keeper != np.arange(len(keeper))
