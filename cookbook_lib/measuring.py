"""A median of measured seconds, how well it is known, and on what. Standard library only.

A median comes with an interval of order statistics, which assumes nothing about the distribution:
of n samples, how many lie below the true median is binomial (n, 1/2), so the r-th smallest and the
r-th largest enclose it with probability 1 - 2 P(fewer than r).
"""

import platform
from dataclasses import dataclass
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
    ranked, n = sorted(samples), len(samples)
    rank, outside = 0, 0.0
    while (outside := outside + 2 * comb(n, rank) / 2**n) <= 1 - CONFIDENCE:
        rank += 1
    first = max(rank, 1) - 1
    return Interval(ranked[first], ranked[-1 - first], rank > 0)


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


def cpu_name() -> str:
    """The CPU's name, as its maker prints it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
