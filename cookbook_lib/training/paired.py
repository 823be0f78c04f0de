"""Paired differences over seeds, their interval, and what it lets one say.

Two variants of one seed share weights, data and most of the run, so that their difference varies
far less than either of them. Standard library only.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import mean, stdev
from typing import NamedTuple

HOLDS, FAILS, UNSEEN = "holds", "fails", "cannot be seen"

# 0.975 quantile of Student's t for 1, 2, … degrees of freedom; a test integrates the density
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179)


class Difference(NamedTuple):
    """The mean difference of `n` pairs, and its 95% interval."""

    mean: float
    low: float
    high: float
    n: int

    def below(self, bound: float = 0.0) -> str:
        """Whether it is below a bound: the interval is, or is above it, or lies across."""
        return HOLDS if self.high < bound else FAILS if self.low > bound else UNSEEN

    def within(self, margin: float) -> str:
        """Whether it is small: the interval is inside plus or minus the margin, or outside."""
        if -margin <= self.low and self.high <= margin:
            return HOLDS
        return FAILS if self.low > margin or self.high < -margin else UNSEEN


def paired(a: Sequence[float], b: Sequence[float]) -> Difference:
    """a - b, pair by pair. `ValueError` without two pairs or more than the table of t has."""
    if len(a) != len(b) or not 2 <= len(a) <= len(T) + 1:
        raise ValueError(
            f"there are {len(a)} and {len(b)} values, expected pairs, 2 to {len(T) + 1} of them"
        )
    apart = [x - y for x, y in zip(a, b, strict=True)]
    half = T[len(apart) - 2] * stdev(apart) / sqrt(len(apart))
    middle = mean(apart)
    return Difference(middle, middle - half, middle + half, len(apart))


def every(verdicts: Sequence[str]) -> str:
    """One verdict on several parts: it fails if one fails, and holds if all hold."""
    return FAILS if FAILS in verdicts else HOLDS if set(verdicts) == {HOLDS} else UNSEEN
