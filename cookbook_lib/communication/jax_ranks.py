"""JAX over the ranks: its processes joined by `jax.distributed`, gloo on CPUs, NCCL on GPUs."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import jax
from jax.sharding import Mesh

from cookbook_lib.communication.member import Member

AXIS = "ranks"  # of the mesh: one device after another


@contextmanager
def joined(member: Member, devices: int = 1, device: str = "cpu") -> Iterator[Mesh]:
    """A mesh of one axis over the devices of all ranks while this lasts.

    devices: of each process. On a CPU they are forced, so that one process can have several.
    """
    jax.config.update("jax_platforms", device)
    if device == "cpu":
        jax.config.update("jax_num_cpu_devices", devices)
    where, several = member.place, member.place.size > 1
    with member.doing("joining jax.distributed"):
        if several:
            if where.rank == 0:
                member.publish("coordinator", f"{address()}:{free_port()}")
            jax.distributed.initialize(
                member.lookup("coordinator"),
                where.size,
                where.rank,
                local_device_ids=None if device == "cpu" else [where.local_rank],
                initialization_timeout=max(1, int(member.limit)),
            )
        found = local_devices(device, devices)
    try:
        yield Mesh(found, (AXIS,))
    finally:
        if several:
            with suppress(Exception):  # a dead peer is told where it is missed
                jax.distributed.shutdown()


def local_devices(device: str, devices: int) -> list:
    try:
        found = jax.devices()
    except RuntimeError as error:
        raise ValueError(f"device is {device!r}, but JAX finds none: {error}") from None
    if len(jax.local_devices()) < devices:
        raise ValueError(
            f"devices is {devices}, but JAX finds {len(jax.local_devices())} of {device!r} here"
        )
    return found if jax.process_count() > 1 else found[:devices]


def address() -> str:
    """Of this host for the other ranks."""
    return os.environ.get("COOKBOOK_ADDRESS") or os.environ.get("MASTER_ADDR") or "127.0.0.1"


def free_port() -> int:
    """A port that nobody uses now, chosen by the system."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
