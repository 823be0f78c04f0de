"""The links that a benchmark asks for by its flags: rates of two tiers, or whatever there is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from cookbook_lib.communication.launch import Seat
from cookbook_lib.communication.links import network
from cookbook_lib.communication.ranks import Place, hosts
from cookbook_lib.communication.sizes import parse


class Wires(NamedTuple):
    """What a row says of its links; rate and uplink are bytes/s, None if nothing limits them."""

    nodes: int
    rate: int | None
    uplink: int | None


def wires_of(
    nodes: int, rate: str | None, uplink: str | None, where: Place, processes: int
) -> Wires:
    """From the flags; `ValueError` if they cannot be."""
    if not rate and (nodes > 1 or uplink):
        raise ValueError(f"nodes is {nodes} without a rate, expected --rate, such as 50M")
    if not rate:
        return Wires(hosts(where), None, None)
    if where.size > 1:
        raise ValueError(f"rate is given, but {where.launcher} has started the ranks: run it alone")
    if processes < 2:
        raise ValueError("rate is given, but all devices are in one process: they have no links")
    return Wires(nodes, parse("rate", rate), parse("uplink", uplink) if uplink else None)


@contextmanager
def laid(asked: Wires, processes: int) -> Iterator[Sequence[Seat]]:
    """Seats of so many ranks at links of these rates; none if no rate is asked for, or no rank."""
    if not (asked.rate and processes):
        yield ()
        return
    far = None if asked.uplink is None else float(asked.uplink)
    with network(processes, float(asked.rate), asked.nodes, far) as net:
        yield net.seats
