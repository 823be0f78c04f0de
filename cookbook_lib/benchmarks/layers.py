"""`cookbook bench layers`: a sum of gradients at each layer, from memory to DDP's backward pass."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from cookbook_lib.benchmarks.buckets import gradient_sizes
from cookbook_lib.commands.output import nbytes as for_people
from cookbook_lib.commands.output import print_json, print_table
from cookbook_lib.commands.output import seconds as time
from cookbook_lib.communication.collectives import collective
from cookbook_lib.communication.fusion import bucket_sweep, ddp_step
from cookbook_lib.communication.launch import launch
from cookbook_lib.communication.layers import Layer, layer, memory, slowest_of, walk
from cookbook_lib.communication.member import LIMIT
from cookbook_lib.communication.micro import Row, taken
from cookbook_lib.communication.nccl_tests import nccl_tests
from cookbook_lib.communication.osu import osu
from cookbook_lib.communication.plain_mpi import plain_mpi
from cookbook_lib.communication.sizes import parse
from cookbook_lib.communication.torch_bench import sweep as torch_sweep

CAP = 25 * 2**20  # bytes: DDP's default bucket_cap_mb


def bench_layers(
    model: Annotated[str, tyro.conf.arg(metavar="NAME")] = "mamba2-130m",
    layers: int = 1,
    devices: int = 2,
    link: Annotated[str | None, tyro.conf.arg(metavar="RATE")] = None,
    micro: Path | None = None,
    repeats: int = 9,
    seconds: float = 0.5,
    timeout: float = LIMIT,
    json: bool = False,
) -> None:
    """Which layer is slow? Sum the gradients of a model's layers between ranks on CPUs.

    From the hardware over MPI (or a file of nccl-tests or OSU) to the calls of torch and JAX, to
    buckets, to the part of DDP's backward pass that sums. Each is compared with the layer below:
    "little" up to 1.25 times its seconds, "slow" above 2 times, "noisy" if that is not sure.

    Args:
        model: a preset, for the sizes of its gradients
        layers: so many of its first layers
        devices: ranks, in processes of this machine
        link: bytes/s of the hardware, such as 50e9; by default a copy through memory is measured
        micro: a file of nccl-tests or OSU with an all_reduce by as many ranks, in place of MPI
            here; of its sizes the nearest is taken, at its bus bandwidth
        repeats: rounds, after one that does not count
        seconds: for the samples of a call
        timeout: seconds that one step may take; then the rank that is slow or dead is named
        json: print one JSON document instead of a table
    """
    if devices < 2 or repeats < 1:
        raise ValueError(f"devices is {devices}, repeats {repeats}, expected at least 2 and 1")
    sizes = gradient_sizes(model, layers)
    given = below_from(micro, devices) if micro else None
    rate = parse("link", link) if link else None
    rows = walk(measured(sizes, devices, rate, given, repeats, seconds, timeout))
    if json:
        return print_json(rows)
    title = f"{layers} layer{'s' * (layers > 1)} of {model}: all_reduce of "
    title += f"{for_people(4 * sum(sizes))} in "
    title += f"{len(sizes)} tensors, {devices} ranks"
    head = ("layer", "what", "seconds", "times the layer below", "which is", "verdict")
    cells = [
        (
            row["layer"],
            row["what"],
            time(row["seconds"]),
            f"{row['ratio']:.2f}" if "ratio" in row else "",
            row.get("below", ""),
            row.get("verdict", ""),
        )
        for row in rows
    ]
    print_table(title, head, cells)
    print(f"The most is added by: {slowest_of(rows)}.")


def below_from(path: Path, ranks: int) -> list[Row]:
    """All-reduce rows of a file, whichever of the two wrote it."""
    try:
        rows = nccl_tests(path, op="all_reduce")
    except ValueError as first:
        try:
            rows = osu(path, ranks)
        except ValueError as second:
            raise ValueError(f"as nccl-tests: {first}; as OSU: {second}") from None
    rows = [row for row in rows if row["op"] == "all_reduce" and row["ranks"] == ranks]
    if not rows:
        raise ValueError(f"{path}: no all_reduce by {ranks} ranks, expected one: see --devices")
    return rows


def measured(
    sizes: list[int],
    ranks: int,
    rate: float | None,
    given: list[Row] | None,
    repeats: int,
    seconds: float,
    timeout: float,
) -> list[Layer]:
    """Every layer, from the lowest; sizes: numbers of float32 in each gradient."""
    from cookbook_lib.communication.jax_bench import sweep as jax_sweep

    op, nbytes = "all_reduce", 4 * sum(sizes)
    found = []
    if rate:
        least = collective(op).bus(ranks) * nbytes / rate
        found.append(layer("hardware", f"links of {rate:.3g} B/s", {"mean": least}))
    else:
        copied = launch(
            memory, ranks, {"op": op, "nbytes": nbytes, "repeats": repeats}, limit=timeout
        )[0]
        found.append(layer("hardware", "a copy through memory", copied["seconds"]))
    if given:
        nearest = min(given, key=lambda row: abs(row["nbytes"] - nbytes))
        scaled = {"mean": taken(nearest) * nbytes / nearest["nbytes"]}
        found.append(layer("micro", nearest["backend"], scaled, "hardware"))
    else:
        (row,) = plain_mpi(op, [nbytes], ranks, seconds, timeout)
        found.append(layer("micro", "MPI", row["seconds"], "hardware"))
    todo: dict[str, Any] = {"todo": [(op, nbytes)], "dtype": "fp32", "device": "cpu"}
    for name, task in (("torch", torch_sweep), ("jax", jax_sweep)):
        (row,) = launch(task, ranks, todo | {"seconds": seconds}, limit=timeout)[0]
        found.append(layer(name, f"one call, {row['backend']}", row["seconds"], "micro"))
    given_sizes = {"sizes": sizes, "repeats": repeats}
    ways = launch(bucket_sweep, ranks, given_sizes | {"caps": [CAP]}, limit=timeout)[0]
    by_name = {row["how"]: row for row in ways}
    found.append(layer("tensors", "one call each", by_name["one by one"]["seconds"], "torch"))
    bucketed = by_name[f"buckets of {CAP}"]
    many = len(bucketed["messages"])
    what = f"{many} bucket{'s' * (many > 1)}, filled and emptied"
    found.append(layer("buckets", what, bucketed["seconds"], "torch"))
    (ddp,) = launch(ddp_step, ranks, given_sizes | {"caps": [CAP / 2**20]}, limit=timeout)[0]
    found.append(layer("DDP", "what summing adds to a backward pass", ddp["adds"], "buckets"))
    return found
