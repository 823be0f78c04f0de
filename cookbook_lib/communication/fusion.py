"""Many small tensors as a few large messages: flat buckets, filled as torch's DDP fills its own.

A rank's gradients are summed one by one, all at once, or in buckets of a size; and by DDP itself.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cookbook_lib.communication.member import Member
from cookbook_lib.communication.proof import ProofError
from cookbook_lib.communication.rounds import rounds
from cookbook_lib.communication.seen import seen
from cookbook_lib.communication.torch_bench import barrier, slowest
from cookbook_lib.communication.torch_ranks import joined
from cookbook_lib.measuring import Timing

FIRST = 2**20  # bytes of DDP's first bucket: torch.distributed._DEFAULT_FIRST_BUCKET_BYTES, 2.13


def packed(sizes: Sequence[int], cap: int, first: int | None = None) -> list[list[int]]:
    """Numbers of the tensors in each bucket, from the last to the first, as gradients are ready.

    sizes: bytes. A bucket is full when it has reached `cap` bytes, so it may hold more; the first
    has a `cap` of its own. DDP's rule: compute_bucket_assignment_by_size of torch's reducer.cpp.
    """
    if cap < 1 or (first is not None and first < 1):
        raise ValueError(f"cap is {cap} and first {first}, expected bytes, 1 or more")
    buckets: list[list[int]] = []
    held, limit = 0, cap if first is None else first
    for i in reversed(range(len(sizes))):
        if not held:
            buckets.append([])
        buckets[-1].append(i)
        held += sizes[i]
        if held >= limit:
            held, limit = 0, cap
    return buckets


class Flat:
    """Buckets that are made once, and filled and emptied in every step."""

    def __init__(self, tensors: list[Tensor], cap: int):
        sizes = [t.numel() * t.element_size() for t in tensors]
        self.groups = [[tensors[i] for i in bucket] for bucket in packed(sizes, cap)]
        self.buffers = [torch.empty_like(torch.cat([t.flatten() for t in g])) for g in self.groups]
        self.views = [
            [part.view_as(t) for part, t in zip(b.split([t.numel() for t in g]), g, strict=True)]
            for b, g in zip(self.buffers, self.groups, strict=True)
        ]

    def fill(self) -> None:
        for views, group in zip(self.views, self.groups, strict=True):
            torch._foreach_copy_(views, group)

    def empty(self) -> None:
        for views, group in zip(self.views, self.groups, strict=True):
            torch._foreach_copy_(group, views)

    def sum(self) -> None:
        """In place, in every tensor: the sum over the ranks."""
        self.fill()
        for work in [dist.all_reduce(b, async_op=True) for b in self.buffers]:
            work.wait()
        self.empty()


def one_by_one(tensors: list[Tensor]) -> None:
    for tensor in tensors:
        dist.all_reduce(tensor)


def all_at_once(tensors: list[Tensor]) -> None:
    for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
        work.wait()


def bucket_sweep(
    member: Member, sizes: list[int], caps: list[int], repeats: int, device: str = "cpu"
) -> list[dict]:
    """Seconds to sum tensors of `sizes` float32 numbers: one by one, all at once, in buckets.

    caps: bytes of a bucket. Every way is proved: the trace shows its messages, the sums are right.
    "copies" is only filling and emptying the buckets of the last cap.
    """
    with joined(member, device) as here:
        numbers = [torch.arange(n, device=here, dtype=torch.float32) % 61 for n in sizes]
        tensors = [x * (member.place.rank + 1) for x in numbers]
        total = member.place.size * (member.place.size + 1) // 2
        flats = {cap: Flat(tensors, cap) for cap in caps}
        calls = {
            "one by one": lambda: one_by_one(tensors),
            "all at once": lambda: all_at_once(tensors),
            **{f"buckets of {cap}": flat.sum for cap, flat in flats.items()},
            "copies": both(flats[caps[-1]]),
        }

        def meet() -> None:
            for tensor, x in zip(tensors, numbers, strict=True):
                torch.mul(x, member.place.rank + 1, out=tensor)
            barrier(here)

        messages = {}
        for name, call in calls.items():
            with member.doing(f"summing {len(sizes)} tensors, {name}"):
                meet()
                messages[name] = [one.nbytes for one in seen(call)] if device == "cpu" else []
            if name != "copies":
                for tensor, x in zip(tensors, numbers, strict=True):
                    if not torch.equal(tensor, x * total):
                        raise ProofError(f"the sums of {name} are wrong")
        with member.doing(f"timing {len(calls)} ways", limit=10 * member.limit):
            timings = rounds(calls, meet, slowest(here), repeats)
        return [
            {"how": name, "messages": messages[name], "seconds": timings[name].json()}
            for name in calls
        ]


def both(flat: Flat):
    """Only the copies, to see what they cost: nothing is summed."""

    def copies() -> None:
        flat.fill()
        flat.empty()

    return copies


class Squares(nn.Module):
    """Parameters of given sizes that are their own gradients: much to sum for little compute."""

    def __init__(self, sizes: Sequence[int]):
        super().__init__()
        self.parts = nn.ParameterList(torch.full((n,), 1.0) for n in sizes)

    def forward(self, x: Tensor) -> Tensor:
        return sum((x * p.square().sum() for p in self.parts), x.new_zeros(()))


def ddp_step(member: Member, sizes: list[int], caps: list[float], repeats: int) -> list[dict]:
    """A backward pass under DDP, by `bucket_cap_mb`: its buckets as a hook sees them, its seconds.

    adds: round by round, what a pass takes beyond one that does not sum (`no_sync`). caps: in MiB,
    as DDP takes them.
    """
    rows = []
    with joined(member) as here:
        for cap in caps:
            ddp = DistributedDataParallel(Squares(sizes), bucket_cap_mb=cap)
            buckets: list[int] = []

            def hook(state, bucket, buckets=buckets):
                buckets.append(bucket.buffer().numel() * bucket.buffer().element_size())
                grads = bucket.buffer() / dist.get_world_size()
                work = dist.all_reduce(grads, async_op=True)
                return work.get_future().then(lambda done: done.value()[0])

            def run(ddp=ddp) -> None:
                ddp.zero_grad()
                ddp(torch.ones(())).backward()

            def alone(ddp=ddp, run=run) -> None:
                with ddp.no_sync():
                    run()

            with member.doing(f"DDP with buckets of {cap:g} MiB", limit=10 * member.limit):
                timings = rounds(
                    {"together": run, "alone": alone}, lambda: barrier(here), slowest(here), repeats
                )
                ddp.register_comm_hook(None, hook)
                run()
                right = all(torch.equal(p.grad, 2 * p) for p in ddp.parameters())
            if not right:
                raise ProofError("DDP's gradients are wrong")
            pairs = zip(timings["together"].samples, timings["alone"].samples, strict=True)
            more = [max(a - b, 1e-9) for a, b in pairs]
            seconds = {name: timing.json() for name, timing in timings.items()}
            adds = Timing(samples=more, cold=more[0]).json()
            rows.append({"cap": cap, "buckets": buckets, "seconds": seconds, "adds": adds})
    return rows
