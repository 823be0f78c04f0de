"""Network namespaces of Linux, and pairs of interfaces between them whose rate is known.

By `ip` and `tc` of iproute2, as root: veth pairs, limited by `tc tbf`. Namespaces carry the id of
the process that made them, so that those of one that is gone can be found.
"""

import json
import re
import shutil
import socket
import subprocess
from pathlib import Path

NAME = re.compile(r"cookbook-(\d+)-\w+")  # of a namespace: the process that made it, and what it is
BURST = 5e-4  # seconds of a link's rate that may pass at once after a pause: what a timer can keep
FRAMES = 2 * 1514  # bytes: it must hold a frame of Ethernet


def ip(*words: str) -> str:
    """What `ip` says to these words; `ValueError` with its complaint if it fails."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"ip {' '.join(words)} failed: {' '.join(done.stderr.split())}")
    return done.stdout


def tc(space: str, interface: str, *words: str) -> None:
    """Add a queueing discipline to an interface."""
    ip("netns", "exec", space, "tc", "qdisc", "add", "dev", interface, *words)


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


def counter(space: str, interface: str, way: str) -> int:
    """Bytes that an interface has sent ("tx") or got ("rx") so far."""
    path = f"/sys/class/net/{interface}/statistics/{way}_bytes"
    return int(ip("netns", "exec", space, "cat", path))


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


def keeper(*spaces: str) -> subprocess.Popen:
    """A process that removes the namespaces once its input ends: as this one closes it or dies.

    In a session of its own, so that what kills this process and its children leaves it alone.
    """
    script = 'cat; for s; do ip netns del "$s"; rm -rf "/etc/netns/$s"; done'
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = ["sh", "-c", script, "keeper", *spaces]
    return subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True, **quiet)
