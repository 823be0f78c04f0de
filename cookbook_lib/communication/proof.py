"""Proof before printing: the collective is in the program, moves so much, and its result is right.

Each check returns complaints, in words; an empty list is a proof. None of them looks at a clock.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from cookbook_lib.communication.collectives import COLLECTIVES, collective, wire
from cookbook_lib.communication.messages import WIDTH, counted, inputs

HLO = {  # what XLA calls them, https://openxla.org/xla/operation_semantics
    "all-reduce": "all_reduce",
    "all-gather": "all_gather",
    "reduce-scatter": "reduce_scatter",
    "all-to-all": "all_to_all",
    "collective-broadcast": "broadcast",
    "collective-permute": "permute",
}
INSTRUCTION = re.compile(rf"= (.*?) ({'|'.join(HLO)})(-start)?\((.*)")
SHAPE = re.compile(r"([a-z]+\d+)\[([\d,]*)\]")
PAIRS = re.compile(r"source_target_pairs=\{\{(.*?)\}\}")


class ProofError(RuntimeError):
    """A measurement that is not what it claims to be."""


class Moved(NamedTuple):
    """One collective of a program: of a message of so many numbers, as XLA runs it."""

    kind: str
    dtype: str
    numbers: int
    total: float  # numbers that all ranks send


def moved(program: str, ranks: int) -> list[Moved]:
    """The collectives in a compiled program's text."""
    found = []
    for line in program.splitlines():
        if match := INSTRUCTION.search(line):
            shapes = [
                (kind, prod(map(int, filter(None, dims.split(",")))))
                for kind, dims in SHAPE.findall(match[1])
            ]
            kind, numbers = HLO[match[2]], sum(n for _, n in shapes)
            if match[3]:  # a start's type holds operands and results
                numbers = max(n for _, n in shapes)
            if kind == "reduce_scatter":
                numbers *= ranks  # its result is one part
            total = COLLECTIVES[kind].total(ranks) * numbers
            if pairs := PAIRS.search(match[4]):
                total = (1 + pairs[1].count("},{")) * numbers
            found.append(Moved(kind, shapes[0][0], numbers, total))
    return found


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a benchmark in JAX says that it timed, and what there is to judge it by.

    outputs: rank -> what it got. waited: whether the clock stopped when these were done.
    """

    op: str
    ranks: int
    dtype: str
    nbytes: int
    program: str
    outputs: Mapping[int, np.ndarray]
    waited: bool
    backend: str = "cpu"

    def complaints(self) -> list[str]:
        return [*self.about_program(), *self.about_waiting(), *self.about_result()]

    def about_program(self) -> list[str]:
        count, found = self.nbytes // WIDTH[self.dtype], moved(self.program, self.ranks)
        if not found:
            return [f"the compiled program of {self.op} holds no collective"]
        total, due = sum(m.total for m in found), wire(self.op, self.ranks, self.backend) * count
        if total != due:
            kinds = ", ".join(sorted({m.kind for m in found}))
            return [
                f"{self.op} of {count:,} numbers must send {due:,.0f} in all, and the compiled "
                f"program's {kinds} sends {total:,.0f}, {total / due:g} times as many"
            ]
        return []

    def about_waiting(self) -> list[str]:
        return [] if self.waited else [f"the clock did not wait for the result of {self.op}"]

    def about_result(self) -> list[str]:
        row = collective(self.op)
        count = counted(row, self.ranks, self.nbytes, self.dtype)
        numbers = inputs(row, self.ranks, count, self.dtype)
        found = []
        for rank, output in self.outputs.items():
            due = row.gets(rank, self.ranks, numbers)
            found += [] if due is None else different(rank, output.ravel(), due)
        more = f", and {len(found) - 1} more ranks have wrong ones" if len(found) > 1 else ""
        return [found[0] + more] if found else []


def different(rank: int, got: np.ndarray, due: np.ndarray) -> list[str]:
    """How a rank's numbers differ from those due."""
    if got.shape != due.shape:
        return [f"rank {rank} has {got.size:,} numbers, due are {due.size:,}"]
    wrong = np.flatnonzero(got.astype(np.float32) != due)
    if not len(wrong):
        return []
    i = wrong[0]
    return [
        f"rank {rank} has {len(wrong):,} wrong numbers of {due.size:,}: "
        f"the one at {i} is {got[i]:g}, due is {due[i]:g}"
    ]
