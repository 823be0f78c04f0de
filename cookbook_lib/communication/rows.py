"""One measured collective as one line of JSON, with its bandwidths by NCCL's definitions."""

import subprocess
from dataclasses import asdict, dataclass
from typing import Any

from cookbook_lib.commands.output import nbytes as bytes_for_people
from cookbook_lib.communication.collectives import collective
from cookbook_lib.communication.ranks import Place, hosts
from cookbook_lib.free_memory import NO_MEMORY
from cookbook_lib.measuring import Timing, cpu_name
from cookbook_lib.results import origin


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is timed: a collective over so many ranks of a message of so many bytes."""

    op: str
    ranks: int
    dtype: str
    nbytes: int


def title(op: str, nbytes: int) -> str:
    """How an error names it."""
    return f"{op} of {bytes_for_people(nbytes)}"


def bandwidths(op: str, ranks: int, nbytes: int, seconds: float) -> tuple[float, float]:
    """algbw and busbw, bytes/s: size over time, and that times the factor of the collective."""
    return nbytes / seconds, nbytes / seconds * collective(op).bus(ranks)


def device_names(device: str) -> list[str]:
    """Of the devices of this host: its CPU, or each of its GPUs, as its maker prints it."""
    if device == "cpu":
        return [cpu_name()]
    ask = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True)
        names = [] if done.returncode else done.stdout.splitlines()
    except FileNotFoundError:
        names = []
    if not names:
        raise ValueError(
            f"device is {device!r}, but nvidia-smi finds no GPU here: expected one for each rank, "
            "or --device cpu"
        )
    return [name.strip() for name in names]


def row(
    size: Size, timing: Timing, *, backend: str, ran: str, where: Place, device: str
) -> dict[str, Any]:
    """`checked` is written when all proofs have passed, so it is never False.

    ran: what the compiled program or the profile shows; it may differ from what was asked for.
    """
    algbw, busbw = bandwidths(size.op, size.ranks, size.nbytes, timing.median)
    measured = {"seconds": timing.json(), "algbw": algbw, "busbw": busbw}
    return of(size, measured | {"checked": True, "ran": ran}, backend, where, device)


def too_large(size: Size, *, backend: str, where: Place, device: str) -> dict[str, Any]:
    """The row of a size that a rank has no memory for."""
    return of(size, {"outcome": NO_MEMORY}, backend, where, device)


def of(
    size: Size, found: dict[str, Any], backend: str, where: Place, device: str
) -> dict[str, Any]:
    return {
        **asdict(size),
        "backend": backend,
        "processes": where.size,
        "nodes": hosts(where),
        **found,
        "device": device_names(device)[0],
        **origin(backend.split()[:1]),
    }
