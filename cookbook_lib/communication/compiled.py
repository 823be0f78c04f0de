"""Many small sums as many calls, and as one program: what torch.compile and XLA make of it.

On GPUs also as a CUDA graph, which launches all of them at once.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch import Tensor

from cookbook_lib.communication.member import Member
from cookbook_lib.communication.proof import ProofError
from cookbook_lib.communication.rounds import rounds
from cookbook_lib.communication.seen import seen
from cookbook_lib.communication.torch_bench import barrier, slowest
from cookbook_lib.communication.torch_ranks import joined
from cookbook_lib.cuda_graphs import captured


def in_torch(
    member: Member, tensors: int, count: int, repeats: int, compiler: str = "aot_eager"
) -> list[dict]:
    """Seconds and messages of `tensors` sums of `count` numbers, eager and by torch.compile.

    compiler: a backend of torch.compile; "aot_eager" traces without making kernels.
    """
    with joined(member) as here:
        given = [torch.full((count,), float(i)) for i in range(tensors)]

        def sums(xs: list[Tensor]) -> list[Tensor]:
            return [functional.all_reduce(x, "sum", dist.group.WORLD) / 2 for x in xs]

        program = torch.compile(sums, backend=compiler, fullgraph=True)
        calls = {"eager": lambda: waited(sums(given)), "compiled": lambda: waited(program(given))}
        messages = {}
        for name, call in calls.items():
            with member.doing(f"{tensors} sums, {name}", limit=5 * member.limit):
                outputs = call()  # compiles
                messages[name] = [one.nbytes for one in seen(call)]
            due = member.place.size / 2
            if not all(torch.equal(y, x * due) for x, y in zip(given, outputs, strict=True)):
                raise ProofError(f"the {name} sums are wrong")
        with member.doing("timing both", limit=5 * member.limit):
            timings = rounds(calls, lambda: barrier(here), slowest(here), repeats)
    return [
        {"how": name, "messages": messages[name], "seconds": timings[name].json()} for name in calls
    ]


def waited(outputs: list[Tensor]) -> list[Tensor]:
    return [functional.wait_tensor(y) for y in outputs]


def in_jax(member: Member, tensors: int, count: int, repeats: int, devices: int = 1) -> list[dict]:
    """The same in JAX: a program for each sum, and one program for all, whose sums XLA combines."""
    import jax
    import numpy as np
    from jax import lax
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from cookbook_lib.communication import jax_bench
    from cookbook_lib.communication.jax_ranks import AXIS
    from cookbook_lib.communication.jax_ranks import joined as jax_joined
    from cookbook_lib.communication.proof import moved

    with jax_joined(member, devices) as mesh, member.doing("sums", limit=5 * member.limit):
        split, n = NamedSharding(mesh, P(AXIS)), mesh.size
        given = [
            jax.make_array_from_callback(
                (n, count), split, lambda _, i=i: np.full((1, count), i, np.float32)
            )
            for i in range(tensors)
        ]
        mapped = jax.shard_map(
            lambda xs: [lax.psum(x, AXIS) for x in xs],
            mesh=mesh,
            in_specs=P(AXIS),
            out_specs=P(AXIS),
        )
        one = jax.jit(mapped).lower(given[:1]).compile()
        all_of_them = jax.jit(mapped).lower(given).compile()
        calls = {
            "a program each": lambda: jax.block_until_ready([one([x])[0] for x in given]),
            "one program": lambda: jax.block_until_ready(all_of_them(given)),
        }
        for name, call in calls.items():
            for i, y in enumerate(call()):
                if not (np.asarray(y.addressable_shards[0].data) == n * i).all():
                    raise ProofError(f"the sums by {name} are wrong")
        found = {"a program each": moved(one.as_text(), n) * tensors}
        found["one program"] = moved(all_of_them.as_text(), n)
        timings = rounds(calls, jax_bench.barrier(mesh), jax_bench.slowest, repeats)
    return [
        {"how": name, "messages": [4 * m.numbers for m in found[name]]}
        | {"seconds": timings[name].json()}
        for name in calls
    ]


def why_no_graph() -> str | None:
    """Why a CUDA graph cannot be made here, or None."""
    if not torch.cuda.is_available():
        return "a CUDA graph needs a GPU, and PyTorch finds none"
    return None if dist.is_nccl_available() else "a CUDA graph of collectives needs NCCL"


def in_a_graph(member: Member, tensors: int, count: int, repeats: int) -> list[dict]:
    """Seconds of many small sums on GPUs, each launched by itself and all by one graph."""
    if reason := why_no_graph():
        raise ValueError(reason)
    with joined(member, "cuda") as here, member.doing("sums in a graph"):
        given = [torch.ones(count, device=here) for _ in range(tensors)]

        def sums() -> None:
            for x in given:
                x.fill_(1.0)
                dist.all_reduce(x)

        replay = captured(sums)

        def done(call: Callable[[], object]) -> Callable[[], None]:
            return lambda: (call(), torch.cuda.synchronize())[1]

        calls = {"launched one by one": done(sums), "one graph": done(replay)}
        timings = rounds(calls, lambda: barrier(here), slowest(here), repeats)
        if not all(bool((x == member.place.size).all()) for x in given):
            raise ProofError("the sums of a CUDA graph are wrong")
    return [{"how": name, "seconds": timings[name].json()} for name in calls]
