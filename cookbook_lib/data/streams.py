"""The endless stream of one source for training: every document once an epoch, in a new order.

Sequence n of a source is a pure function of (shards, length, seed, n): a place in the stream is one
whole number, nothing has to be replayed to go on from it, and ranks need not talk.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from zlib import crc32

import numpy as np

from cookbook_lib.data.shards import Packed


class Stream:
    """The documents of some shards, shuffled in each epoch, cut into sequences of equal length.

    Sequence n holds the tokens n * length … (n + 1) * length, one more than its length: each token
    but the very first is predicted once. A document that is cut goes on in the next sequence.
    """

    def __init__(self, name: str, shards: Sequence[str | Path], length: int, seed: int = 0):
        """shards: paths without their endings. `ValueError` if they hold no token."""
        if length < 1:
            raise ValueError(f"length is {length}, expected at least 1 token")
        self.name, self.length, self.seed = name, length, seed
        self.shards = [Packed(path) for path in shards]
        sizes = [np.diff(np.append(0, np.cumsum(s.lengths))[s.boundaries]) for s in self.shards]
        self.sizes = np.concatenate([*sizes, np.zeros(0, np.int64)])
        self.first = np.cumsum([0, *map(len, sizes)])  # number of each shard's first document
        self.tokens = int(self.sizes.sum())
        if not self.tokens:
            raise ValueError(f"source {name} holds no tokens: {len(self.shards)} shards")
        self.order = lru_cache(2)(self._order)

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The documents in the order of an epoch, and the place behind each one."""
        seed = np.random.SeedSequence([self.seed, crc32(self.name.encode()), epoch])
        raw = np.random.PCG64(seed).random_raw(
            len(self.sizes)
        )  # the same in every version of numpy
        order = np.argsort(raw, kind="stable")
        return order, np.cumsum(self.sizes[order])

    def epochs(self, sequences: int) -> float:
        """How often the source was read after so many sequences."""
        return sequences * self.length / self.tokens

    def document(self, i: int) -> np.ndarray:
        shard = int(np.searchsorted(self.first, i, side="right")) - 1
        return self.shards[shard][i - int(self.first[shard])]

    def __getitem__(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(length + 1) ids, and the number of the document in this sequence that each is from."""
        place, left = n * self.length, self.length + 1
        ids, documents = [], []
        epoch, within = divmod(place, self.tokens)
        order, behind = self.order(epoch)
        i = int(np.searchsorted(behind, within, side="right"))
        skip = within - (int(behind[i - 1]) if i else 0)
        while left:
            if i == len(order):
                epoch, i = epoch + 1, 0
                order, behind = self.order(epoch)
            part = self.document(int(order[i]))[skip : skip + left]
            if len(part):
                ids.append(part.astype(np.int64))
                documents.append(np.full(len(part), len(documents)))
                left -= len(part)
            i, skip = i + 1, 0
        return np.concatenate(ids), np.concatenate(documents)
