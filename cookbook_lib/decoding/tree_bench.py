"""`cookbook bench decode`: time ways to attend to keys that are spread over ranks, each checked."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from cookbook_lib.commands.output import nbytes, print_json, print_table
from cookbook_lib.commands.output import seconds as time
from cookbook_lib.communication.launch import perform
from cookbook_lib.communication.member import LIMIT, RankError
from cookbook_lib.communication.ranks import Place, place
from cookbook_lib.communication.rows import device_names
from cookbook_lib.communication.sizes import parse
from cookbook_lib.communication.wired import laid, wires_of
from cookbook_lib.decoding.tree_costs import METHODS, Shape, messages
from cookbook_lib.results import agrees, append, ready

WIDTH = {"bf16": 2, "fp32": 4, "fp64": 8}


def bench_decode(
    method: str = "all",
    backend: Literal["torch", "jax"] = "torch",
    devices: int | None = None,
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

    Started alone, it starts its ranks here. Under torchrun, srun or mpirun each process is a rank,
    and rank 0 prints.

    Args:
        method: tree, tree-fused, tree-once, ring-kv, ring-q, all-gather, several with commas, or
            all
        backend: torch (a process for each rank, gloo) or jax (devices of one process)
        devices: ranks that share the keys; by default 4, or as many as a launcher has started
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
        out: a file that each row is appended to as a line of JSON; what it holds is not run again
        json: print one JSON document instead of a table
    """
    where = place()
    ranks = team(devices, where, backend)
    if rate and backend == "jax":
        raise ValueError("backend is jax, expected torch: devices of one process have no links")
    shapes = [
        shape(parse("context", c), ranks, batch, tokens, heads, kv_heads, head_dim, dtype)
        for c in context.split(",")
    ]
    names = list(METHODS) if method == "all" else method.split(",")
    for name in names:
        messages(name, shapes[0])  # refuses what is no method
    for name, value in {"seconds": seconds, "timeout": timeout}.items():
        if not 0 < value < 1e6:
            raise ValueError(f"{name} is {value:g}, expected seconds, above 0")
    wires = wires_of(nodes, rate, uplink, where, ranks)
    tiers = wires._asdict()
    which = {"torch": "torch gloo", "jax": "jax cpu"}[backend]
    same = {"backend": which, "dtype": dtype, "device": device_names("cpu")[0], **tiers}
    wanted = [(name, x) for x in dict.fromkeys(shapes) for name in dict.fromkeys(names)]
    held = ready(out) if out and where.rank == 0 else []
    known = {
        (name, x): next((r for r in held if agrees(r, same | {"method": name} | vars(x))), None)
        for name, x in wanted
    }
    todo = [pair for pair, row in known.items() if not row]

    def keep(found: dict[str, Any]) -> None:
        row = known[todo[len(came)]] = found | tiers
        came.append(row)
        if out:
            append(out, row)

    came: list[dict[str, Any]] = []
    failed = ""
    with laid(wires, ranks if todo else 0) as seats:
        try:
            start(backend, todo, dtype, seconds, timeout, where, seats, keep)
        except RankError as error:
            failed = str(error)
    if where.rank == 0:
        show([row for row in known.values() if row], json)
    if failed:
        sys.stderr.write(f"cookbook: {failed}\n")
        sys.exit(1)


def team(devices: int | None, where: Place, backend: str) -> int:
    """How many ranks; `ValueError` if that cannot be."""
    if where.size == 1:
        return 4 if devices is None else devices
    if devices not in (None, where.size):
        raise ValueError(f"devices is {devices}, but {where.launcher} started {where.size}")
    if backend == "jax":
        raise ValueError(f"backend is jax, expected torch under {where.launcher}: see --backend")
    return where.size


def shape(s: int, p: int, b: int, l: int, h: int, g: int, k: int, dtype: str) -> Shape:
    given = {"devices": p, "batch": b, "tokens": l, "heads": h, "kv_heads": g, "head_dim": k}
    for name, value in given.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected 1 or more")
    if h % g:
        raise ValueError(f"heads is {h}, expected a multiple of kv_heads, {g}")
    return Shape(s=s, p=p, h=h, g=g, k=k, b=b, l=l, width=WIDTH[dtype])


def start(backend, todo, dtype, seconds, timeout, where, seats, keep) -> None:
    """Measure what is to do, with a bar on a terminal; `keep` gets each row as it comes."""
    if backend == "torch":
        from cookbook_lib.decoding.tree_torch_bench import sweep
    else:
        from cookbook_lib.decoding.tree_jax_bench import sweep
    perform(
        sweep,
        [(name, vars(x)) for name, x in todo],
        [f"{name} over {x.s:,} tokens" for name, x in todo],
        {"dtype": dtype, "seconds": seconds},
        processes=todo[0][1].p if todo and backend == "torch" else 1,
        where=where,
        seats=seats,
        limit=float(timeout),
        on_row=keep,
    )


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
