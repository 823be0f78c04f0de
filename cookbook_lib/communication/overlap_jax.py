"""How much of a collective compute hides in JAX: both in one program, which XLA schedules."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cookbook_lib.communication.jax_bench import barrier, slowest
from cookbook_lib.communication.jax_ranks import AXIS, joined
from cookbook_lib.communication.member import Member
from cookbook_lib.communication.overlap import WIDTH, balanced
from cookbook_lib.communication.proof import ProofError, moved
from cookbook_lib.communication.rounds import rounds


def overlap(
    member: Member, nbytes: int, repeats: int, device: str = "cpu", devices: int = 1
) -> dict:
    """Seconds of an all-reduce of float32 and of matrix products, alone, in turn and together.

    devices: of each process. `starts` says whether XLA split the all-reduce in a start and an end.
    """
    with joined(member, devices, device) as mesh:
        split, n = NamedSharding(mesh, P(AXIS)), mesh.size

        def spread(x: np.ndarray) -> Array:
            """One of x for each rank."""
            shape = (n, *x.shape)
            return jax.make_array_from_callback(shape, split, lambda index: x[None])

        def per_rank(function):
            spec = P(AXIS)
            return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec))

        x = spread(np.full(nbytes // 4, 1.0, np.float32))
        a = spread(np.roll(np.eye(WIDTH, dtype=np.float32), 1, 0))

        def power(a: Array, times: Array) -> Array:
            return lax.fori_loop(0, times[0], lambda _, y: y @ a[0], a[0])[None]

        def in_turn_of(x: Array, a: Array, times: Array) -> tuple[Array, Array]:
            total = lax.psum(x, AXIS)
            total, a = lax.optimization_barrier((total, a))  # the products wait for the sum
            return total, power(a, times)

        def together_of(x: Array, a: Array, times: Array) -> tuple[Array, Array]:
            return lax.psum(x, AXIS), power(a, times)

        meet = barrier(mesh)
        count = spread(np.array(1, np.int32)[()])
        sums = per_rank(lambda x: lax.psum(x, AXIS)).lower(x).compile()
        products = per_rank(power).lower(a, count).compile()
        turns = per_rank(in_turn_of).lower(x, a, count).compile()
        both = per_rank(together_of).lower(x, a, count).compile()
        for program in (sums, turns, both):
            if not moved(program.as_text(), n):
                raise ProofError("the compiled program holds no collective")

        def compute(times: int) -> None:
            products(a, spread(np.int32(times))).block_until_ready()

        with member.doing("timing an all_reduce and products", limit=10 * member.limit):
            times = balanced(lambda: sums(x).block_until_ready(), compute, meet, slowest)
            count = spread(np.int32(times))
            calls = {
                "communication": lambda: sums(x).block_until_ready(),
                "compute": lambda: products(a, count).block_until_ready(),
                "in turn": lambda: jax.block_until_ready(turns(x, a, count)),
                "together": lambda: jax.block_until_ready(both(x, a, count)),
            }
            timings = rounds(calls, meet, slowest, repeats)
            total, product = (y.addressable_shards[0].data for y in both(x, a, count))
        due = np.roll(np.eye(WIDTH), times + 1, 0)
        if not (jnp.all(total == n) and np.array_equal(product[0], due)):
            raise ProofError("a result beside the other is wrong")
    return {
        "backend": f"jax {device}",
        "products": times,
        "starts": "all-reduce-start" in both.as_text(),
        "seconds": {name: timing.json() for name, timing in timings.items()},
    }
