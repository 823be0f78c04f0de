"""What the ranks of tests/test_communication_launch.py run: functions that a process can import."""

import os
import signal
import threading
import time

from cookbook_lib.communication.member import Member


def where(member: Member, factor: int) -> list:
    place = member.place
    for i in range(3):
        member.emit({"i": i, "from": place.rank})
    return [place.rank * factor, place.size, place.local_rank, place.launcher]


def torch_sums(member: Member, victim: int = -1, how: str = "", limit: float | None = None) -> None:
    """All-reduces without end; the victim signals itself in the middle of them."""
    import torch
    import torch.distributed as dist

    from cookbook_lib.communication.torch_ranks import joined

    with joined(member):
        x = torch.ones(1024)
        endless(member, victim, how, limit, lambda: dist.all_reduce(x))


def jax_sums(member: Member, victim: int = -1, how: str = "", limit: float | None = None) -> None:
    import jax
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from cookbook_lib.communication.jax_ranks import AXIS, joined

    with joined(member) as mesh:
        split = NamedSharding(mesh, P(AXIS))
        x = jax.make_array_from_callback((mesh.size,), split, lambda _: jax.numpy.ones(1))
        add = jax.jit(
            jax.shard_map(
                lambda x: jax.lax.psum(x, AXIS), mesh=mesh, in_specs=P(AXIS), out_specs=P(AXIS)
            )
        )
        endless(member, victim, how, limit, lambda: add(x).block_until_ready())


def endless(member: Member, victim: int, how: str, limit: float | None, operation) -> None:
    with member.doing("a first all_reduce"):
        operation()
    with member.doing("all_reduce of 4 KiB", limit):
        if member.place.rank == victim:
            number = getattr(signal, how)
            threading.Timer(0.2, os.kill, [os.getpid(), number]).start()
        while True:
            operation()


def late(member: Member, limit: float) -> None:
    """Rank 1 never comes to the collective that rank 0 waits in."""
    import torch
    import torch.distributed as dist

    from cookbook_lib.communication.torch_ranks import joined

    with joined(member):
        if member.place.rank == 1:
            time.sleep(100)
        with member.doing("all_reduce of 4 KiB", limit):
            dist.all_reduce(torch.ones(1))


def wrong(member: Member, error: str) -> None:
    """Rank 1 fails while the others wait for it: they fail too, as an echo."""
    import torch
    import torch.distributed as dist

    from cookbook_lib.communication.torch_ranks import joined

    with joined(member), member.doing("a reduce"):
        if member.place.rank == 1:
            raise {"ValueError": ValueError, "KeyError": KeyError}[error]("x is 3, expected 4")
        dist.all_reduce(torch.ones(1))


def sleeping(member: Member, folder: str) -> None:
    with member.doing("sleeping"):
        (path := os.path.join(folder, f"{member.place.rank}.draft"))
        with open(path, "w") as file:
            file.write(str(os.getpid()))
        os.rename(path, path.replace(".draft", ".pid"))
        time.sleep(100)


def short_of_memory(member: Member, backend: str, victim: int, spare: int, **rest) -> list:
    """A sweep of `bench comm`: after its first row one rank may take only `spare` bytes more."""
    import resource
    from importlib import import_module

    emit = member.emit

    def limiting(row) -> None:
        emit(row)
        if member.place.rank == victim and member.emit is limiting:
            with open("/proc/self/status") as file:
                sizes = [line.split()[1] for line in file if line.startswith("VmSize:")]
            resource.setrlimit(resource.RLIMIT_AS, (int(sizes[0]) * 1024 + spare,) * 2)
            member.emit = emit

    member.emit = limiting
    bench = import_module(f"cookbook_lib.communication.{backend}_bench")
    return bench.sweep(member, device="cpu", seconds=1e-6, **rest)
