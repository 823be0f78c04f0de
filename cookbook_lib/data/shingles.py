"""A text as the set of its n-grams: normalised, cut and hashed, many texts at a time.

A shingle is a slice of the normalised text. One prefix sum of a polynomial hash over the bytes
therefore gives the hash of every slice: sum(v[j] B^j) from i to k, times B^-i, modulo 2^64.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from string import punctuation
from typing import Literal, NamedTuple

import numpy as np

Kind = Literal["words", "characters"]
BASE = (
    0x9E3779B97F4A7C15  # odd, so that it has an inverse; 5 modulo 8, so that its powers repeat late
)
SPACES = bytes(32 if chr(i).isspace() else i for i in range(128)) + bytes(range(128, 256))
BLOCK = 1 << 13  # shingles that are hashed at once: their bytes stay in a core's cache


class Shingles(NamedTuple):
    """Hashes of all shingles, text after text, and how many each text has; repeats stay."""

    hashes: np.ndarray  # uint64
    counts: np.ndarray  # int64, one a text

    def sets(self) -> list[np.ndarray]:
        """The distinct hashes of each text, in order."""
        parts = np.split(self.hashes, np.cumsum(self.counts)[:-1])
        return [
            ordered[np.diff(ordered, prepend=~ordered[:1]) != 0] for ordered in map(np.sort, parts)
        ]


def normalise(text: str) -> bytes:
    """UTF-8 in NFC and lower case, without ASCII punctuation, words one space apart.

    As Zyda's utils/text.py, without ftfy's repairs and NLTK's splitting of contractions.
    """
    if not text.isascii():  # other alphabets have other forms and other spaces
        text = " ".join(unicodedata.normalize("NFC", text).split())
    raw = text.lower().encode("utf-8", "surrogatepass")
    return b" ".join(raw.translate(SPACES, punctuation.encode()).split())


def shingles(texts: Sequence[bytes], n: int, kind: Kind = "words") -> Shingles:
    """Hash the n-grams of normalised texts.

    A text of fewer than n words (or characters) is one shingle, so that short texts are equal only
    if they are the same. An empty one has none.
    """
    if n < 1:
        raise ValueError(f"ngram is {n}, expected a whole number above 0")
    data = np.frombuffer(b"\n".join([*texts, b""]), np.uint8)
    ends = np.cumsum([len(t) + 1 for t in texts], dtype=np.int64)  # one behind the line's end
    first, last = words(data) if kind == "words" else characters(data)
    units = np.diff(np.searchsorted(first, ends), prepend=0)
    counts = np.where(units > 0, np.maximum(1, units - n + 1), 0)
    # the k-th shingle of a text goes from its k-th unit to the (k + n - 1)-th or the last
    behind = np.repeat(np.cumsum(units) - units - (np.cumsum(counts) - counts), counts)
    begin = np.arange(counts.sum()) + behind
    size = np.repeat(np.minimum(n, units), counts)
    return Shingles(slice_hashes(data, first[begin], last[begin + size - 1]), counts)


def words(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where words begin, and one behind their ends, in lines of bytes."""
    inside = np.concatenate([[False], (data != 32) & (data != 10)])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    return edges[::2], edges[1::2]


def characters(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the characters of UTF-8 begin, and one behind their ends; line ends are none."""
    first = np.flatnonzero((data & 0xC0) != 0x80)
    last = np.append(first[1:], len(data))
    inside = data[first] != 10
    return first[inside], last[inside]


def slice_hashes(data: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """64-bit hashes of data[first:last] for slices in order of their beginnings."""
    out = np.empty(len(first), np.uint64)
    for at in range(0, len(first), BLOCK):
        begin, end = first[at : at + BLOCK], last[at : at + BLOCK]
        low, high = int(begin[0]), int(end[-1])
        power, inverse = powers(1 << (high - low).bit_length())
        prefix = np.zeros(high - low + 1, np.uint64)
        np.cumsum(letters()[data[low:high]] * power[: high - low], out=prefix[1:])
        out[at : at + BLOCK] = (prefix[end - low] - prefix[begin - low]) * inverse[begin - low]
    return mixed(out)


@lru_cache(maxsize=4)
def powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """BASE**0, BASE**1, … modulo 2**64, and their inverses."""
    both = []
    for base in (BASE, pow(BASE, -1, 1 << 64)):
        row = np.full(size, base, np.uint64)
        row[0] = 1
        both.append(np.cumprod(row, dtype=np.uint64))
    return both[0], both[1]


@lru_cache(maxsize=1)
def letters() -> np.ndarray:
    """A random number for each byte."""
    return mixed(np.arange(1, 257, dtype=np.uint64) * np.uint64(BASE))


def mixed(x: np.ndarray) -> np.ndarray:
    """A bijection of 64 bits in which every bit depends on all: MurmurHash3's finaliser."""
    x = x ^ (x >> np.uint64(33))
    x = x * np.uint64(0xFF51AFD7ED558CCD)  # github.com/aappleby/smhasher, MurmurHash3.cpp, fmix64
    x = x ^ (x >> np.uint64(33))
    x = x * np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))
