"""Connected components with arrays: labels, and spanning forests that are joined in any order.

A forest of n places has fewer than n edges, however many pairs it stands for. So each worker
reduces its pairs to a forest, two forests become one, and that is a tree of merges whose every
step is bounded by the number of documents. Which pairs lay with which worker changes nothing.
"""

import numpy as np

Edges = tuple[np.ndarray, np.ndarray]  # a[i] and b[i] belong together


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


def forest(n: int, *parts: Edges) -> Edges:
    """Fewer than n edges with the same components as all edges of the parts."""
    label = np.arange(n)
    for a, b in parts:
        label = joined(label, a, b)
    places = np.flatnonzero(label != np.arange(n))
    return label[places], places
