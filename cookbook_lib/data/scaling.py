"""When a cluster pays, and what a search over very many documents needs: models on paper.

Their parameters are measured where they are used. What is not in them, such as waiting for storage,
stragglers and failures, makes the truth larger.
"""

from dataclasses import dataclass
from math import inf, log2

INDEX = 8  # bytes of a place, a label or a band's key


@dataclass(frozen=True, kw_only=True)
class Place:
    """Somewhere to run: seconds = start + nbytes / (rate x cores)."""

    start: float  # seconds before and after the work: processes, imports, a cluster
    rate: float  # bytes of text that one core does in a second
    cores: int

    def seconds(self, nbytes: int | float) -> float:
        return self.start + nbytes / (self.rate * self.cores)


Run = tuple[int | float, float]  # bytes, seconds


def fitted(small: Run, large: Run, cores: int) -> Place:
    """The place whose line goes through two measurements.

    `ValueError` if the larger run was not longer: then the difference is noise.
    """
    (nbytes, seconds), (more, longer) = small, large
    if more <= nbytes or longer <= seconds:
        raise ValueError(
            f"{more:.0f} bytes took {longer:.2f} s and {nbytes:.0f} took {seconds:.2f} s, "
            "expected more bytes to take longer: take larger sizes"
        )
    each = (longer - seconds) / (more - nbytes)
    return Place(start=max(0.0, seconds - nbytes * each), rate=1 / (each * cores), cores=cores)


def with_tasks(rate: float, seconds: float, nbytes: int | float) -> float:
    """The rate of a core that also spends `seconds` on each task of so many bytes."""
    return nbytes / (nbytes / rate + seconds)


def break_even(near: Place, far: Place) -> float:
    """The bytes from which on `far` is done sooner; infinite if there are none."""
    gain = 1 / (near.rate * near.cores) - 1 / (far.rate * far.cores)
    late = far.start - near.start
    if late <= 0:
        return 0.0 if gain >= 0 else inf
    return late / gain if gain > 0 else inf


@dataclass(frozen=True, kw_only=True)
class Search:
    """A MinHash search over all documents, and the bytes that it needs."""

    documents: int | float
    permutations: int
    bands: int

    @property
    def signatures(self) -> int | float:
        """On disk: 32 bits for each permutation."""
        return self.documents * self.permutations * 4

    @property
    def keys_of_a_band(self) -> int | float:
        return self.documents * INDEX

    @property
    def forest_of_a_band(self) -> int | float:
        """At most: a forest has fewer edges than documents, and an edge has two ends."""
        return self.documents * 2 * INDEX

    @property
    def labels(self) -> int | float:
        return self.documents * INDEX

    def table(self) -> dict[str, int | float]:
        """What lies on disk or in memory at some time, in bytes."""
        return {
            "signatures": self.signatures,
            "keys of one band": self.keys_of_a_band,
            "keys of all bands": self.bands * self.keys_of_a_band,
            "edges, one band, at most": self.forest_of_a_band,
            "edges, all bands, at most": self.bands * self.forest_of_a_band,
            "clusters, one label each": self.labels,
        }


def sorted_in(seconds: float, documents: int | float, more: int | float) -> float:
    """The time to sort `more` documents, where sorting `documents` takes `seconds`: n log n."""
    return seconds * (more * log2(more)) / (documents * log2(documents))
