"""A Ray cluster: the one at an address, or one that is started here and ends with its use."""

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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


@contextmanager
def local_cluster(nodes: int) -> Iterator[Any]:
    """A Ray cluster for trying things out, as Ray's own `Cluster`, whose `address` is to be used.

    A head without cores, and nodes of one core each. All are processes of this machine, which
    speak to each other as machines do.
    """
    told = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(Path(__file__).parents[2]),  # the nodes use this library
    }
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    logging.getLogger("ray.widgets.util").setLevel(logging.ERROR)  # a notebook may have no widgets
    with warnings.catch_warnings(action="ignore"):
        import ray
        from ray.cluster_utils import Cluster
    logging.getLogger("ray").setLevel(logging.ERROR)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=1)
        made.wait_for_nodes()
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


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
