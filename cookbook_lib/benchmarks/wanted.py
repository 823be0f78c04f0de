"""What a part of `make gpu` gives: its cases, and how one of them becomes a row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

NOTHING = "nothing ran"  # an outcome that leaves no row
Case = dict[str, Any]  # what tells a row from the others of its file


class Here(NamedTuple):
    """Where it runs. `tiny`: a rehearsal, whose sizes only show that everything runs."""

    device: str
    name: str
    tiny: bool


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The cases in the order in which they matter; `run` gives the rest of a case's row."""

    cases: list[Case]
    run: Callable[[Case], dict[str, Any]]
