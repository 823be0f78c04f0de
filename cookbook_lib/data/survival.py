"""Who stays of each cluster, decided by several workers: each has some of the clusters.

A worker reads its documents block by block and holds the best of each cluster so far. So what it
holds grows with its clusters and not with their copies, and the outcome is that of
`clusters.survivors` however many workers and blocks there are.
"""

import numpy as np

from cookbook_lib.data.clusters import survivors
from cookbook_lib.data.gauge import Gauge
from cookbook_lib.data.kept import Kept
from cookbook_lib.data.linking import Each, carry_out
from cookbook_lib.data.storage import Arrays

BLOCK = 1 << 17  # documents whose ids are held at once


def chosen(
    files: Arrays, label: np.ndarray, rank: np.ndarray, each: Each, workers: int, gauge: Gauge
) -> np.ndarray:
    """The place of the document that stays, for each document with a label and a source's rank.

    `here` lies in the files already: the places of the documents among all that are kept.
    """
    with gauge(files.name):
        shared = np.bincount(label, minlength=len(label)) > 1
        files.save("clustered", np.flatnonzero(shared[label]))
        files.save("labels", label)
        files.save("ranks", rank)
        shares = range(min(workers, int(shared.sum())))
    carry_out([(choose, (files, k, len(shares), f"stay-{k}")) for k in shares], files, each, gauge)
    with gauge(files.name):
        stays = np.arange(len(label))
        for k in shares:
            of, places = files.load(f"stay-{k}")
            stays[of] = places
        return stays[label]


def choose(files: Arrays, share: int, shares: int, out: str) -> None:
    """The labels of one worker's clusters, and the places of those that stay."""
    label, rank, here = (files.load(what) for what in ("labels", "ranks", "here"))
    clustered, kept = files.load("clustered"), Kept(files.kept)
    mine = clustered[label[clustered] % shares == share]
    best, ids, lengths = np.empty(0, np.int64), np.empty(0, object), np.empty(0, np.int64)
    for at in range(0, len(mine), BLOCK):
        block = mine[at : at + BLOCK]
        places = np.concatenate([best, block])
        ids = np.concatenate([ids, np.array(kept.take(here[block], "id"), object)])
        more = np.array(kept.take(here[block], "length"), np.int64)
        lengths = np.concatenate([lengths, more])
        _, group = np.unique(label[places], return_inverse=True)
        first = np.unique(survivors(group, rank[places], lengths, lambda k, ids=ids: list(ids[k])))
        best, ids, lengths = places[first], ids[first], lengths[first]
    files.save(out, np.stack([label[best], best]))
