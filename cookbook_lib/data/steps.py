"""What a pipeline consists of: sources, filters, and the ways to find duplicates; and presets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cookbook_lib.data.banding import Banding, choose
from cookbook_lib.data.filters.base import Filter, FilterSet, Page
from cookbook_lib.data.filters.c4 import c4
from cookbook_lib.data.filters.fineweb import fineweb
from cookbook_lib.data.filters.gopher import gopher
from cookbook_lib.data.filters.zyda import zyda

FILTERS = {
    "zyda": zyda,
    "c4": c4,
    "c4-any-line": partial(c4, ended=False),
    "gopher": lambda words: gopher(),
    "fineweb": lambda words: fineweb(),
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where documents come from; of duplicates, the source that is named first keeps its own.

    An unfiltered source passes all filters as it is, as StarCoder does in Zyda.
    """

    name: str
    paths: tuple[str, ...]
    text: str = "text"  # the field that holds the text
    id: str = "id"
    filtered: bool = True


@dataclass(frozen=True, kw_only=True)
class Filters:
    """The filters of one preset, with other bounds where `bounds` says so."""

    preset: str
    bounds: Mapping[str, Any] = field(default_factory=dict)
    words: str | None = None  # a folder of word lists

    def filters(self) -> FilterSet:
        if self.preset not in FILTERS:
            raise ValueError(f"preset is {self.preset!r}, expected one of {', '.join(FILTERS)}")
        folder = Path(self.words) if self.words else None
        return FILTERS[self.preset](folder).bounded(self.bounds)


@dataclass(frozen=True, kw_only=True)
class Score:
    """Keeps what a field of the record says is good: the place of a classifier's verdict."""

    field: str
    least: int | float

    def filters(self) -> FilterSet:
        def score(page: Page) -> int | float:
            value = page.record.get(self.field)
            return value if isinstance(value, int | float) else float("-inf")

        return FilterSet(filters=(Filter(name=self.field, feature=score, least=self.least),))


@dataclass(frozen=True, kw_only=True)
class Exact:
    """Drops documents whose text was there before."""

    across: bool = False  # only of a lesser source than the one that keeps it


@dataclass(frozen=True, kw_only=True)
class Url:
    """Drops documents whose address was there before, whatever its scheme and fragment."""

    field: str = "url"
    across: bool = False


@dataclass(frozen=True, kw_only=True)
class MinHash:
    """Drops documents that share most of their n-grams; 0 bands: chosen for the threshold."""

    threshold: int | float = 0.8
    ngram: int = 13
    kind: Literal["words", "characters"] = "words"
    permutations: int = 128
    bands: int = 0
    rows: int = 0
    verify: Literal["none", "signature", "exact"] = "exact"
    margin: int | float = 0.0  # deviations that a signature may lie below the threshold
    clusters: Literal["chains", "stars"] = "chains"  # stars: each is like the one that stays
    across: bool = False
    seed: int = 0

    def banding(self) -> Banding:
        if self.margin < 0:
            raise ValueError(f"margin is {self.margin}, expected 0 or more deviations")
        if not (self.bands or self.rows):
            return choose(self.threshold, self.permutations)
        if not 0 < self.bands * self.rows <= self.permutations:
            raise ValueError(
                f"bands x rows is {self.bands} x {self.rows}, "
                f"expected both, and at most {self.permutations} permutations"
            )
        return Banding(self.bands, self.rows)


@dataclass(frozen=True, kw_only=True)
class Substring:
    """Cuts passages of at least `length` bytes that occur earlier.

    It holds all texts in memory, about 40 bytes for each of theirs, and refuses more than `most`.
    """

    length: int = 200  # about the 50 tokens of arXiv:2107.06499, section 4.1
    most: int = 200_000_000  # bytes of text


FilterStep = Filters | Score
Step = FilterStep | Exact | Url | MinHash | Substring
STEPS = {
    "filters": Filters,
    "score": Score,
    "exact": Exact,
    "url": Url,
    "minhash": MinHash,
    "substring": Substring,
}
PRESETS: dict[str, tuple[Step, ...]] = {
    "zyda": (  # arXiv:2406.01981, section 3; bands and rows as in run_lsh_dupes_0.4_all.sh
        Filters(preset="zyda"),
        MinHash(threshold=0.4, bands=32, rows=4, verify="none"),
    ),
    "zyda-2": (  # arXiv:2411.06068, section 3: across sources only, 25 characters, 8 x 16
        Exact(across=True),
        MinHash(
            threshold=0.85,
            ngram=25,
            kind="characters",
            bands=8,
            rows=16,
            verify="none",
            across=True,
        ),
    ),
    "c4": (Filters(preset="c4"), Exact()),
    "gopher": (Filters(preset="gopher"), Exact(), MinHash(threshold=0.8)),  # arXiv:2112.11446, A.1
    "fineweb": (  # datatrove's examples/fineweb.py
        Filters(preset="gopher"),
        Filters(preset="c4-any-line"),
        Filters(preset="fineweb"),
        MinHash(threshold=0.75, ngram=5, permutations=112, bands=14, rows=8, verify="none"),
    ),
}


def steps_of(preset: str) -> tuple[Step, ...]:
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}, expected one of {', '.join(PRESETS)}")
    return PRESETS[preset]
