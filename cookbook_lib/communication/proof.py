"""Proof before printing: the collective is in the program, moves so much, and its result is right.

Each check returns complaints, in words; an empty list is a proof. None of them looks at a clock.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

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


# the names that torch's profiler records, behind "gloo:" or "nccl:"
TRACED: Mapping[str, tuple[str, ...]] = {
    "all_reduce": ("all_reduce",),
    "all_gather": ("all_gather", "_all_gather_base"),
    "reduce_scatter": ("reduce_scatter", "_reduce_scatter_base"),
    "all_to_all": ("all_to_all",),
    "broadcast": ("broadcast",),
    "reduce": ("reduce",),
    "scatter": ("scatter",),
    "gather": ("gather",),
}


class Traced(NamedTuple):
    """An event of a process group in torch's profile: its name and the numbers of its inputs."""

    backend: str
    name: str
    numbers: int


def traced(events: Iterable[Any]) -> list[Traced]:
    """What the process groups did, from `torch.profiler.profile(record_shapes=True).events()`."""
    found = []
    for event in events:
        backend, _, name = event.name.partition(":")
        if backend in ("gloo", "nccl"):
            numbers = sum(prod(shape) for shape in event.input_shapes or [] if shape)
            found.append(Traced(backend, name.split()[0], numbers))
    return found


def about_trace(op: str, found: list[Traced], backend: str, sent: int, got: int) -> list[str]:
    """Whether one rank did what `op` claims, and with so many numbers.

    sent and got: numbers that this rank sends and gets in point-to-point operations, or puts into
    a collective; 0 if it has no part in it. NCCL fuses several sends into one event, "coalesced".
    """
    runs = collective(op).runs.get(backend, op)
    names = [t.name for t in found]
    if runs in TRACED:
        match = [t for t in found if t.name in TRACED[runs]]
        due = {"collective": (sent, match)}
    else:
        due = {
            "send": (sent, [t for t in found if t.name.startswith(("send", "coalesced"))]),
            "recv": (got, [t for t in found if t.name.startswith(("recv", "coalesced"))]),
        }
    complaints = []
    for what, (numbers, match) in due.items():
        if numbers and not match:
            said = ", ".join(names) or "nothing"
            complaints.append(f"the profile of {op} shows no {what} of {runs}: {said}")
        seen = sum(t.numbers for t in match)
        if backend == "gloo" and match and seen != numbers:
            complaints.append(f"{op} must move {numbers:,} numbers; {what} has {seen:,}")
    return complaints
