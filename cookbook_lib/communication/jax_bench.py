"""Time and prove collectives in JAX: what each process of `cookbook bench comm` runs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.stages import Compiled

from cookbook_lib.communication.collectives import collective
from cookbook_lib.communication.jax_ops import compiled, given
from cookbook_lib.communication.jax_ranks import joined
from cookbook_lib.communication.member import Member
from cookbook_lib.communication.messages import WIDTH, counted
from cookbook_lib.communication.proof import Claim, ProofError, moved
from cookbook_lib.communication.ranks import Place
from cookbook_lib.communication.room import asked, shared, together
from cookbook_lib.communication.rows import Size, row, title, too_large
from cookbook_lib.communication.sampling import sampled

BESIDE = 2**26  # bytes: XLA's threads and its compiler take tens of MB


def sweep(
    member: Member,
    todo: list[list],
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
    told = {"backend": f"jax {device}", "where": where, "device": device}
    last: dict[str, Array] = {}

    def claims() -> Claim:
        return Claim(
            op=op,
            ranks=mesh.size,
            dtype=dtype,
            nbytes=size.nbytes,
            program=program.as_text(),
            outputs=rows_of(last["out"]),  # of the last call that was timed
            waited=last["out"].is_ready(),
            backend=device,
        )

    with shared(where, slowest, device):
        made = together(
            slowest,
            lambda: asked(size.nbytes, device),
            lambda: roomy(op, mesh, count, dtype),
        )
        if made is None:
            return too_large(size, **told)
        x, program = made

        def call() -> None:
            last["out"] = program(x)
            last["out"].block_until_ready()

        timing = sampled(call, lambda: None, meet, slowest, seconds)
        complaints = together(slowest, lambda: claims().complaints())
    if complaints is None:
        return too_large(size, **told)
    if complaints:
        raise ProofError("; ".join(complaints))
    found = sorted({f"{m.kind} {m.dtype}" for m in moved(program.as_text(), mesh.size)})
    return row(size, timing, ran=", ".join(found), **told)


def roomy(op: str, mesh: Mesh, count: int, dtype: str) -> tuple[Array, Compiled]:
    """What the ranks put in and the program, where there is room for what it needs.

    That is its temporary memory, two results, of which one is there while the next is made, and
    as much again as goes in, twice, for gloo and NCCL. XLA ends a process that runs out inside.
    """
    x = given(op, mesh, count, dtype)
    program = compiled(op, mesh, x)
    needs = program.memory_analysis()
    twice = needs.output_size_in_bytes + needs.argument_size_in_bytes
    n = needs.temp_size_in_bytes + 2 * twice + BESIDE
    jax.block_until_ready([jnp.zeros(n, jnp.int8, device=one) for one in mesh.local_devices])
    return x, program


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
