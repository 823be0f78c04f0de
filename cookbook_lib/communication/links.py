"""Links of a known rate between ranks of one machine: network namespaces, veth pairs, `tc tbf`.

Each rank has a namespace with one interface. Ranks of a node hang on a bridge; the nodes' bridges
hang on a spine by one uplink each, whose rate may differ: two tiers, as in a cluster. Needs Linux,
root, `ip` and `tc`: `missing` says what is not there. Nothing stays behind, even if the process
that made the links is killed.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cookbook_lib.communication.launch import Seat

NAME = re.compile(r"cookbook-(\d+)-\w+")  # of a namespace: the process that made it, and what it is
BURST = 5e-4  # seconds of a link's rate that may pass at once after a pause: what a timer can keep
FRAMES = 2 * 1514  # bytes: it must hold a frame of Ethernet
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


def counter(space: str, interface: str, way: str) -> int:
    path = f"/sys/class/net/{interface}/statistics/{way}_bytes"
    return int(ip("netns", "exec", space, "cat", path))


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


def keeper(*spaces: str) -> subprocess.Popen:
    """A process that removes the namespaces once its input ends: as this one closes it or dies.

    In a session of its own, so that what kills this process and its children leaves it alone.
    """
    script = 'cat; for s; do ip netns del "$s"; rm -rf "/etc/netns/$s"; done'
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = ["sh", "-c", script, "keeper", *spaces]
    return subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True, **quiet)


def join(one: tuple[str, str], other: tuple[str, str], rate: float, delay: float) -> None:
    """A pair of interfaces, each (namespace, name), that sends `rate` bytes/s each way."""
    peer = ("peer", "name", other[1], "netns", other[0])
    ip("-n", one[0], "link", "add", "name", one[1], "type", "veth", *peer)
    for space, name in (one, other):
        shape(space, name, rate, delay)
        ip("-n", space, "link", "set", name, "up")


def shape(space: str, interface: str, rate: float, delay: float = 0.0) -> None:
    """Limit what an interface sends to `rate` bytes/s, and delay it by `delay` seconds."""
    parent = ["root"]
    if delay:
        tc(space, interface, "root", "handle", "1:", "netem", "delay", f"{delay * 1e6:.0f}us")
        parent = ["parent", "1:1"]
    burst = max(FRAMES, int(BURST * rate))
    queue = max(2**20, int(0.05 * rate))  # bytes that wait: 50 ms, or the start of many flows
    limits = ["rate", f"{rate * 8:.0f}bit", "burst", f"{burst}", "limit", f"{queue}"]
    tc(space, interface, *parent, "tbf", *limits)


def seat(space: str, address: str, local: int, beside: int) -> Seat:
    """Rank `local` of `beside` ranks of its node."""
    env = {
        "GLOO_SOCKET_IFNAME": "wire",
        "NCCL_SOCKET_IFNAME": "wire",
        "COOKBOOK_LOCAL_RANK": str(local),
        "COOKBOOK_LOCAL_SIZE": str(beside),
    }
    return Seat(prefix=("ip", "netns", "exec", space), env=env, address=address)


def resolve(space: str, address: str) -> None:
    """Let this host's name mean `address` in the namespace: JAX's gloo listens where it points.

    `ip netns exec` lays files of /etc/netns/NAME over those of /etc: ip-netns(8).
    """
    folder = Path("/etc/netns", space)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{address} {socket.gethostname()}\n")


def remove(space: str) -> None:
    """Remove a namespace and what belongs to it, as far as it is there."""
    subprocess.run(["ip", "netns", "del", space], capture_output=True)
    shutil.rmtree(Path("/etc/netns", space), ignore_errors=True)


def sweep() -> None:
    """Remove the namespaces of processes that are gone, if their keepers were killed too."""
    listed = json.loads(ip("-j", "netns", "list") or "[]")
    kept = {path.name for path in Path("/etc/netns").glob("cookbook-*")}
    for name in {space["name"] for space in listed} | kept:
        if (found := NAME.fullmatch(name)) and not Path("/proc", found[1]).exists():
            remove(name)


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


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"ip {' '.join(words)} failed: {' '.join(done.stderr.split())}")
    return done.stdout


def tc(space: str, interface: str, *words: str) -> None:
    ip("netns", "exec", space, "tc", "qdisc", "add", "dev", interface, *words)
