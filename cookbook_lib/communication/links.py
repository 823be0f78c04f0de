"""Links of a known rate between ranks of one machine: two tiers, as in a cluster.

Each rank has a namespace with one interface. Ranks of a node hang on a bridge; the nodes' bridges
hang on a spine by one uplink each, whose rate may differ. Needs Linux, root, `ip` and `tc`:
`missing` says what is not there. Nothing stays behind, even if the process that made the links is
killed.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cookbook_lib.communication.launch import Seat
from cookbook_lib.communication.namespaces import counter, ip, join, keeper, remove, resolve, sweep

SUBNET = "10.199.0"  # of namespaces that see nothing else


@dataclass(frozen=True, kw_only=True)
class Network:
    """Ranks in namespaces: `seats` for `launch`, rank by rank, and counters of their interfaces."""

    seats: tuple[Seat, ...]
    spaces: tuple[str, ...]  # namespaces of the ranks
    switch: str  # namespace of the bridges
    nodes: int

    def sent(self) -> list[int]:
        """Bytes that each rank has put on its link so far, headers of Ethernet, IP and TCP too."""
        return [counter(space, "wire", "tx") for space in self.spaces]

    def received(self) -> list[int]:
        """Bytes that each rank has got over its link so far, headers included."""
        return [counter(space, "wire", "rx") for space in self.spaces]

    def uplinks(self) -> list[int]:
        """Bytes that each node has sent to other nodes; empty if there is one node."""
        several = self.nodes if self.nodes > 1 else 0
        return [counter(self.switch, f"up{i}", "tx") for i in range(several)]


@contextmanager
def network(
    ranks: int,
    rate: float,
    nodes: int = 1,
    uplink: float | None = None,
    delay: float = 0.0,
) -> Iterator[Network]:
    """Namespaces for `ranks` ranks in `nodes` nodes of equally many, while this lasts.

    rate: bytes/s of each rank's link, each way. uplink: of each node to the spine; `rate` if None.
    delay: seconds that the link of a rank, or the uplink of a node, adds one way; needs the
    kernel's netem. Rates count Ethernet frames, so TCP's payload gets some 5% less.
    `ValueError` if this machine cannot, and names what is missing.
    """
    if ranks < 1 or nodes < 1 or ranks % nodes:
        raise ValueError(f"ranks are {ranks} in {nodes} nodes, expected equal parts")
    if ranks > 250:
        raise ValueError(f"ranks are {ranks}, expected 250 at most: addresses of one subnet")
    if reason := missing():
        raise ValueError(f"links with a known rate cannot be made here: {reason}")
    sweep()
    mine = f"cookbook-{os.getpid()}"
    switch, spaces = f"{mine}-switch", tuple(f"{mine}-rank{r}" for r in range(ranks))
    watch = keeper(*spaces, switch)
    try:
        for space in (switch, *spaces):
            ip("netns", "add", space)
        for node in range(nodes):
            ip("-n", switch, "link", "add", f"node{node}", "up", "type", "bridge")
        if nodes > 1:
            ip("-n", switch, "link", "add", "spine", "up", "type", "bridge")
        for node in range(nodes if nodes > 1 else 0):
            ends = (switch, f"up{node}"), (switch, f"down{node}")
            join(*ends, rate if uplink is None else uplink, delay)
            ip("-n", switch, "link", "set", f"up{node}", "master", f"node{node}")
            ip("-n", switch, "link", "set", f"down{node}", "master", "spine")
        for rank, space in enumerate(spaces):
            join((space, "wire"), (switch, f"port{rank}"), rate, delay)
            node = rank // (ranks // nodes)
            ip("-n", switch, "link", "set", f"port{rank}", "master", f"node{node}")
            ip("-n", space, "addr", "add", f"{SUBNET}.{rank + 1}/24", "dev", "wire")
            ip("-n", space, "link", "set", "lo", "up")
            resolve(space, f"{SUBNET}.{rank + 1}")
        seats = tuple(
            seat(space, f"{SUBNET}.{r + 1}", r % (ranks // nodes), ranks // nodes)
            for r, space in enumerate(spaces)
        )
        yield Network(seats=seats, spaces=spaces, switch=switch, nodes=nodes)
    finally:
        watch.communicate()  # closes its input, and waits until all is gone


def seat(space: str, address: str, local: int, beside: int) -> Seat:
    """Rank `local` of `beside` ranks of its node."""
    env = {
        "GLOO_SOCKET_IFNAME": "wire",
        "NCCL_SOCKET_IFNAME": "wire",
        "COOKBOOK_LOCAL_RANK": str(local),
        "COOKBOOK_LOCAL_SIZE": str(beside),
    }
    return Seat(prefix=("ip", "netns", "exec", space), env=env, address=address)


def missing() -> str | None:
    """What this machine lacks to make links, or None."""
    if sys.platform != "linux":
        return "it needs Linux"
    if os.geteuid():
        return "it needs root"
    if lacking := [tool for tool in ("ip", "tc") if not shutil.which(tool)]:
        return f"it needs {' and '.join(lacking)}, of the package iproute2"
    probe = f"cookbook-{os.getpid()}-probe"
    try:
        ip("netns", "add", probe)
        join((probe, "wire"), (probe, "port"), 1e8, 0.0)
    except ValueError as error:
        return str(error)
    finally:
        remove(probe)
    return None
