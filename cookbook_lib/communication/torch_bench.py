"""Time and prove collectives in torch.distributed: what each rank of `cookbook bench comm` runs."""

from typing import Any

import torch
import torch.distributed as dist

from cookbook_lib.communication.collectives import ROOT, collective
from cookbook_lib.communication.member import Member
from cookbook_lib.communication.messages import WIDTH, counted
from cookbook_lib.communication.proof import ProofError, different
from cookbook_lib.communication.ranks import Place
from cookbook_lib.communication.room import asked, shared, together
from cookbook_lib.communication.rows import Size, row, title, too_large
from cookbook_lib.communication.sampling import sampled
from cookbook_lib.communication.seen import about_trace, seen
from cookbook_lib.communication.torch_ops import Buffers, buffers, run
from cookbook_lib.communication.torch_ranks import GROUPS, joined


def sweep(
    member: Member, todo: list[list], dtype: str, device: str, seconds: float
) -> list[dict[str, Any]]:
    """A row for each (op, nbytes) of `todo`; rank 0 emits each as it comes."""
    rows = []
    with joined(member, device) as here:
        for op, nbytes in todo:
            with member.doing(title(op, nbytes)):
                found = measure(op, nbytes, dtype, here, member, seconds)
            rows.append(found)
            member.emit(found)
    return rows


def measure(
    op: str, nbytes: int, dtype: str, device: torch.device, member: Member, seconds: float
) -> dict[str, Any]:
    place, worst, backend = member.place, slowest(device), f"torch {GROUPS[device.type]}"
    count = counted(collective(op), place.size, nbytes, dtype)
    size = Size(op=op, ranks=place.size, dtype=dtype, nbytes=count * WIDTH[dtype])
    with shared(place, worst, device.type):
        b = together(
            worst,
            lambda: asked(size.nbytes, device.type),
            lambda: roomy(op, place, count, dtype, device),
        )
        if b is None:
            return too_large(size, backend=backend, where=place, device=device.type)
        ran = prove_trace(op, b, device)
        timing = sampled(
            lambda: call(op, b), lambda: b.refill(op), lambda: barrier(device), worst, seconds
        )
        prove_result(b)  # of the last call that was timed, as the clock left it
    return row(size, timing, backend=backend, ran=ran, where=place, device=device.type)


def roomy(op: str, place: Place, count: int, dtype: str, device: torch.device) -> Buffers:
    """The buffers of a rank, where gloo or NCCL can take as much again, and from two calls."""
    found = buffers(op, place.rank, place.size, count, dtype, device)
    spare = [torch.empty_like(x) for x in 2 * (found.given, found.out)]
    del spare
    return found


def call(op: str, b: Buffers) -> None:
    run(op, b)
    if b.out.is_cuda:
        torch.cuda.synchronize()


def barrier(device: torch.device) -> None:
    dist.barrier()
    if device.type == "cuda":
        torch.cuda.synchronize()


def slowest(device: torch.device):
    def of(seconds: list[float]) -> list[float]:
        times = torch.tensor(seconds, dtype=torch.float64, device=device)
        dist.all_reduce(times, dist.ReduceOp.MAX)
        return times.tolist()

    return of


def prove_trace(op: str, b: Buffers, device: torch.device) -> str:
    """What the profiler saw this rank do; `ProofError` if that is not the collective."""
    b.refill(op)
    call(op, b)  # makes the connections
    b.refill(op)
    events = seen(lambda: call(op, b), device.type)
    sends, gets = moves(op, b)
    if complaints := about_trace(op, events, GROUPS[device.type], sends, gets):
        raise ProofError("; ".join(complaints))
    prove_result(b)
    return ", ".join(sorted({f"{t.backend}:{t.kind}" for t in events}))


def moves(op: str, b: Buffers) -> tuple[int, int]:
    """Numbers that this rank puts into the collective, or sends and gets point to point."""
    has_part = {"send": (b.rank == 0, b.rank == b.ranks - 1)}.get(op, (b.due is not None,) * 2)
    if op == "scatter":
        return b.given.numel() if b.rank == ROOT else 0, 0
    if op in ("reduce", "gather"):
        return b.given.numel(), 0
    return b.given.numel() * has_part[0], b.out.numel() * has_part[1]


def prove_result(b: Buffers) -> None:
    if b.due is not None and not torch.equal(b.out, b.due):
        got, due = (x.float().cpu().numpy() for x in (b.out, b.due))
        raise ProofError("; ".join(different(b.rank, got, due)))
