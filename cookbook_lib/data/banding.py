"""Locality-sensitive hashing: which documents are compared at all.

A signature is cut into `bands` of `rows` rows. Two documents are candidates if they agree in all
rows of one band, which happens with probability 1 - (1 - s^rows)^bands at similarity s.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from cookbook_lib.data.minhash import BLOCK
from cookbook_lib.data.shingles import BASE, mixed

WINDOW = 256  # neighbours in a bucket that a document is paired with


class Banding(NamedTuple):
    bands: int
    rows: int


def collision(similarity, bands: int, rows: int):
    """The probability that two documents of this similarity become candidates."""
    return 1 - (1 - similarity**rows) ** bands


def errors(threshold: float, banding: Banding) -> tuple[float, float]:
    """Areas of the false positives below the threshold and of the false negatives above it.

    The curve is a polynomial of degree bands x rows, so Gauss and Legendre's rule is exact.
    """
    at, weight = gauss(banding.bands * banding.rows)
    below = (collision(at * threshold, *banding) * weight).sum() * threshold
    above = 1 - collision(threshold + at * (1 - threshold), *banding)
    return float(below), float((above * weight).sum() * (1 - threshold))


@lru_cache(maxsize=512)
def gauss(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Places between 0 and 1, and weights, that integrate polynomials of this degree."""
    at, weight = np.polynomial.legendre.leggauss(degree // 2 + 1)
    return (at + 1) / 2, weight / 2


def choose(threshold: int | float, permutations: int, positive: float = 0.5) -> Banding:
    """The banding with the least weighted error, as datasketch's MinHashLSH chooses it.

    `positive` is the weight of false positives; false negatives have the rest.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold}, expected a number between 0 and 1")
    options = [
        Banding(bands, rows)
        for bands in range(1, permutations + 1)
        for rows in range(1, permutations // bands + 1)
    ]

    def cost(banding: Banding) -> float:
        below, above = errors(threshold, banding)
        return positive * below + (1 - positive) * above

    return min(options, key=cost)


def band_keys(signed: np.ndarray, banding: Banding) -> Iterator[np.ndarray]:
    """Band by band, one 64-bit key for each document."""
    for band in range(banding.bands):
        yield band_key(signed, banding, band)


def band_key(signed: np.ndarray, banding: Banding, band: int) -> np.ndarray:
    """One band's 64-bit key for each document."""
    bands, rows = banding
    if bands < 1 or rows < 1 or bands * rows > signed.shape[1]:
        raise ValueError(
            f"bands x rows is {bands} x {rows}, expected at most {signed.shape[1]} rows in all"
        )
    return keys(signed, band * rows, (band + 1) * rows)


def keys(signed: np.ndarray, first: int, last: int) -> np.ndarray:
    """A hash of some columns of each row; the rows may lie on disk."""
    out = np.zeros(len(signed), np.uint64)
    for at in range(0, len(signed), BLOCK):
        part, key = signed[at : at + BLOCK], out[at : at + BLOCK]
        for column in range(first, last):
            key[:] = mixed((key + part[:, column]) * np.uint64(BASE))
    return out


def candidates(
    keys: np.ndarray, farthest: int = WINDOW, nearest: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of places with equal keys in one band, each as (lower, higher).

    In a bucket each document is paired with those from `nearest` to `farthest` places before it,
    and with the first one if that is farther: all pairs of an ordinary bucket, and a bounded
    number of pairs of a huge one. From 1 to 1 it is a chain, which is enough to connect a bucket.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    head = np.repeat(starts, np.diff(np.append(starts, len(ordered))))
    place = np.flatnonzero(np.arange(len(ordered)) - nearest >= head)
    for back in range(nearest, farthest + 1):
        if not len(place):
            return
        yield order[place - back], order[place]
        place = place[place - back > head[place]]  # those with a document yet farther before them
    if farthest > nearest:
        yield order[head[place]], order[place]
