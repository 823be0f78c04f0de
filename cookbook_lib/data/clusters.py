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
    by_id = np.argsort(np.argsort(np.array(ids(places), object)))
    order = places[np.lexsort((by_id, -length[places], rank[places], label[places]))]
    starts = np.flatnonzero(np.append(True, label[order][1:] != label[order][:-1]))
    keeper[order] = np.repeat(order[starts], np.diff(np.append(starts, len(order))))
    return keeper


def dropped(keeper: np.ndarray, rank: np.ndarray, across: bool = False) -> np.ndarray:
    """Which documents go: all but the survivor, or only those of lesser sources than its own.

    The second is Zyda-2's rule: duplicates inside one source stay (arXiv:2411.06068).
    """
    return rank > rank[keeper] if across else keeper != np.arange(len(keeper))
