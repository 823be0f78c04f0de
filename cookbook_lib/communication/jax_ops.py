"""The collectives in JAX: one function each, which every rank runs on its own part of an array.

A rank's part has the shape (1, m): rank r holds row r. Every rank runs the same program, so a
result that only the root should have comes out everywhere, with zeros where nothing arrived.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cookbook_lib.communication.collectives import ROOT, collective
from cookbook_lib.communication.jax_ranks import AXIS
from cookbook_lib.communication.messages import inputs

DTYPES = {"bf16": jnp.bfloat16, "fp16": jnp.float16, "fp32": jnp.float32, "int32": jnp.int32}


def broadcast(x: Array, n: int) -> Array:
    """On a GPU a broadcast of its own; XLA has none for CPUs, where the others add zeros."""
    if jax.default_backend() == "gpu":
        return lax.pbroadcast(x, AXIS, ROOT)
    return lax.psum(jnp.where(lax.axis_index(AXIS) == ROOT, x, jnp.zeros_like(x)), AXIS)


def moved(x: Array, *pairs: tuple[int, int]) -> Array:
    """Point to point, (from, to); zeros at ranks that get nothing."""
    return lax.ppermute(x, AXIS, pairs)


def scatter(x: Array, n: int) -> Array:
    """The root sends each rank its part, one after the other."""
    parts = jnp.split(x, n, axis=1)
    mine = jnp.where(lax.axis_index(AXIS) == ROOT, parts[ROOT], jnp.zeros_like(parts[ROOT]))
    return mine + sum(moved(parts[q], (ROOT, q)) for q in range(n) if q != ROOT)


def gather(x: Array, n: int) -> Array:
    """Each rank sends the root its part, one after the other."""
    parts = [x if q == ROOT else moved(x, (q, ROOT)) for q in range(n)]
    return jnp.concatenate(parts, axis=1)


def halo(x: Array, n: int) -> Array:
    first, second = jnp.split(x, 2, axis=1)
    left = moved(second, *((q, (q + 1) % n) for q in range(n)))
    right = moved(first, *((q, (q - 1) % n) for q in range(n)))
    return jnp.concatenate([left, right], axis=1)


OPS: dict[str, Callable[[Array, int], Array]] = {
    "all_reduce": lambda x, n: lax.psum(x, AXIS),
    "all_gather": lambda x, n: lax.all_gather(x, AXIS, axis=1, tiled=True),
    "reduce_scatter": lambda x, n: lax.psum_scatter(x, AXIS, scatter_dimension=1, tiled=True),
    "all_to_all": lambda x, n: lax.all_to_all(x, AXIS, 1, 1, tiled=True),
    "broadcast": broadcast,
    "reduce": lambda x, n: lax.psum(x, AXIS),
    "scatter": scatter,
    "gather": gather,
    "send": lambda x, n: moved(x, (0, n - 1)),
    "exchange": lambda x, n: moved(x, (0, n - 1), (n - 1, 0)),
    "permute": lambda x, n: moved(x, *((q, (q + 1) % n) for q in range(n))),
    "halo": halo,
}


def compiled(name: str, mesh: Mesh, x: Array) -> jax.stages.Compiled:
    """The collective of this name as a program for arrays like `x`."""
    n, operation = mesh.size, OPS[name]
    mapped = jax.shard_map(
        lambda part: operation(part, n),
        mesh=mesh,
        in_specs=P(AXIS),
        out_specs=P(AXIS),
        check_vma=False,
    )
    return jax.jit(mapped).lower(x).compile()


def given(name: str, mesh: Mesh, count: int, dtype: str) -> Array:
    """What the ranks put in: row r is that of rank r."""
    row = collective(name)
    numbers = inputs(row, mesh.size, count, dtype)

    def part(index: tuple[slice, ...]) -> np.ndarray:
        rank = index[0].start or 0
        return row.puts(rank, mesh.size, numbers)[None].astype(DTYPES[dtype])

    first = row.puts(0, mesh.size, numbers)
    return jax.make_array_from_callback((mesh.size, len(first)), NamedSharding(mesh, P(AXIS)), part)
