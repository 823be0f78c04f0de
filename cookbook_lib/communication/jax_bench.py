"""Time and prove collectives in JAX: what each process of `cookbook bench comm` runs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from cookbook_lib.communication.collectives import collective
from cookbook_lib.communication.jax_ops import compiled, given
from cookbook_lib.communication.jax_ranks import joined
from cookbook_lib.communication.member import Member
from cookbook_lib.communication.messages import WIDTH, counted
from cookbook_lib.communication.proof import Claim, ProofError, moved
from cookbook_lib.communication.ranks import Place
from cookbook_lib.communication.rows import Size, row, title
from cookbook_lib.communication.sampling import sampled


def sweep(
    member: Member,
    todo: list[tuple[str, int]],
    dtype: str,
    device: str,
    seconds: float,
    devices: int = 1,
) -> list[dict[str, Any]]:
    """A row for each (op, nbytes) of `todo`; rank 0 emits each as it comes.

    devices: of each process.
    """
    rows = []
    with joined(member, devices, device) as mesh:
        meet = barrier(mesh)
        for op, nbytes in todo:
            with member.doing(title(op, nbytes)):
                found = measure(op, nbytes, dtype, device, mesh, meet, member.place, seconds)
            rows.append(found)
            member.emit(found)
    return rows


def measure(
    op: str,
    nbytes: int,
    dtype: str,
    device: str,
    mesh: Mesh,
    meet: Callable[[], None],
    where: Place,
    seconds: float,
) -> dict[str, Any]:
    count = counted(collective(op), mesh.size, nbytes, dtype)
    size = Size(op=op, ranks=mesh.size, dtype=dtype, nbytes=count * WIDTH[dtype])
    x = given(op, mesh, count, dtype)
    program = compiled(op, mesh, x)
    last: dict[str, Array] = {}

    def call() -> None:
        last["out"] = program(x)
        last["out"].block_until_ready()

    timing = sampled(call, lambda: None, meet, slowest, seconds)
    claim = Claim(
        op=op,
        ranks=mesh.size,
        dtype=dtype,
        nbytes=size.nbytes,
        program=program.as_text(),
        outputs=rows_of(last["out"]),  # of the last call that was timed
        waited=last["out"].is_ready(),
        backend=device,
    )
    if complaints := claim.complaints():
        raise ProofError("; ".join(complaints))
    found = sorted({f"{m.kind} {m.dtype}" for m in moved(claim.program, mesh.size)})
    return row(
        size,
        timing,
        backend=f"jax {device}",
        ran=", ".join(found),
        where=where,
        device=device,
    )


def rows_of(out: Array) -> dict[int, np.ndarray]:
    """Rank -> what it has, of the ranks of this process."""
    shards = out.addressable_shards
    return {
        (s.index[0].start or 0) * out.sharding.mesh.size // out.shape[0]: np.asarray(s.data)
        for s in shards
    }


def barrier(mesh: Mesh) -> Callable[[], None]:
    """All processes meet: a sum over all ranks of one number."""
    x = given("all_reduce", mesh, 1, "int32")
    program = compiled("all_reduce", mesh, x)

    def meet() -> None:
        program(x).block_until_ready()

    return meet


def slowest(seconds: list[float]) -> list[float]:
    """Of the processes; one process times all its devices at once."""
    if jax.process_count() == 1:
        return seconds
    with jax.enable_x64(True):
        return multihost_utils.process_allgather(jnp.array(seconds)).max(axis=0).tolist()
