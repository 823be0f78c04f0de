"""What repeated measurements say: a median, how well it is known, whether two can be compared; and
on which CPU. Standard library only.

A median comes with an interval of order statistics, which assumes nothing about the distribution:
of n samples, how many lie below the true median is binomial (n, 1/2), so the r-th smallest and the
r-th largest enclose it with probability 1 - 2 P(fewer than r). What follows one another on a busy
machine is not independent, and then an interval says too much: sides are compared in turn.
"""

import platform
from dataclasses import dataclass
from functools import cache
from math import comb
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

CONFIDENCE = 0.95
TOO_NOISY = 0.1  # half an interval, as a part of its median, that makes a number not worth telling


class Interval(NamedTuple):
    """Where a median lies, at `CONFIDENCE`; `sure` is False if the samples are too few for that."""

    low: float
    high: float
    sure: bool


def interval(samples: list[float]) -> Interval:
    """Of the median, from the order statistics of samples in any order."""
    ranked, r = sorted(samples), rank(len(samples))
    first = max(r, 1) - 1
    return Interval(ranked[first], ranked[-1 - first], r > 0)


@cache
def rank(n: int) -> int:
    """The largest r for which the r-th smallest and largest of n are an interval; 0 for none."""
    r, outside = 0, 2 / 2**n
    while outside <= 1 - CONFIDENCE:
        r += 1
        outside += 2 * comb(n, r) / 2**n
    return r


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one call. cold: the very first, which is no sample. times: calls in a sample."""

    samples: list[float]
    cold: float
    times: int = 1

    median = property(lambda self: median(self.samples))
    interval = property(lambda self: interval(self.samples))

    def quantile(self, tenths: int) -> float:
        if len(self.samples) == 1:
            return self.samples[0]
        return quantiles(self.samples, n=10, method="inclusive")[tenths - 1]

    @property
    def spread(self) -> float:
        """Half the median's interval, as a part of the median."""
        return (self.interval.high - self.interval.low) / 2 / self.median

    @property
    def noisy(self) -> bool:
        """Whether the median is not known well enough to be compared with another."""
        return not self.interval.sure or self.spread > TOO_NOISY

    def json(self) -> dict[str, float | int | bool]:
        """What a row holds under "seconds"."""
        return {
            "median": self.median,
            "p10": self.quantile(1),
            "p90": self.quantile(9),
            "low": self.interval.low,
            "high": self.interval.high,
            "count": len(self.samples),
            "cold": self.cold,
            "noisy": self.noisy,
        }


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as long one side takes as another, round by round, and how sure that is."""

    rounds: list[float]
    precision: float

    median = property(lambda self: median(self.rounds))
    interval = property(lambda self: interval(self.rounds))

    @property
    def noisy(self) -> bool:
        """Whether it is not known well enough to judge a claim by."""
        low, high, sure = self.interval
        return not sure or (high - low) / 2 / self.median > TOO_NOISY

    @property
    def verdict(self) -> str:
        """slower, faster, equal (to `precision`), or too noisy to compare."""
        low, high, sure = self.interval
        if not sure:
            return "too noisy to compare"
        if low > 1 or high < 1:
            return "slower" if low > 1 else "faster"
        near = low >= 1 - 2 * self.precision and high <= 1 + 2 * self.precision
        return "equal" if near else "too noisy to compare"

    def json(self) -> dict[str, float | str]:
        low, high, _ = self.interval
        return {"median": self.median, "low": low, "high": high, "verdict": self.verdict}


def judged(holds: bool, *found: Timing | Ratio) -> str:
    """A claim about measurements in a word: holds, fails, or too noisy to tell."""
    return "too noisy to tell" if any(x.noisy for x in found) else "holds" if holds else "fails"


def cpu_name() -> str:
    """The CPU's name, as its maker prints it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
