"""`cookbook bench decode`: time ways to attend to keys that are spread over ranks, each checked."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.distributed as dist
import tyro

from cookbook_lib.commands.output import nbytes, print_json, print_table
from cookbook_lib.commands.output import seconds as time
from cookbook_lib.communication import links
from cookbook_lib.communication.launch import launch
from cookbook_lib.communication.member import LIMIT, Member, RankError
from cookbook_lib.communication.sampling import sampled
from cookbook_lib.communication.sizes import parse
from cookbook_lib.communication.torch_bench import slowest
from cookbook_lib.communication.torch_ranks import joined
from cookbook_lib.decoding.shards import Query, Shard, cut
from cookbook_lib.decoding.tree_costs import METHODS, Shape, messages
from cookbook_lib.decoding.tree_methods import METHODS as IN_TORCH
from cookbook_lib.decoding.tree_rows import numbers, prove, query, reference, row
from cookbook_lib.results import append, ready

WIDTH = {"bf16": 2, "fp32": 4, "fp64": 8}


def bench_decode(
    method: str = "all",
    backend: Literal["torch", "jax"] = "torch",
    devices: int = 4,
    context: Annotated[str, tyro.conf.arg(metavar="TOKENS")] = "64Ki",
    batch: int = 1,
    tokens: int = 1,
    heads: int = 8,
    kv_heads: int = 2,
    head_dim: int = 64,
    dtype: Literal["bf16", "fp32", "fp64"] = "fp32",
    nodes: int = 1,
    rate: Annotated[str, tyro.conf.arg(metavar="BYTES")] | None = None,
    uplink: Annotated[str, tyro.conf.arg(metavar="BYTES")] | None = None,
    seconds: float = 0.5,
    timeout: float = LIMIT,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Time one decoding step of attention whose keys lie on several ranks, its result checked.

    Args:
        method: tree, tree-fused, tree-once, ring-kv, ring-q, all-gather, several with commas, or
            all
        backend: torch (a process for each rank, gloo) or jax (devices of one process)
        devices: ranks that share the keys
        context: keys in all, such as 64Ki; several with commas
        batch: sequences
        tokens: new ones of each sequence
        heads: of the queries
        kv_heads: of the keys and values
        head_dim: of both
        dtype: of the keys and values
        nodes: that the ranks are spread over; needs rate
        rate: bytes/s of each rank's link, such as 50M: ranks get network namespaces (root, Linux)
        uplink: bytes/s between nodes, if not the same
        seconds: for the samples of each point
        timeout: seconds that one point may take; then the rank that is slow or dead is named
        out: a file that each row is appended to as a line of JSON
        json: print one JSON document instead of a table
    """
    shapes = [
        shape(parse("context", c), devices, batch, tokens, heads, kv_heads, head_dim, dtype)
        for c in context.split(",")
    ]
    names = list(METHODS) if method == "all" else method.split(",")
    for name in names:
        messages(name, shapes[0])  # refuses what is no method
    for name, value in {"seconds": seconds, "timeout": timeout}.items():
        if not 0 < value < 1e6:
            raise ValueError(f"{name} is {value:g}, expected seconds, above 0")
    if (nodes > 1 or uplink) and not rate:
        raise ValueError(f"nodes is {nodes} without a rate, expected --rate, such as 50M")
    if rate and backend == "jax":
        raise ValueError("backend is jax, expected torch: devices of one process have no links")
    if out:
        ready(out)
    rows: list[dict[str, Any]] = []

    def keep(found: dict[str, Any]) -> None:
        found = found | tiers
        rows.append(found)
        if out:
            append(out, found)

    speed, far = (float(parse("rate", x)) if x else None for x in (rate, uplink))
    tiers = {"nodes": nodes, "rate": speed, "uplink": far}
    failed = ""
    with links.network(devices, speed, nodes, far) if speed else nullcontext() as net:
        try:
            start(backend, names, shapes, dtype, seconds, timeout, net and net.seats, keep)
        except RankError as error:
            failed = str(error)
    show(rows, json)
    if failed:
        sys.stderr.write(f"cookbook: {failed}\n")
        sys.exit(1)


def shape(s: int, p: int, b: int, l: int, h: int, g: int, k: int, dtype: str) -> Shape:
    given = {"devices": p, "batch": b, "tokens": l, "heads": h, "kv_heads": g, "head_dim": k}
    for name, value in given.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected 1 or more")
    if h % g:
        raise ValueError(f"heads is {h}, expected a multiple of kv_heads, {g}")
    return Shape(s=s, p=p, h=h, g=g, k=k, b=b, l=l, width=WIDTH[dtype])


def start(backend, names, shapes, dtype, seconds, timeout, seats, keep) -> None:
    if backend == "torch":
        task, processes = sweep, shapes[0].p
    else:
        from cookbook_lib.decoding.tree_jax_bench import sweep as task

        processes = 1
    arguments = {
        "names": names,
        "shapes": [vars(x) for x in shapes],
        "dtype": dtype,
        "seconds": seconds,
    }
    launch(task, processes, arguments, seats=seats or (), limit=float(timeout), on_row=keep)


def sweep(
    member: Member,
    names: list[str],
    shapes: list[dict[str, int]],
    dtype: str,
    seconds: float,
) -> list[dict[str, Any]]:
    """A row for each method and context; rank 0 emits each as it comes."""
    rows = []
    with joined(member) as device:
        for sizes in shapes:
            x = Shape(**sizes)
            lengths, rank = cut(x.s, x.p), member.place.rank
            with member.doing(f"full attention over {x.s:,} tokens"):
                k, v = numbers(x, dtype, rank, lengths[rank])
                due = torch.empty(x.b, x.h, x.l, x.k, dtype=torch.float64)
                if rank == 0:
                    due = reference(x, dtype, lengths)
                dist.broadcast(due, 0)
            shard, asked = Shard(k=k, v=v, lengths=lengths), Query(q=query(x, dtype))
            for name in names:
                with member.doing(f"{name} over {x.s:,} tokens"):
                    last = {}

                    def call(name=name, last=last, asked=asked, shard=shard) -> None:
                        last["out"] = IN_TORCH[name](asked, shard)

                    call()
                    error = prove(last["out"], due, dtype, name)
                    worst = slowest(device)
                    timing = sampled(call, lambda: None, dist.barrier, worst, seconds)
                    error = max(error, prove(last["out"], due, dtype, name))  # of the last timed
                    (error,) = worst([error])
                rows.append(row(name, "torch gloo", x, dtype, timing, error))
                member.emit(rows[-1])
    return rows


def show(rows: list[dict[str, Any]], json: bool) -> None:
    if json:
        return print_json(rows)
    head = ("method", "context", "ranks", "seconds", "10% to 90%", "sends", "steps", "error")
    lines = [
        (
            r["method"],
            r["s"],
            r["p"],
            time(r["seconds"]["median"]) + " ±" * r["seconds"]["noisy"],
            f"{time(r['seconds']['p10'])} to {time(r['seconds']['p90'])}",
            nbytes(r["sent"]),
            r["steps"],
            f"{r['error']:.1e}",
        )
        for r in rows
    ]
    if rows:
        kind = f"{rows[0]['backend']}, {rows[0]['dtype']}"
        print_table(f"one decoding step, each checked against full attention; {kind}", head, lines)
