"""`cookbook memory`: what training a model takes of each GPU's memory."""

from typing import Annotated, Literal

import tyro

from cookbook_lib.calculators import presets
from cookbook_lib.calculators.chips import chip as chip_named
from cookbook_lib.calculators.memory import Training
from cookbook_lib.calculators.memory_plan import PARTS, memory_report
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.commands.output import gb, print_json, print_table


def memory(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    chip: str = "h100",
    gpus: int = 8,
    zero: int = 1,
    tp: int = 1,
    sp: bool = False,
    pp: int = 1,
    ep: int = 1,
    cp: int = 1,
    micro_batch: int = 1,
    global_batch: int | None = None,
    tokens: int = 4096,
    recompute: Literal["none", "selective", "full"] = "none",
    optimizer: Literal["adamw", "adam8bit", "muon", "sgd"] = "adamw",
    dtype: Literal["bf16", "fp16", "fp32"] = "bf16",
    gradients: Literal["bf16", "fp16", "fp32"] | None = None,
    pure: bool = False,
    kernels: Literal["fused", "eager", "unfused"] = "fused",
    by: Literal["part", "stage"] = "part",
    json: bool = False,
) -> None:
    """Memory of the fullest GPU in training, and the cheapest change if it does not fit.

    Args:
        model: a preset (see `cookbook models`), a config.json, or a folder that holds one
        chip: what a GPU is; an unknown name lists those that are known
        gpus: in all; data parallel copies are gpus / (tp * pp * cp)
        zero: what copies split among them: 0 nothing, 1 optimizer states, 2 gradients too, 3 all
        tp: ranks that split the channels of each block
        sp: they also split, by tokens, what lies between the blocks
        pp: stages of the pipeline
        ep: data and context parallel ranks that deal out the experts
        cp: ranks that split the tokens of a sequence
        micro_batch: sequences that run at once
        global_batch: sequences of a step; as many as keep the pipeline full if not given
        tokens: of each sequence
        recompute: in the backward pass: nothing, what is light, or whole layers
        optimizer: what it keeps for each weight
        dtype: of weights and activations
        gradients: their dtype, if not that of the weights
        pure: no float32 copy of the weights, and optimizer states in their dtype
        kernels: fused as large models are trained, or plain PyTorch; unfused keeps the scores
        by: what a row of the table is
        json: print one JSON document instead of a table
    """
    parallel = Parallel(
        gpus=gpus,
        zero=zero,
        tp=tp,
        sp=sp,
        pp=pp,
        ep=ep,
        cp=cp,
        micro_batch=micro_batch,
        global_batch=global_batch,
    )
    how = Training(
        tokens=tokens,
        parallel=parallel,
        dtype=dtype,
        gradients=gradients or "",
        master=not pure,
        optimizer=optimizer,
        recompute=recompute,
        kernels=kernels,
    )
    report = memory_report(presets.resolve(model), how, chip_named(chip))
    if json:
        return print_json(report)
    show(report, by)


def show(report: dict, by: str) -> None:
    """The table, and the answer in a sentence."""
    room, total = report["chip_bytes"], report["total"]
    title = f"{report['model']}: the memory of a GPU, GB"
    if by == "stage":
        head = ("stage", *PARTS, "total")
        rows = [
            [str(s["stage"]), *(gb(s[part]) for part in (*PARTS, "total"))]
            for s in report["stages"]
        ]
    else:
        head = ("part", "GB", "share of the chip")
        rows = [[part, gb(report[part]), f"{report[part] / room:.1%}"] for part in PARTS]
        rows.append(["total", gb(total), f"{total / room:.1%}"])
    print_table(title, head, rows)
    print(
        f"{report['gpus']} x {report['chip']}, {report['micro_batch']} x {report['tokens']} "
        f"tokens, {report['dtype']}, {report['optimizer_name']}, {report['kernels']} kernels."
    )
    if report["pp"] > 1 and by == "part":
        print(f"This is stage {report['stage']} of {report['pp']}, the fullest.")
    if report["fits"]:
        return print(
            f"It fits: {gb(room - total)} GB are left for the driver, the network library and gaps."
        )
    print(f"It does not fit: {gb(total - room)} GB more than the {gb(room)} GB of the chip.")
    if report["change"]:
        print(
            f"The cheapest change: {report['change']}, which takes {gb(report['change_total'])} GB."
        )
    else:
        print("Nothing that was tried makes it fit: more GPUs do not either.")
