"""MinHash: signatures whose rows agree as often as two sets of shingles overlap.

Broder (1997), "On the resemblance and containment of documents". A permutation of the 32-bit
numbers is x -> a x + b modulo 2^32 with odd a. Everything is derived from the seed alone, so a
signature is the same in every batch, on every engine and on every machine.
"""

from collections.abc import Sequence

import numpy as np

from cookbook_lib.data.shingles import BASE, Kind, Shingles, mixed, normalise, shingles

BLOCK = 1 << 16  # numbers that are permuted at once: what a core's cache holds


def permutations(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The factors and summands of `count` permutations; more of them begin with the same ones."""
    if count < 1:
        raise ValueError(f"permutations is {count}, expected a whole number above 0")
    numbers = mixed(
        np.arange(1, 2 * count + 1, dtype=np.uint64) * np.uint64(BASE)
        + mixed(np.array([seed % 2**64], np.uint64))
    )
    upper = (numbers >> np.uint64(32)).astype(np.uint32)
    return upper[::2] | np.uint32(1), upper[1::2]


def signatures(texts: Sequence[str], n: int, kind: Kind, count: int, seed: int = 0) -> np.ndarray:
    """Signatures of texts, uint32 of shape (texts, count); see `minhash` for an empty text."""
    return minhash(shingles([normalise(t) for t in texts], n, kind), count, seed)


def minhash(sets: Shingles, count: int, seed: int = 0) -> np.ndarray:
    """The least number of each set after each permutation; all ones for a set without elements.

    Such a row says nothing about the text: it must not be compared with others.
    """
    factors, summands = permutations(count, seed)
    out = np.full((count, len(sets.counts)), 0xFFFFFFFF, np.uint32)
    hashes = (sets.hashes >> np.uint64(32)).astype(np.uint32)
    owner = np.repeat(np.arange(len(sets.counts)), sets.counts)
    scratch = np.empty(BLOCK, np.uint32)
    for at in range(0, len(hashes), BLOCK):  # a block stays in the cache for all permutations
        block, owners = hashes[at : at + BLOCK], owner[at : at + BLOCK]
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        here, room = slice(owners[0], owners[-1] + 1), scratch[: len(block)]
        whole = len(starts) == here.stop - here.start  # no empty text between
        rows = here if whole else owners[starts]
        for k in range(count):
            np.multiply(block, factors[k], out=room)
            np.add(room, summands[k], out=room)
            least = np.minimum.reduceat(room, starts)
            out[k, rows] = np.minimum(out[k, rows], least)
    return np.ascontiguousarray(out.T)


def agreeing(signed: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How many rows of the signatures of the pairs (a[i], b[i]) agree."""
    out = np.empty(len(a), np.int64)
    for at in range(0, len(a), BLOCK):
        part = slice(at, at + BLOCK)
        out[part] = (signed[a[part]] == signed[b[part]]).sum(1)
    return out


def similarity(signed: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarities of the pairs (a[i], b[i]): the share of rows that agrees."""
    return agreeing(signed, a, b) / signed.shape[1]


def jaccard(x: np.ndarray, y: np.ndarray) -> float:
    """Jaccard similarity of two sets, each an ordered array of distinct hashes."""
    both = len(np.intersect1d(x, y, assume_unique=True))
    return both / max(1, len(x) + len(y) - both)
