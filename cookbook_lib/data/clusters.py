"""Which documents are the same one, and which of them stays.

Pairs of candidates may be verified before they join a cluster; a cluster is a connected component
of the pairs that passed; and who survives follows from a rule alone, not from an order of arrival.
"""

from collections.abc import Callable

import numpy as np

from cookbook_lib.data.banding import Banding, band_keys, candidates

Verify = Callable[[np.ndarray, np.ndarray], np.ndarray]  # places of pairs -> which of them pass


def cluster(
    signed: np.ndarray,
    banding: Banding,
    verify: Verify | None = None,
    valid=None,
    window: int = 256,
) -> np.ndarray:
    """The label of each document: the first place in its cluster.

    Where `valid` is false, as for a text without words, a document is in no cluster but its own.
    Documents of equal signatures are one for the comparison, so many copies cost no more than one.
    """
    label = np.arange(len(signed))
    places = label if valid is None else np.flatnonzero(valid)
    _, first, copy = np.unique(
        rows_as_bytes(signed[places]), return_index=True, return_inverse=True
    )
    order = np.argsort(first)  # representatives in the order of the documents
    distinct = places[first[order]]
    seen = np.empty(0, np.int64)
    edges = [np.empty((2, 0), np.int64)]
    for keys in band_keys(signed[distinct], banding):
        pairs = [a * len(distinct) + b for a, b in candidates(keys, window)]
        new = np.unique(np.concatenate([np.empty(0, np.int64), *pairs]))
        if verify is not None:  # each pair once, whatever the number of bands that it shares
            new = np.setdiff1d(new, seen, assume_unique=True)
            seen = np.union1d(seen, new)
        a, b = distinct[new // len(distinct)], distinct[new % len(distinct)]
        passed = slice(None) if verify is None else verify(a, b)
        edges.append(np.stack([a[passed], b[passed]]))
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    edges.append(np.stack([distinct[back[copy]], places]))
    return components(len(signed), *np.concatenate(edges, axis=1))


def rows_as_bytes(signed: np.ndarray) -> np.ndarray:
    """Each row as one value that can be sorted."""
    signed = np.ascontiguousarray(signed)
    return signed.view(np.dtype((np.void, signed.shape[1] * signed.itemsize))).ravel()


def components(n: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The least member of each of n places' connected component, by edges (a[i], b[i]).

    Every round hooks the greater of two labels to the lesser and then shortens all paths; what is
    already joined drops out. Arrays only: 8 bytes a place and 16 an edge.
    """
    label = np.arange(n)
    while len(a):
        a, b = label[a], label[b]
        apart = a != b
        a, b = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
        np.minimum.at(label, b, a)
        while not np.array_equal(label, shorter := label[label]):
            label = shorter
    return label


def survivors(label: np.ndarray, rank: np.ndarray, length: np.ndarray, ids) -> np.ndarray:
    """The place of the document that stays, for each document.

    The best source (lowest rank), then the longest text, then the least id: the same document in
    whatever order they come.
    """
    order = np.lexsort((np.asarray(ids), -np.asarray(length), rank, label))
    starts = np.flatnonzero(np.append(True, label[order][1:] != label[order][:-1]))[: len(order)]
    keeper = np.empty(len(label), np.int64)
    keeper[order] = np.repeat(order[starts], np.diff(np.append(starts, len(order))))
    return keeper


def dropped(keeper: np.ndarray, rank: np.ndarray, across: bool = False) -> np.ndarray:
    """Which documents go: all but the survivor, or only those of lesser sources than its own.

    The second is Zyda-2's rule: duplicates inside one source stay (arXiv:2411.06068).
    """
    return rank > rank[keeper] if across else keeper != np.arange(len(keeper))
