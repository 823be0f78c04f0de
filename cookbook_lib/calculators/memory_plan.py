"""Does a training fit a chip, and what is the cheapest change that makes it fit?"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from cookbook_lib.calculators.chips import NODE, Chip
from cookbook_lib.calculators.memory import Memory, Training, memory, stages
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.parallel import Parallel

PARTS = ("weights", "gradients", "optimizer", "activations", "temporary")


def changes(how: Training) -> Iterator[tuple[str, Training]]:
    """What to try, cheapest first, each with its words.

    What costs no arithmetic comes first (ZeRO-1 sends as much as plain data parallelism), then what
    costs a little of it, then what sends more, and in the end more GPUs.
    """
    p = how.parallel
    zero = [z for z in (1, 2, 3) if z > p.zero and p.shared_by > 1]
    again = {"none": ("selective", "full"), "selective": ("full",)}.get(how.recompute, ())
    if 1 in zero:
        yield "--zero 1", on(how, zero=1)
    if p.micro_batch > 1:
        yield "--micro-batch 1", on(how, micro_batch=1, global_batch=None)
    if "selective" in again:
        yield "--recompute selective", replace(how, recompute="selective")
        if 1 in zero:
            yield "--zero 1 --recompute selective", on(how, "selective", zero=1)
    for stage in (z for z in zero if z > 1):
        yield f"--zero {stage}", on(how, zero=stage)
    if again:
        yield "--recompute full", replace(how, recompute="full")
        for stage in zero:
            yield f"--zero {stage} --recompute full", on(how, "full", zero=stage)
    tp = p.tp
    while (tp := 2 * tp) <= min(NODE, p.gpus):
        yield from split(how, f"--tp {tp} --sp", {"tp": tp, "sp": True}, zero, again)
    pp = p.pp
    while (pp := 2 * pp) <= p.gpus:
        yield from split(how, f"--pp {pp}", {"pp": pp}, zero, again)
    more = p.gpus
    while (more := 2 * more) <= 1024 * p.gpus:
        z = " --zero 3" if p.zero < 3 else ""
        yield from split(how, f"--gpus {more}{z}", {"gpus": more, "zero": 3}, [], again)


def split(how, words: str, parallel: dict, zero: list, again: tuple):
    """A split alone, with ZeRO-1, and with all layers made again as well."""
    parallel = parallel | {"global_batch": None}
    makers = [(words, how.recompute, parallel)]
    if 1 in zero:
        makers.append((f"{words} --zero 1", how.recompute, parallel | {"zero": 1}))
    if again:
        name, _, last = makers[-1]
        makers.append((f"{name} --recompute full", "full", last))
    for words, recompute, fields in makers:
        try:
            yield words, on(how, recompute, **fields)
        except ValueError:
            continue


def on(how: Training, recompute: str = "", **parallel) -> Training:
    return replace(
        how,
        recompute=recompute or how.recompute,
        parallel=replace(how.parallel, **parallel),
    )


def cheapest(model: Model, how: Training, limit: float) -> tuple[str, Training, Memory] | None:
    """The first change after which the fullest GPU holds no more than `limit` bytes."""
    for words, changed in changes(how):
        try:
            found = memory(model, changed)
        except ValueError:  # this model cannot be split so
            continue
        if found.total <= limit:
            return words, changed, found
    return None


def memory_report(model: Model, how: Training, chip: Chip, search: bool = True) -> dict[str, Any]:
    """Settings, bytes of the fullest GPU, whether they fit, and of every stage.

    search: if they do not fit, try what would make them; that can take seconds.
    """
    each = stages(model, how)
    worst = max(each, key=lambda m: m.total)
    p: Parallel = how.parallel
    fits = worst.total <= chip.memory
    change = cheapest(model, how, chip.memory) if search and not fits else None
    return {
        "model": model.name,
        "chip": chip.name,
        "chip_bytes": int(chip.memory),
        **{k: getattr(how, k) for k in ("tokens", "dtype", "master", "recompute", "kernels")},
        "optimizer_name": how.optimizer,
        "gradients_dtype": how.gradients or how.dtype,
        **asdict(p),
        "dp": p.dp,
        "micro_batches": p.micro_batches,
        **{part: getattr(worst, part) for part in PARTS},
        "total": worst.total,
        "stage": worst.stage,
        "fits": fits,
        "change": change and change[0],
        "change_total": change and change[2].total,
        "stages": [asdict(m) | {"total": m.total} for m in each],
    }
