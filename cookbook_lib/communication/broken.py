"""Four public benchmarks that do not measure what they print, written anew with the same mistakes.

Three are those of Zyphra/zcookbook, benchmarks/communication at ec06304, with `pmap` replaced by
`shard_map`; the fourth is EleutherAI/cookbook, benchmarks/communication at 827ee3b, with
`--async-op`. Each makes the claim that the original prints; `Claim.complaints` says what is wrong.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch
import torch.distributed as dist
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from cookbook_lib.communication.jax_bench import rows_of
from cookbook_lib.communication.jax_ops import given
from cookbook_lib.communication.jax_ranks import AXIS, joined
from cookbook_lib.communication.member import Member
from cookbook_lib.communication.proof import Claim, ProofError
from cookbook_lib.communication.torch_bench import prove_result
from cookbook_lib.communication.torch_ops import buffers
from cookbook_lib.communication.torch_ranks import joined as torch_joined


# Each device repeats its own first number: `lax.broadcast` makes a shape and sends nothing.
def broadcast(mesh: Mesh, count: int) -> Claim:
    """The first device's message on all devices."""
    x = given("broadcast", mesh, count, "fp32")
    program = built(lambda x: lax.broadcast(x[0, 0], (1, mesh.size)), mesh, x)
    result = program(x)
    result.block_until_ready()
    return claimed("broadcast", mesh, x, program, x.nbytes, result, waited_for=result)


# The clock waits for what the warm-up left in `result`.
def pt2pt(mesh: Mesh, count: int) -> Claim:
    """Two devices swap messages."""
    x = given("exchange", mesh, count, "fp32")

    def send_recv(x: Array) -> Array:
        there, back = lax.ppermute(x, AXIS, [(0, 1)]), lax.ppermute(x, AXIS, [(1, 0)])
        return jnp.where(lax.axis_index(AXIS) == 0, back, there)

    program = built(send_recv, mesh, x)
    result = program(x)
    result.block_until_ready()
    timed = program(x)
    result.block_until_ready()
    return claimed("exchange", mesh, x, program, x.nbytes, timed, waited_for=result)


# The mean, not the sum; and the size is that of the array over all devices, not of one.
def all_reduce(mesh: Mesh, count: int) -> Claim:
    """The sum of all devices' messages on all of them."""
    x = given("all_reduce", mesh, count, "fp32")
    program = built(lambda x: lax.pmean(x, AXIS), mesh, x)
    result = program(x)
    result.block_until_ready()
    return claimed("all_reduce", mesh, x, program, x.nbytes, result, waited_for=result)


def built(operation: Callable[[Array], Array], mesh: Mesh, x: Array) -> jax.stages.Compiled:
    mapped = jax.shard_map(operation, mesh=mesh, in_specs=P(AXIS), out_specs=P(AXIS))
    return jax.jit(mapped).lower(x).compile()


def claimed(
    op: str,
    mesh: Mesh,
    x: Array,
    program: jax.stages.Compiled,
    nbytes: int,
    timed: Array,
    waited_for: Array,
) -> Claim:
    return Claim(
        op=op,
        ranks=mesh.size,
        dtype="fp32",
        nbytes=nbytes,
        program=program.as_text(),
        outputs=rows_of(timed),
        waited=waited_for is timed,
    )


def judged(member: Member, devices: int, count: int) -> dict[str, list[str]]:
    """The complaints about the three, from one process with so many devices."""
    with joined(member, devices) as mesh:
        pair = Mesh(mesh.devices[:2], (AXIS,))
        claims = broadcast(mesh, count), pt2pt(pair, count), all_reduce(mesh, count)
        return {claim.op: claim.complaints() for claim in claims}


def dropped_handle(member: Member, count: int, late: float) -> dict[str, Any]:
    """An asynchronous all-reduce whose handle nobody keeps: the clock stops when it has begun.

    The last rank comes `late` seconds late. No all-reduce can be done before it comes.
    """
    place = member.place
    with torch_joined(member) as device, member.doing("all_reduce without a handle"):
        b = buffers("all_reduce", place.rank, place.size, count, "fp32", device)
        b.refill("all_reduce")
        dist.barrier()
        if place.rank == place.size - 1:
            time.sleep(late)
        start = time.perf_counter()
        work = dist.all_reduce(b.out, async_op=True)
        seconds = time.perf_counter() - start
        try:
            prove_result(b)
            complaint = ""
        except ProofError as error:
            complaint = str(error)
        work.wait()  # so that this process can end
        torch.testing.assert_close(b.out, b.due)
        return {"seconds": seconds, "complaint": complaint}
