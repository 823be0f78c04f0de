"""A Ray cluster: the one at an address, or one that is started here and ends with its use."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected; a connection that was there before stays.

    `ValueError` if no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports nothing to its makers
    import ray

    mine = not ray.is_initialized()
    if mine:
        reachable(address)
        started = {} if address else {"include_dashboard": False}
        try:
            ray.init(address, log_to_driver=False, logging_level="error", **started)
        except ConnectionError as error:
            raise ValueError(f"address is {address}: {error}") from None
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


def cores(ray: Any) -> int:
    """Those of the whole cluster, as it is now."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def reachable(address: str | None) -> None:
    """`ValueError` at once where Ray itself would wait for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            said = f"address is {address}, where no Ray cluster answers: {error.strerror or error}"
            raise ValueError(said) from None
