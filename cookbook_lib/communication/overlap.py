"""`cookbook bench overlap`: the part of a collective that compute hides, by four measured times."""

from collections.abc import Callable
from contextlib import ExitStack
from time import perf_counter
from typing import Annotated, Any, Literal

import tyro

from cookbook_lib.commands.output import nbytes as for_people
from cookbook_lib.commands.output import print_json, print_table
from cookbook_lib.commands.output import seconds as time
from cookbook_lib.communication.launch import launch
from cookbook_lib.communication.links import network
from cookbook_lib.communication.member import LIMIT
from cookbook_lib.communication.sizes import parse

WIDTH = 256  # of the square matrices whose products are the compute


def hidden(communication: float, compute: float, together: float) -> float:
    """What running both together saves, as a part of the shorter: 1 if it hides, 0 if it waits.

    Below 0 where each slows the other down.
    """
    if min(communication, compute) <= 0 or together <= 0:
        raise ValueError(
            f"seconds are {communication:g}, {compute:g} and {together:g}, expected above 0"
        )
    return (communication + compute - together) / min(communication, compute)


def balanced(
    communicate: Callable[[], object],
    compute: Callable[[int], object],
    meet: Callable[[], None],
    slowest: Callable[[list[float]], list[float]],
) -> int:
    """How many products take about as long as the communication, the same on all ranks."""
    took = []
    for call in (communicate, communicate, lambda: compute(8), lambda: compute(8)):
        meet()
        start = perf_counter()
        call()
        took.append(perf_counter() - start)
    _, wires, _, products = slowest(took)
    return min(10_000, max(1, round(8 * wires / products)))


def bench_overlap(
    backend: Literal["torch", "jax"] = "torch",
    devices: int = 2,
    processes: int | None = None,
    size: Annotated[str, tyro.conf.arg(metavar="SIZE")] = "8Mi",
    link: Annotated[str | None, tyro.conf.arg(metavar="RATE")] = None,
    device: Literal["cpu", "cuda"] = "cpu",
    repeats: int = 9,
    timeout: float = LIMIT,
    json: bool = False,
) -> None:
    """Time an all-reduce and matrix products, alone and together, and tell the part that hides.

    On a CPU without `--link` the ranks' copies through memory are compute themselves, so little can
    hide. On GPUs XLA hides what its latency-hiding scheduler finds:
    XLA_FLAGS=--xla_gpu_enable_latency_hiding_scheduler=true.

    Args:
        backend: torch (an asynchronous handle) or jax (both in one program)
        devices: ranks
        processes: that hold them; by default one for each device
        size: of the message, such as 8Mi
        link: bytes/s between the ranks, such as 50e6: each in a network namespace of its own, on
            Linux as root; by default what the machine has
        device: cpu or cuda
        repeats: rounds, after one that does not count
        timeout: seconds that one step may take; then the rank that is slow or dead is named
        json: print one JSON document instead of a table
    """
    processes = processes or devices
    if repeats < 1 or devices < 2:
        raise ValueError(f"devices is {devices}, repeats {repeats}, expected at least 2 and 1")
    if processes < 1 or devices % processes or (backend == "torch" and processes != devices):
        kind = "the same number" if backend == "torch" else "one that divides it"
        raise ValueError(f"processes is {processes} for {devices} devices, expected {kind}")
    if link and processes < 2:
        raise ValueError("link is given for one process, expected several: it is between them")
    rate = parse("link", link) if link else None
    row = measured(backend, parse("size", size), devices, processes, rate, device, repeats, timeout)
    if json:
        return print_json(row)
    shown = {name: took["median"] for name, took in row["seconds"].items()}
    title = f"all_reduce of {for_people(row['nbytes'])} beside {row['products']} products, "
    title += f"{devices} ranks, {row['backend']}" + (f", links of {rate:.3g} B/s" if rate else "")
    print_table(title, ("what", "seconds"), [(name, time(t)) for name, t in shown.items()])
    print(f"{row['hidden']:.0%} of the shorter is hidden; {row['in turn']:.0%} if run in turn")


def measured(
    backend: str,
    nbytes: int,
    devices: int = 2,
    processes: int = 2,
    link: float | None = None,
    device: str = "cpu",
    repeats: int = 9,
    timeout: float = LIMIT,
) -> dict[str, Any]:
    """One row: seconds of the four, and `hidden` from their medians, also for "in turn"."""
    arguments: dict[str, Any] = {"nbytes": nbytes, "repeats": repeats, "device": device}
    if backend == "torch":
        from cookbook_lib.communication.overlap_torch import overlap as task
    else:
        from cookbook_lib.communication.overlap_jax import overlap as task

        arguments["devices"] = devices // processes
    with ExitStack() as held:
        seats = held.enter_context(network(processes, float(link))).seats if link else ()
        row = launch(task, processes, arguments, seats=seats, limit=timeout)[0]
    took = {name: seconds["median"] for name, seconds in row["seconds"].items()}
    alone = took["communication"], took["compute"]
    return {
        "op": "all_reduce",
        "nbytes": nbytes,
        "ranks": devices,
        "processes": processes,
        "link": link,
        **row,
        "hidden": hidden(*alone, took["together"]),
        "in turn": hidden(*alone, took["in turn"]),
    }
