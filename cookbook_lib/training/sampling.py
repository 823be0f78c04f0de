"""Batches that follow a plan's mixture to the sequence, on any number of ranks, from any place.

Which source comes next is decided by its deadline: with a share w, its sequence c (from 0) may be
drawn from time c / w on and is due at (c + 1) / w. Taking the earliest deadline among those that
may be drawn never misses one, so that after n sequences each source has w * n to within one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np

from cookbook_lib.data.streams import Stream
from cookbook_lib.training.phases import Plan
from cookbook_lib.training.schedules import Number

IGNORE = -100  # torch's cross_entropy leaves these out


@dataclass(frozen=True)
class Batch:
    """Sequences of one rank. tokens, targets, documents: (b, l); sources: (b), into `names`.

    targets: the next token, or IGNORE where it belongs to another document.
    documents: number of the document within its sequence: `seq_idx` of the models.
    """

    tokens: np.ndarray
    targets: np.ndarray
    documents: np.ndarray
    sources: np.ndarray


def packed(read: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, ...]:
    """Tokens, targets and documents of sequences as a `Stream` gives them."""
    ids, documents = (np.stack(part) for part in zip(*read, strict=True))
    targets = np.where(documents[:, 1:] == documents[:, :-1], ids[:, 1:], IGNORE)
    return ids[:, :-1], targets, documents[:, :-1]


def whole(mix: Mapping[str, Number]) -> tuple[dict[str, int], int]:
    """Weights as whole numbers in the same proportions, and their sum: 0.6 means three fifths."""
    parts = {s: Fraction(str(w)) for s, w in mix.items() if w}
    scale = lcm(*(p.denominator for p in parts.values()))
    weights = {s: int(p * scale) for s, p in parts.items()}
    return weights, sum(weights.values())


def due(weights: Mapping[str, int], total: int, counts: Mapping[str, int], n: int) -> str:
    """The source of sequence n, when `counts` of each were drawn before."""
    ready = (s for s, w in weights.items() if counts.get(s, 0) * total // w <= n)
    return min(ready, key=lambda s: -(-(counts.get(s, 0) + 1) * total // weights[s]))


class Sampler:
    """The sequences of a run in their order.

    `state()` is a small dictionary of plain numbers, `load` goes on from it, also with another
    number of ranks: all ranks walk the same order and each reads its own part of it.
    """

    def __init__(
        self,
        plan: Plan,
        sources: Mapping[str, Sequence[str | Path]],
        length: int,
        seed: int = 0,
    ):
        """sources: shards of each source, without their endings."""
        if missing := [s for s in plan.sources if s not in sources]:
            raise ValueError(f"source {missing[0]} of {plan.name} has no shards")
        self.plan, self.length, self.seed = plan, length, seed
        self.names = plan.sources
        self.streams = {s: Stream(s, sources[s], length, seed) for s in self.names}
        self.drawn = 0  # sequences so far
        self.counts = dict.fromkeys(self.names, 0)
        self.phase, self.in_phase = 0, dict.fromkeys(self.names, 0)

    def advance(self) -> tuple[str, int]:
        """Source and number of the next sequence, which counts as drawn."""
        index = self.plan.index(self.drawn * self.length)  # by the sequence's first token
        if index != self.phase:
            self.phase, self.in_phase = index, dict.fromkeys(self.names, 0)
        weights, total = whole(self.plan.phases[index].mix)
        source = due(weights, total, self.in_phase, sum(self.in_phase.values()))
        number = self.counts[source]
        self.counts[source] += 1
        self.in_phase[source] += 1
        self.drawn += 1
        return source, number

    def draw(self, sequences: int, rank: int = 0, ranks: int = 1) -> Batch:
        """This rank's part of the next `sequences`: one in `ranks`, from number `rank` on."""
        if sequences % ranks:
            raise ValueError(f"sequences is {sequences}, expected a multiple of ranks ({ranks})")
        mine = [self.advance() for _ in range(sequences)][rank::ranks]
        read = [self.streams[source][number] for source, number in mine]
        return Batch(*packed(read), sources=np.array([self.names.index(s) for s, _ in mine]))

    def epochs(self) -> dict[str, float]:
        """How often each source was read so far."""
        return {s: self.streams[s].epochs(n) for s, n in self.counts.items()}

    def state(self) -> dict[str, Any]:
        return {
            "drawn": self.drawn,
            "counts": dict(self.counts),
            "phase": self.phase,
            "in_phase": dict(self.in_phase),
            "length": self.length,
            "seed": self.seed,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. `ValueError` if it is of another length or seed."""
        for name in ("length", "seed"):
            if state[name] != (mine := getattr(self, name)):
                raise ValueError(f"{name} of the sampler's state is {state[name]}, expected {mine}")
        self.drawn, self.phase = state["drawn"], state["phase"]
        self.counts = {s: state["counts"].get(s, 0) for s in self.names}
        self.in_phase = {s: state["in_phase"].get(s, 0) for s in self.names}
