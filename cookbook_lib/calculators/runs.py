"""The run that costs are counted for, and the names that its options and dtypes may have."""

from collections.abc import Iterable
from dataclasses import dataclass

BITS = {"fp64": 64, "fp32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "fp4": 4, "int4": 4}
CHOICES = {
    "attention": ("dense", "causal"),
    "scan": ("chunked", "recurrent"),
    "logits": ("all", "last"),
}


def choose(field: str, value: str, supported: Iterable[str]) -> str:
    """The value, if it is one of those supported; `ValueError` otherwise."""
    if value not in (supported := list(supported)):
        raise ValueError(f"{field} is {value!r}, expected one of {', '.join(supported)}")
    return value


@dataclass(frozen=True, kw_only=True)
class Run:
    """What runs, and the conventions by which its FLOPs are counted.

    `s` counts the tokens each sequence holds, the `l` new ones included; None means `l`.
    `attention`: dense multiplies every query with every key held, causal only with those it sees.
    `scan`: the SSM in chunks (training, prefill) or as the recurrence; one token always recurs.
    `logits`: for all `l` positions or for the last.
    """

    b: int = 1
    l: int = 1
    s: int | None = None
    attention: str = "dense"
    scan: str = "chunked"
    logits: str = "all"

    def __post_init__(self):
        if self.s is None:
            object.__setattr__(self, "s", self.l)
        for axis in ("b", "l", "s"):
            if type(value := getattr(self, axis)) is not int or value < 1:
                raise ValueError(f"{axis} is {value!r}, expected a whole number above 0")
        if self.s < self.l:
            raise ValueError(f"s is {self.s}, expected at least l ({self.l}): it counts those too")
        for field, supported in CHOICES.items():
            choose(field, getattr(self, field), supported)
