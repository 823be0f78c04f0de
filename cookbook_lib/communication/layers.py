"""Which layer is slow? The same sum of the same bytes, from memory and links up to a training step.

Each layer is measured, and compared with the layer that it stands on by one rule.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from cookbook_lib.communication.collectives import collective
from cookbook_lib.communication.member import Member
from cookbook_lib.communication.micro import Row, taken
from cookbook_lib.communication.rounds import rounds
from cookbook_lib.communication.torch_bench import barrier, slowest
from cookbook_lib.communication.torch_ranks import joined

LITTLE, SLOW = 1.25, 2.0  # times the layer below: the rule of `verdict`


class Layer(NamedTuple):
    """Seconds of one layer with an interval, and the name of the layer that it stands on."""

    name: str
    what: str
    seconds: float
    low: float
    high: float
    below: str | None = None


def layer(name: str, what: str, seconds: dict[str, Any], below: str | None = None) -> Layer:
    """From what a row holds under "seconds": a median with its interval, or OSU's mean."""
    middle = seconds.get("median", seconds.get("mean"))
    low = seconds.get("low", seconds.get("least", middle))
    high = seconds.get("high", seconds.get("most", middle))
    return Layer(name, what, middle, min(low, middle), max(high, middle), below)


def verdict(one: Layer, below: Layer) -> str:
    """One word on a layer: its seconds over those of the layer below, unless noise hides it.

    Noise hides it if the ratio may lie on both sides of a limit: the two intervals say how far.
    """
    words = []
    for ratio in (one.low / below.high, one.seconds / below.seconds, one.high / below.low):
        words.append("slow" if ratio > SLOW else "some" if ratio > LITTLE else "little")
    if words[0] != words[2]:
        return f"{words[1]}, noisy"
    return words[1]


def walk(layers: Iterable[Layer]) -> list[dict[str, Any]]:
    """The table: each layer with its ratio to the one below and the verdict; see `slowest_of`."""
    known: dict[str, Layer] = {}
    rows = []
    for one in layers:
        row = {"layer": one.name, "what": one.what, "seconds": one.seconds}
        if one.below is not None:
            if one.below not in known:
                raise ValueError(
                    f"{one.name} stands on {one.below!r}, expected one of {', '.join(known)}"
                )
            below = known[one.below]
            row |= {"below": one.below, "ratio": one.seconds / below.seconds}
            row |= {"adds": one.seconds - below.seconds, "verdict": verdict(one, below)}
        known[one.name] = one
        rows.append(row)
    return rows


def slowest_of(rows: list[dict[str, Any]]) -> str:
    """The layer that adds the most seconds to the one below: what to look at first."""
    return max((row for row in rows if "adds" in row), key=lambda row: row["adds"])["layer"]


def over(micro: Iterable[Row], rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Overhead for each size that both have: seconds of `rows` beyond those of `micro`."""
    below = {(row["op"], row["ranks"], row["nbytes"]): taken(row) for row in micro}
    found = []
    for row in rows:
        if (key := (row["op"], row["ranks"], row["nbytes"])) in below:
            seconds, least = taken(row), below[key]
            sizes = {"op": key[0], "ranks": key[1], "nbytes": key[2], "backend": row["backend"]}
            found.append(
                sizes
                | {"below": least, "seconds": seconds}
                | {"overhead": seconds - least, "ratio": seconds / least}
            )
    return found


def memory(member: Member, op: str, nbytes: int, repeats: int, device: str = "cpu") -> dict:
    """Seconds to copy what the busiest link must carry, once, in all ranks at the same time.

    The least that ranks which share one memory can do: read the bytes and write them.
    """
    count = max(1, round(collective(op).bus(member.place.size) * nbytes / 4))
    with joined(member, device) as here:
        source, target = torch.ones(count, device=here), torch.zeros(count, device=here)

        def copy() -> None:
            target.copy_(source)
            if here.type == "cuda":
                torch.cuda.synchronize()

        with member.doing("copying through memory", limit=10 * member.limit):
            timing = rounds({"copy": copy}, lambda: barrier(here), slowest(here), repeats)["copy"]
    return {"nbytes": 4 * count, "seconds": timing.json()}
