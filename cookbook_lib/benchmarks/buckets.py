"""`cookbook bench buckets`: the gradients of a model's layers, summed one by one and in buckets."""

from typing import Annotated, Literal

import tyro

from cookbook_lib.calculators.presets import preset
from cookbook_lib.commands.output import nbytes as for_people
from cookbook_lib.commands.output import print_json, print_table
from cookbook_lib.commands.output import seconds as time
from cookbook_lib.communication.fusion import bucket_sweep, ddp_step
from cookbook_lib.communication.launch import launch
from cookbook_lib.communication.member import LIMIT
from cookbook_lib.communication.sizes import parse


def gradient_sizes(model: str, layers: int) -> list[int]:
    """Numbers in each gradient of a model's first layers, in the order of its parameters."""
    spec = preset(model)
    if not 1 <= layers <= len(spec.pattern):
        raise ValueError(f"layers is {layers}, expected 1 to {len(spec.pattern)} of {spec.name}")
    weights = {
        f"{name}.{row.op}": row.params
        for i in range(layers)
        for name, block in spec.layer(i)
        for row in block.costs()
        if row.params
    }
    return list(weights.values())


def bench_buckets(
    model: Annotated[str, tyro.conf.arg(metavar="NAME")] = "mamba2-130m",
    layers: int = 1,
    tensors: int | None = None,
    size: Annotated[str, tyro.conf.arg(metavar="SIZE")] = "4Ki",
    caps: Annotated[str, tyro.conf.arg(metavar="SIZES")] = "64Ki,1Mi,25Mi",
    devices: int = 2,
    device: Literal["cpu", "cuda"] = "cpu",
    repeats: int = 9,
    timeout: float = LIMIT,
    json: bool = False,
) -> None:
    """Sum many tensors between ranks: one by one, all at once, in flat buckets, and by torch's DDP.

    Each way is checked: its messages by the profiler, its sums by their numbers.

    Args:
        model: a preset, for the sizes of its gradients, in float32
        layers: so many of its first layers
        tensors: so many of one size in place of a model's
        size: of each of these, such as 4Ki
        caps: of a bucket, several with commas
        devices: ranks, in processes of this machine
        device: cpu or cuda
        repeats: rounds, after one that does not count
        timeout: seconds that one step may take; then the rank that is slow or dead is named
        json: print one JSON document instead of tables
    """
    if devices < 2 or repeats < 1:
        raise ValueError(f"devices is {devices}, repeats {repeats}, expected at least 2 and 1")
    if tensors is not None and tensors < 1:
        raise ValueError(f"tensors is {tensors}, expected 1 or more")
    sizes = gradient_sizes(model, layers)
    if tensors:
        sizes = [max(1, parse("size", size) // 4)] * tensors
    limits = [parse("caps", one) for one in caps.split(",")]
    given = {"sizes": sizes, "repeats": repeats}
    flat = launch(bucket_sweep, devices, given | {"caps": limits, "device": device}, limit=timeout)[
        0
    ]
    mebibytes = {"caps": [cap / 2**20 for cap in limits]}
    ddp = launch(ddp_step, devices, given | mebibytes, limit=timeout)[0] if device == "cpu" else []
    if json:
        return print_json({"sizes": sizes, "flat": flat, "ddp": ddp})
    title = f"{len(sizes)} tensors, {for_people(4 * sum(sizes))}, {devices} ranks"
    rows = [
        (row["how"], len(row["messages"]), time(row["seconds"]["median"]))
        for row in flat
        if row["how"] != "copies"
    ]
    print_table(title, ("summed", "messages", "seconds"), rows)
    if ddp:
        shown = [
            (for_people(r["cap"] * 2**20), len(r["buckets"]), time(r["adds"]["median"]))
            for r in ddp
        ]
        print_table("torch's DDP, in a backward pass", ("cap", "buckets", "adds"), shown)
