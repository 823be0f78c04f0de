"""The endless stream of one source for training: all of it once an epoch, in a new order.

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
    """The documents of some shards in sequences of equal length, as Megatron-LM makes them.

    In each epoch the documents are put in a new order, one behind the other, and cut; then the
    sequences are shuffled, so that neighbours of a batch are not of one document. Each holds one
    token more than its length, which the next one begins with: each token is predicted once. What
    is left at the end of an epoch, less than a sequence, is dropped.
    """

    def __init__(self, name: str, shards: Sequence[str | Path], length: int, seed: int = 0):
        """shards: paths without their endings. `ValueError` if they hold not one sequence."""
        if length < 1:
            raise ValueError(f"length is {length}, expected at least 1 token")
        self.name, self.length, self.seed = name, length, seed
        self.shards = [Packed(path) for path in shards]
        sizes = [np.diff(np.append(0, np.cumsum(s.lengths))[s.boundaries]) for s in self.shards]
        self.sizes = np.concatenate([*sizes, np.zeros(0, np.int64)])
        self.first = np.cumsum([0, *map(len, sizes)])  # number of each shard's first document
        self.tokens = int(self.sizes.sum())
        self.each = (self.tokens - 1) // length  # sequences of an epoch
        if self.each < 1:
            raise ValueError(
                f"source {name} holds {self.tokens} tokens in {len(self.shards)} shards, expected "
                f"more than one sequence, {length}"
            )
        self.order = lru_cache(2)(self._order)

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of an epoch: its documents, the place behind each of them, and its sequences."""
        seed = np.random.SeedSequence([self.seed, crc32(self.name.encode()), epoch])
        bits = np.random.PCG64(seed)  # its raw bits are the same in every version of numpy
        documents, sequences = (
            np.argsort(bits.random_raw(n), kind="stable") for n in (len(self.sizes), self.each)
        )
        return documents, np.cumsum(self.sizes[documents]), sequences

    def epochs(self, sequences: int) -> float:
        """How often the source was read after so many sequences."""
        return sequences / self.each

    def document(self, i: int) -> np.ndarray:
        shard = int(np.searchsorted(self.first, i, side="right")) - 1
        return self.shards[shard][i - int(self.first[shard])]

    def __getitem__(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(length + 1) ids, and the number of the document in this sequence that each is from."""
        epoch, number = divmod(n, self.each)
        order, behind, sequences = self.order(epoch)
        place, left = int(sequences[number]) * self.length, self.length + 1
        i = int(np.searchsorted(behind, place, side="right"))
        skip = place - (int(behind[i - 1]) if i else 0)
        ids, documents = [], []
        while left:
            part = self.document(int(order[i]))[skip : skip + left]
            if len(part):
                ids.append(part.astype(np.int64))
                documents.append(np.full(len(part), len(documents)))
                left -= len(part)
            i, skip = i + 1, 0
        return np.concatenate(ids), np.concatenate(documents)
