"""What a filter is: a feature of a document, and the bounds outside which it is dropped."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from typing import Any, Literal

import numpy as np

Verdict = Literal[True] | tuple[Literal[False], str]


@dataclass
class Page:
    """A document as filters see it; what several of them need is computed once."""

    text: str  # as it will be kept
    raw: str  # as it was read, before any edit
    record: Mapping[str, Any] = field(default_factory=dict)  # its other fields

    @cached_property
    def words(self) -> list[str]:
        return self.text.split()

    @cached_property
    def ends(self) -> np.ndarray:
        """How many characters the words have up to each of them, from 0 for none."""
        return np.cumsum([0, *map(len, self.words)])

    @cached_property
    def plain(self) -> bytes:
        return " ".join(self.words).encode("utf-8", "surrogatepass")

    @cached_property
    def lines(self) -> list[str]:
        return [line for line in self.text.split("\n") if line.strip()]


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Drops a document whose feature is below `least` or above `most`; both bounds are kept."""

    name: str
    feature: Callable[[Page], int | float]
    least: int | float = -inf
    most: int | float = inf

    def __call__(self, page: Page) -> Verdict:
        value = self.feature(page)
        if value < self.least:
            return False, f"{self.name} is {value:.4g}, below {self.least:g}"
        if value > self.most:
            return False, f"{self.name} is {value:.4g}, above {self.most:g}"
        return True


@dataclass(frozen=True, kw_only=True)
class FilterSet:
    """Filters in their order, and the edit that comes before them."""

    filters: tuple[Filter, ...]
    edit: Callable[[str], str] | None = None

    def page(self, text: str, record: Mapping[str, Any] | None = None) -> Page:
        return Page(self.edit(text) if self.edit else text, text, record or {})

    def judge(self, page: Page) -> tuple[str, str] | None:
        """None if all filters say True, else the first that does not, and why."""
        for one in self.filters:
            if (verdict := one(page)) is not True:
                return one.name, verdict[1]
        return None

    def bounded(self, bounds: Mapping[str, Any]) -> "FilterSet":
        """The same filters with other bounds: `least_NAME` or `most_NAME`."""
        filters = {one.name: one for one in self.filters}
        for key, value in bounds.items():
            side, _, name = key.partition("_")
            one = filters.get(name)
            if one is None or side not in ("least", "most") or abs(getattr(one, side)) == inf:
                known = [
                    f"{side}_{f.name}"
                    for f in self.filters
                    for side in ("least", "most")
                    if abs(getattr(f, side)) < inf
                ]
                raise ValueError(f"no bound is called {key!r}, expected one of {', '.join(known)}")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{key} is {value!r}, expected a number")
            filters[name] = replace(one, **{side: value})
        return replace(self, filters=tuple(filters.values()))
