"""`cookbook bench comm`: time collectives in torch or JAX, and prove each before it is printed."""

import sys
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from cookbook_lib.commands.output import count, nbytes, print_json, print_table
from cookbook_lib.commands.output import seconds as time
from cookbook_lib.communication.collectives import COLLECTIVES, collective
from cookbook_lib.communication.launch import Seat, perform
from cookbook_lib.communication.member import LIMIT, RankError
from cookbook_lib.communication.messages import WIDTH, counted
from cookbook_lib.communication.ranks import Place, place
from cookbook_lib.communication.rows import device_names, title
from cookbook_lib.communication.sizes import parse, sizes
from cookbook_lib.communication.teams import Team, team_of
from cookbook_lib.communication.wired import laid, wires_of
from cookbook_lib.results import append, ready

KEY = ("op", "backend", "ranks", "processes", "nodes", "dtype", "nbytes", "device")
KEY += ("rate", "uplink")
NAMES = {  # backend, device -> the backend of a row
    ("torch", "cpu"): "torch gloo",
    ("torch", "cuda"): "torch nccl",
    ("jax", "cpu"): "jax cpu",
    ("jax", "cuda"): "jax cuda",
}


def bench_comm(
    backend: Literal["torch", "jax"] = "torch",
    op: str = "all_reduce",
    devices: int | None = None,
    processes: int | None = None,
    min_bytes: Annotated[str, tyro.conf.arg(metavar="SIZE")] = "8",
    max_bytes: Annotated[str, tyro.conf.arg(metavar="SIZE")] = "1Mi",
    factor: float = 2.0,
    dtype: Literal["bf16", "fp16", "fp32", "int32"] = "fp32",
    device: Literal["cpu", "cuda"] = "cpu",
    nodes: int = 1,
    rate: Annotated[str, tyro.conf.arg(metavar="BYTES")] | None = None,
    uplink: Annotated[str, tyro.conf.arg(metavar="BYTES")] | None = None,
    seconds: float = 0.5,
    timeout: float = LIMIT,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Time, algbw and busbw of collectives over message sizes, each result checked.

    Started alone, it starts its ranks here. Under torchrun, srun or mpirun each process is a rank,
    and rank 0 prints. bytes are the size of NCCL's tests, per rank.

    Args:
        backend: torch (gloo, or NCCL on GPUs) or jax (XLA between the devices of one process, gloo
            between processes on CPUs, NCCL on GPUs)
        op: all_reduce, all_gather, reduce_scatter, all_to_all, broadcast, reduce, scatter, gather,
            send, exchange, permute, halo, several with commas, or all
        devices: ranks; by default 2, or as many as torchrun, srun or mpirun has started
        processes: that hold them; by default one for each device in torch, one for all in jax
        min_bytes: the smallest message, such as 8, 64Ki or 1e6
        max_bytes: the largest
        factor: from one size to the next
        dtype: of the numbers in a message
        device: cpu or cuda
        nodes: that the ranks are spread over; needs rate
        rate: bytes/s of each rank's link, such as 50M: ranks get network namespaces (root, Linux)
        uplink: bytes/s between nodes, if not the same
        seconds: for the samples of each size
        timeout: seconds that one size may take; then the rank that is slow or dead is named
        out: a file that each row is appended to as a line of JSON; what it holds is not run again
        json: print one JSON document instead of tables
    """
    for name, value in {"seconds": seconds, "timeout": timeout}.items():
        if not 0 < value < 1e6:
            raise ValueError(f"{name} is {value:g}, expected seconds, above 0")
    where = place()
    team = team_of(backend, device, devices, processes, where)
    wanted = planned(
        op, parse("min_bytes", min_bytes), parse("max_bytes", max_bytes), factor, dtype, team.ranks
    )
    wires = wires_of(nodes, rate, uplink, where, team.processes)
    rows = ready(out) if out and where.rank == 0 else []
    key = (NAMES[backend, device], team.ranks, team.processes, wires.nodes, dtype)
    name = device_names(device)[0]
    held = {tuple(row.get(k) for k in KEY): row for row in rows}
    known = {(op, n): held.get((op, *key, n, name, wires.rate, wires.uplink)) for op, n in wanted}
    todo = [pair for pair, row in known.items() if not row]

    def keep(row: dict[str, Any]) -> None:
        row |= wires._asdict() if rate else {}
        known[row["op"], row["nbytes"]] = row
        if out:
            append(out, row)

    failed = ""
    with laid(wires, team.processes if todo else 0) as seats:
        try:
            run(backend, todo, dtype, device, seconds, timeout, team, where, seats, keep)
        except RankError as error:
            failed = str(error)
    if where.rank == 0:
        show([row for row in known.values() if row], json)
    if failed:
        sys.stderr.write(f"cookbook: {failed}\n")
        sys.exit(1)


def planned(
    op: str, least: int, most: int, factor: float, dtype: str, ranks: int
) -> list[tuple[str, int]]:
    """Each collective with each size that it can have: whole numbers in equal parts."""
    found = {}
    for name in COLLECTIVES if op == "all" else op.split(","):
        for size in sizes(least, most, factor):
            if count := counted(collective(name), ranks, size, dtype):
                found[name, count * WIDTH[dtype]] = None
    if not found:
        raise ValueError(f"max_bytes is {most}, too little for {ranks} equal parts of {dtype}")
    return list(found)


def run(
    backend: str,
    todo: list[tuple[str, int]],
    dtype: str,
    device: str,
    seconds: float,
    timeout: float,
    team: Team,
    where: Place,
    seats: Sequence[Seat],
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """Measure what is to do, with a bar on a terminal; `keep` gets each row as it comes."""
    if backend == "torch":
        from cookbook_lib.communication.torch_bench import sweep
    else:
        from cookbook_lib.communication.jax_bench import sweep
    arguments: dict[str, Any] = {"dtype": dtype, "device": device, "seconds": seconds}
    if backend == "jax":
        arguments["devices"] = team.ranks // team.processes
    perform(
        sweep,
        todo,
        [title(*pair) for pair in todo],
        arguments,
        processes=team.processes,
        where=where,
        seats=seats,
        limit=timeout,
        on_row=keep,
    )


def show(rows: list[dict[str, Any]], json: bool) -> None:
    if json:
        return print_json(rows)
    head = ("size", "numbers", "seconds", "10% to 90%", "algbw", "busbw", "ran")
    for (op, *_), grouped in groupby(rows, key=lambda r: (r["op"], r["backend"])):
        group = list(grouped)
        kind = f"{group[0]['ranks']} ranks, {group[0]['backend']}, {group[0]['dtype']}"
        print_table(f"{op}: {collective(op).what}; {kind}", head, [line(row) for row in group])


def line(row: dict[str, Any]) -> tuple:
    size = nbytes(row["nbytes"]), row["nbytes"] // WIDTH[row["dtype"]]
    if not (found := row.get("seconds")):
        return (*size, row["outcome"], "", "", "", "")
    return (
        *size,
        time(found["median"]) + " ±" * found["noisy"],
        f"{time(found['p10'])} to {time(found['p90'])}",
        f"{count(row['algbw'])}B/s",
        f"{count(row['busbw'])}B/s",
        row["ran"],
    )
