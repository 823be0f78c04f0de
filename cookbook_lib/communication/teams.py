"""How many ranks a benchmark of collectives has, in how many processes."""

from typing import NamedTuple

from cookbook_lib.communication.ranks import Place
from cookbook_lib.communication.rows import device_names


class Team(NamedTuple):
    ranks: int
    processes: int


def team_of(
    backend: str, device: str, devices: int | None, processes: int | None, where: Place
) -> Team:
    """How many ranks in how many processes; `ValueError` if that cannot be."""
    launched = where.size > 1
    if launched and processes not in (None, where.size):
        raise ValueError(f"processes is {processes}, but {where.launcher} started {where.size}")
    processes = where.size if launched else processes
    ranks = devices or processes or 2
    processes = processes or (ranks if backend == "torch" else 1)
    if ranks < 2:
        raise ValueError(f"devices is {ranks}, expected 2 or more: they talk to each other")
    if processes < 1 or ranks % processes or (backend == "torch" and processes != ranks):
        kind = "the same number" if backend == "torch" else "one that divides it"
        raise ValueError(f"processes is {processes} for {ranks} devices, expected {kind}")
    here = ranks // processes * (where.local_size if launched else processes)
    if device == "cuda" and (found := len(device_names(device))) < here:
        raise ValueError(f"devices is {ranks}, but this host has {found} GPUs for {here} of them")
    return Team(ranks, processes)
