"""How much of a collective compute hides in torch: an asynchronous handle, waited for late."""

import torch
import torch.distributed as dist
from torch import Tensor

from cookbook_lib.communication.member import Member
from cookbook_lib.communication.overlap import WIDTH, balanced
from cookbook_lib.communication.proof import ProofError
from cookbook_lib.communication.rounds import rounds
from cookbook_lib.communication.torch_bench import barrier, slowest
from cookbook_lib.communication.torch_ranks import joined


def overlap(member: Member, nbytes: int, repeats: int, device: str = "cpu") -> dict:
    """Seconds of an all-reduce of float32 and of matrix products, alone, in turn and together."""
    place = member.place
    with joined(member, device) as here:
        x = torch.ones(nbytes // 4, device=here)
        a = torch.eye(WIDTH, device=here).roll(1, 0)

        def communicate() -> None:
            x.fill_(place.rank + 1)
            dist.all_reduce(x)
            done(here)

        def compute(times: int) -> Tensor:
            y = a
            for _ in range(times):
                y = y @ a
            return y

        def timed(times: int) -> None:
            compute(times)
            done(here)

        def in_turn(times: int) -> None:
            x.fill_(place.rank + 1)
            dist.all_reduce(x)
            compute(times)
            done(here)

        def together(times: int) -> None:
            x.fill_(place.rank + 1)
            work = dist.all_reduce(x, async_op=True)
            compute(times)
            work.wait()
            done(here)

        def meet() -> None:
            barrier(here)

        with member.doing("timing an all_reduce and products", limit=10 * member.limit):
            times = balanced(communicate, timed, meet, slowest(here))
            calls = {
                "communication": communicate,
                "compute": lambda: timed(times),
                "in turn": lambda: in_turn(times),
                "together": lambda: together(times),
            }
            timings = rounds(calls, meet, slowest(here), repeats)
            x.zero_()
            together(times)
        if not bool((x == place.size * (place.size + 1) // 2).all()):
            raise ProofError("the sum of an all_reduce beside compute is wrong")
        if not torch.equal(compute(times), torch.eye(WIDTH, device=here).roll(times + 1, 0)):
            raise ProofError("the product beside an all_reduce is wrong")
    backend = "torch nccl" if device == "cuda" else "torch gloo"
    return {"backend": backend, "products": times} | {
        "seconds": {name: timing.json() for name, timing in timings.items()}
    }


def done(here: torch.device) -> None:
    if here.type == "cuda":
        torch.cuda.synchronize()


def launched(member: Member, nbytes: int, repeats: int) -> dict:
    """Seconds until an asynchronous all-reduce has been launched, and until its result is there."""
    place, works = member.place, []
    with joined(member) as here, member.doing("an asynchronous all_reduce"):
        x = torch.ones(nbytes // 4)

        def launch_only() -> None:
            works.append(dist.all_reduce(x, async_op=True))

        def meet() -> None:  # off the clock: what was launched is waited for
            while works:
                works.pop().wait()
            x.fill_(place.rank + 1)
            barrier(here)

        calls = {"launched": launch_only, "done": lambda: dist.all_reduce(x)}
        timings = rounds(calls, meet, slowest(here), repeats)
        meet()
    return {name: timing.json() for name, timing in timings.items()}
