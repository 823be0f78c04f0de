"""Counting kinds of characters: one look at each, however many kinds there are."""

import re
from functools import lru_cache

import numpy as np

SEPARATOR, SYMBOL, DIGIT = 1, 2, 4
KINDS = {SEPARATOR: r"[\s\-/\\.]+", SYMBOL: r"[^\w\s]+", DIGIT: r"\d+"}


@lru_cache(maxsize=1)
def kinds() -> np.ndarray:
    """For each character of Unicode the sum of its kinds, as the regular expressions see it."""
    table = np.zeros(0x110000, np.uint8)
    every = "".join(map(chr, range(len(table))))
    for kind, pattern in KINDS.items():
        for run in re.finditer(pattern, every):
            table[run.start() : run.end()] |= kind
    return table


@lru_cache(maxsize=8)  # the filters of one document ask for the same counts
def counts(text: str) -> dict[int, int]:
    """How many characters are of each kind."""
    if text.isascii():
        codes = np.frombuffer(text.encode(), np.uint8)
    else:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    mixed = np.bincount(kinds()[codes], minlength=8)
    return {kind: int(sum(mixed[i] for i in range(8) if i & kind)) for kind in KINDS}


def share(text: str, kind: int) -> float:
    """The part of the characters that is of one kind."""
    return counts(text)[kind] / len(text) if text else 0.0


def mean_word_length(text: str) -> float:
    """Mean length of what stands between separators; two in a row have an empty word between."""
    if not text:
        return 0.0
    separators = counts(text)[SEPARATOR]
    return (len(text) - separators) / (separators + 1)
