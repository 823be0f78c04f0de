"""Stars with several workers: who stays of documents that are alike, and for whose sake each goes.

Each worker has a range of the ranks, and the pairs in which one of them is the worse. A round lets
all workers decide what follows from the rounds before. The first range waits for nobody and each
other one for better ones only, so every round finishes at least one range, and there are never
more rounds than ranges, however long the chains. A worker holds its pairs and a byte for each
document. The outcome is that of `clusters.stars`, however many workers there are.
"""

import numpy as np

from cookbook_lib.data.banding import WINDOW
from cookbook_lib.data.gauge import Gauge
from cookbook_lib.data.greedy import OPEN, keepers, oriented, settle
from cookbook_lib.data.linking import Each, Search, carry_out, passing


def stars(
    search: Search, priority: np.ndarray, each: Each, workers: int, gauge: Gauge
) -> np.ndarray:
    """The place of the document that stays, for each place with a signature that is compared.

    `priority` is the rank of each place, 0 the best, and no two have the same.
    """
    with gauge(search.name):
        distinct = search.load("distinct")
        search.save("label", np.arange(len(distinct)))
        search.save("standing", priority[distinct])
    pairs = passing(search, each, workers, gauge, 1, WINDOW, False)
    n, shares = search.documents, min(workers, search.documents)
    own = [slice(n * k // shares, n * (k + 1) // shares) for k in range(shares)]
    tasks = [(divide, (search, pairs, own[k], f"worse-{k}")) for k in range(shares)]
    carry_out(tasks, search, each, gauge)
    state = np.full(n, OPEN, np.int8)
    while left := [k for k in range(shares) if (state[own[k]] == OPEN).any()]:
        search.save("state", state)
        tasks = [(decide, (search, f"worse-{k}", own[k], f"decided-{k}")) for k in left]
        carry_out(tasks, search, each, gauge)
        for k in left:
            state[own[k]] = search.load(f"decided-{k}")
    search.save("state", state)
    tasks = [(keep, (search, f"worse-{k}", own[k], f"keepers-{k}")) for k in range(shares)]
    carry_out(tasks, search, each, gauge)
    with gauge(search.name):
        best = np.empty(n, np.int64)
        for k in range(shares):
            best[own[k]] = search.load(f"keepers-{k}")
        return np.argsort(priority)[best[priority]]


def divide(search: Search, pairs: list[str], own: slice, out: str) -> None:
    """Of the pairs in all files those whose worse one is in a range, as better and worse ranks."""
    standing, n, codes = search.load("standing"), search.documents, []
    for file in pairs:
        a, b = search.edges(file)
        better, worse = oriented(standing[a], standing[b])
        mine = (worse >= own.start) & (worse < own.stop)
        codes.append(better[mine] * n + worse[mine])
    search.save(out, np.divmod(np.unique(np.concatenate(codes)), n))


def decide(search: Search, pairs: str, own: slice, out: str) -> None:
    """The states of a range after one round."""
    state = np.array(search.load("state"))
    settle(state, *search.edges(pairs), own)
    search.save(out, state[own])


def keep(search: Search, pairs: str, own: slice, out: str) -> None:
    """The rank that stays for each of a range."""
    search.save(out, keepers(search.load("state"), *search.edges(pairs), own))
