"""Who stays where pairs of documents are alike: best first, each that is left drops its neighbours.

Documents are ranks here, 0 the best. Whether one stays depends on better ones alone, so its pairs
are needed only where it is the worse of the two, and a range of ranks can be decided as soon as
what is better is.
"""

import numpy as np

OPEN, STAYS, GONE = range(3)  # states of a rank, in arrays of bytes


def nearest(a: np.ndarray, b: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """The place that stays for each place: itself, or the best of its neighbours that stay.

    a[i] and b[i] are places that are alike, `priority` is the rank of each place.
    """
    better, worse = oriented(priority[a], priority[b])
    state, own = np.full(len(priority), OPEN, np.int8), slice(0, len(priority))
    settle(state, better, worse, own)
    return np.argsort(priority)[keepers(state, better, worse, own)[priority]]


def oriented(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The better and the worse of each pair of ranks."""
    return np.minimum(a, b), np.maximum(a, b)


def settle(state: np.ndarray, better: np.ndarray, worse: np.ndarray, own: slice) -> None:
    """Decide the ranks of a range, as far as that follows from what is decided, in `state`.

    The pairs are all those whose worse one is in the range.
    """
    while True:  # all at once: who has no better neighbour left is certain to stay
        state[worse[state[better] == STAYS]] = GONE
        live = (state[better] == OPEN) & (state[worse] == OPEN)
        better, worse = better[live], worse[live]
        free = state[own] == OPEN
        free[worse - own.start] = False
        if not free.any():
            return
        state[own][free] = STAYS


def keepers(state: np.ndarray, better: np.ndarray, worse: np.ndarray, own: slice) -> np.ndarray:
    """The rank that stays for each rank of a range, once all are decided."""
    best = np.arange(own.start, own.stop)
    best[state[own] == GONE] = len(state)
    drops = state[better] == STAYS
    np.minimum.at(best, worse[drops] - own.start, better[drops])
    return best
