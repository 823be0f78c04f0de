"""The collectives in torch.distributed: one call each, on buffers made before the clock runs."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from cookbook_lib.communication.collectives import ROOT, collective
from cookbook_lib.communication.messages import inputs

DTYPES = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "int32": torch.int32,
}
IN_PLACE = ("all_reduce", "broadcast", "reduce")  # torch writes the result over the message
POISON = -1  # what a result holds before: no pattern has it


@dataclass
class Buffers:
    """What one rank puts in and gets, and what it must get: None where that is not defined."""

    rank: int
    ranks: int
    given: Tensor
    out: Tensor
    due: Tensor | None
    parts: list[Tensor] = field(default_factory=list)  # of the root, for scatter and gather

    def refill(self, name: str) -> None:
        """Before each call, off the clock: nothing of an earlier call may pass as its result."""
        if name in IN_PLACE:
            self.out.copy_(self.given)
        else:
            self.out.fill_(POISON)


def buffers(
    name: str, rank: int, ranks: int, count: int, dtype: str, device: torch.device
) -> Buffers:
    row, kind = collective(name), DTYPES[dtype]
    numbers = inputs(row, ranks, count, dtype)
    given = torch.from_numpy(row.puts(rank, ranks, numbers)).to(device, kind)
    due = row.gets(rank, ranks, numbers)
    due = None if due is None else torch.from_numpy(due).to(device, kind)
    out = torch.empty_like(given if due is None else due)
    found = Buffers(rank, ranks, given, out, due)
    if rank == ROOT and name in ("scatter", "gather"):
        found.parts = list((given if name == "scatter" else out).chunk(ranks))
    return found


def run(name: str, b: Buffers) -> None:
    """One collective, done when this returns; on a GPU, done when the current stream is."""
    STARTS[name](b)


def p2p(*moves: tuple[int, Tensor, int, Tensor]) -> None:
    """Post receives and sends, and wait for them: (to, what, from, where).

    Receives first: gloo announces each to its sender over the connection that a large message of
    its own may have filled by then, and the two directions would take turns.
    """
    works = [dist.P2POp(dist.irecv, where, source) for _, _, source, where in moves]
    works += [dist.P2POp(dist.isend, what, to) for to, what, _, _ in moves]
    for work in dist.batch_isend_irecv(works):
        work.wait()


def send(b: Buffers) -> None:
    if b.rank == 0:
        dist.send(b.given, b.ranks - 1)
    elif b.rank == b.ranks - 1:
        dist.recv(b.out, 0)


def exchange(b: Buffers) -> None:
    if b.rank in (0, b.ranks - 1):
        other = b.ranks - 1 - b.rank
        p2p((other, b.given, other, b.out))


def permute(b: Buffers) -> None:
    p2p(((b.rank + 1) % b.ranks, b.given, (b.rank - 1) % b.ranks, b.out))


def halo(b: Buffers) -> None:
    """Between two ranks messages arrive in the order in which they are sent: first half first."""
    before, after = (b.rank - 1) % b.ranks, (b.rank + 1) % b.ranks
    (first, second), (left, right) = b.given.chunk(2), b.out.chunk(2)
    p2p((before, first, after, right), (after, second, before, left))


STARTS: dict[str, Callable[[Buffers], object]] = {
    "all_reduce": lambda b: dist.all_reduce(b.out),
    "all_gather": lambda b: dist.all_gather_into_tensor(b.out, b.given),
    "reduce_scatter": lambda b: dist.reduce_scatter_tensor(b.out, b.given),
    "all_to_all": lambda b: dist.all_to_all_single(b.out, b.given),
    "broadcast": lambda b: dist.broadcast(b.out, ROOT),
    "reduce": lambda b: dist.reduce(b.out, ROOT),
    "scatter": lambda b: dist.scatter(b.out, b.parts or None, ROOT),
    "gather": lambda b: dist.gather(b.given, b.parts or None, ROOT),
    "send": send,
    "exchange": exchange,
    "permute": permute,
    "halo": halo,
}
