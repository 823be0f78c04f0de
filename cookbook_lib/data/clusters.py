"""Which documents are the same one, and which of them stays.

Pairs of candidates may be verified before they join a cluster; a cluster is a connected component
of the pairs that passed; and who survives follows from a rule alone, not from an order of arrival.
"""

from collections.abc import Callable

import numpy as np

from cookbook_lib.data.banding import Banding, band_keys, candidates, keys

Verify = Callable[[np.ndarray, np.ndarray], np.ndarray]  # places of pairs -> which of them pass


def cluster(
    signed: np.ndarray,
    banding: Banding,
    verify: Verify | None = None,
    valid: np.ndarray | None = None,
    window: int = 256,
) -> np.ndarray:
    """The label of each document: the first place in its cluster.

    Where `valid` is false, as for a text without words, a document is in no cluster but its own.
    Documents of equal signatures are one for the comparison: many copies cost no more than one.
    """
    first = equal(keys(signed, 0, signed.shape[1]), valid)
    distinct = np.flatnonzero((first == np.arange(len(first))) & (True if valid is None else valid))
    label, failed = np.arange(len(distinct)), np.empty(0, np.int64)
    for band in band_keys(signed, banding):
        # a chain connects a bucket; to verify pairs, all of them are needed
        for a, b in candidates(band[distinct], 1 if verify is None else window):
            apart = label[a] != label[b]
            a, b = a[apart], b[apart]
            if verify is not None and len(a):
                pairs = np.setdiff1d(a * len(distinct) + b, failed)  # none is looked at twice
                a, b = np.divmod(pairs, len(distinct))
                passed = verify(distinct[a], distinct[b])
                failed = np.union1d(failed, pairs[~passed])
                a, b = a[passed], b[passed]
            label = joined(label, a, b)
    out = np.arange(len(first))
    out[distinct] = distinct[label]
    return out[first]


def stars(
    signed: np.ndarray,
    banding: Banding,
    priority: np.ndarray,
    verify: Verify | None = None,
    valid: np.ndarray | None = None,
    window: int = 256,
) -> np.ndarray:
    """The place of the document that stays, for each document: itself, or one of its own pairs.

    Unlike in a cluster, which chains can draw out, nothing goes for the sake of a document that it
    is not like. `priority` is each document's rank, 0 the best, and no two have the same.
    """
    first = equal(keys(signed, 0, signed.shape[1]), valid)
    best = np.full(len(first), len(first))
    np.minimum.at(best, first, priority)  # of equal signatures the best speaks for all
    at = np.argsort(priority)
    speaker = at[best[first]]
    distinct = np.flatnonzero(
        (speaker == np.arange(len(first))) & (True if valid is None else valid)
    )
    pairs = np.empty(0, np.int64)
    for band in band_keys(signed, banding):
        here = [a * len(distinct) + b for a, b in candidates(band[distinct], window)]
        pairs = np.unique(np.concatenate([pairs, *here]))
    a, b = (distinct[x] for x in np.divmod(pairs, max(1, len(distinct))))
    if verify is not None and len(a):
        passed = verify(a, b)
        a, b = a[passed], b[passed]
    return nearest(a, b, priority)[speaker]


def nearest(a: np.ndarray, b: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """Best first, each place that is left stays and drops its neighbours; which one drops each."""
    swap = priority[a] > priority[b]
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    gone, left = np.zeros(len(priority), bool), (a, b)
    while len(left[0]):  # all at once: who has no better neighbour left is certain to stay
        waits = np.zeros(len(priority), bool)
        waits[left[1]] = True
        gone[left[1][~waits[left[0]]]] = True
        live = ~gone[left[0]] & ~gone[left[1]]
        left = (left[0][live], left[1][live])
    best = np.where(gone, len(priority), priority)
    stays = ~gone[a] & gone[b]
    np.minimum.at(best, b[stays], priority[a[stays]])
    return np.argsort(priority)[best]


def equal(key: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """The label of each document: the first place of the same key."""
    label = np.arange(len(key))
    places = label if valid is None else np.flatnonzero(valid)
    _, first, group = np.unique(key[places], return_index=True, return_inverse=True)
    label[places] = places[first[group]]
    return label


def components(n: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The least member of each of n places' connected component, by edges (a[i], b[i])."""
    return joined(np.arange(n), a, b)


def joined(label: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The labels after more edges, from labels that are each the least of their component.

    Every round hooks the greater of two labels to the lesser and then shortens all paths; what is
    already joined drops out. Arrays only: 8 bytes a place and 16 an edge.
    """
    while len(a):
        a, b = label[a], label[b]
        apart = a != b
        a, b = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
        np.minimum.at(label, b, a)
        while not np.array_equal(label, shorter := label[label]):
            label = shorter
    return label


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
