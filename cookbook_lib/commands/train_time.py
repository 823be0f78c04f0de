"""`cookbook train-time`: how long a training run takes, and what it costs."""

import json as codec
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from cookbook_lib.calculators import presets
from cookbook_lib.calculators.chips import chip as chip_named
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.calculators.step_time import train_report
from cookbook_lib.commands.output import count, nbytes, print_json, print_table, seconds

KWH = 3.6e6  # joules


def train_time(
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
    train_tokens: float = 1e12,
    mfu: float | None = None,
    link: float | None = None,
    network: float | None = None,
    links: Path | None = None,
    price: float | None = None,
    recompute: Literal["none", "selective", "full"] = "none",
    attention: Literal["dense", "causal"] = "causal",
    json: bool = False,
) -> None:
    """Time of a training step from arithmetic, memory and communication; days, GPU hours, energy.

    Args:
        model: a preset (see `cookbook models`), a config.json, or a folder that holds one
        chip: b200, h200, h100, a100, mi300x, l40s, rtx4090, m4max, phone or cpu
        gpus: in all; what tp, pp and cp leave is data parallel
        zero: what copies split among them: 0 nothing, 1 optimizer states, 2 gradients too, 3 all
        tp: ranks that share the channels of each block
        sp: with tp, split the tokens between the blocks as well
        pp: stages of the pipeline
        ep: ranks that share the experts
        cp: ranks that share the tokens of a sequence
        micro_batch: sequences that a GPU runs at once
        global_batch: sequences of a step; by default one micro-batch for each stage
        tokens: of a sequence
        train_tokens: of the whole run, such as 1e12
        mfu: part of the peak that the run reaches, if known; otherwise its upper bound is taken
        link: bytes/s of each GPU, one way, to others in its node, if not the chip's own
        network: the same to GPUs in other nodes
        links: a file of `cookbook links`: both rates as measured, and what each message takes more
        price: of a GPU hour
        recompute: in the backward pass: nothing, what is light, or whole layers
        attention: count every query with every key, or only with those it sees
        json: print one JSON document instead of a table
    """
    if not 1 <= train_tokens < 1e30:
        raise ValueError(f"train_tokens is {train_tokens:g}, expected a number of tokens")
    how = Parallel(
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
    rates = {k: v for k, v in {"link": link, "network": network}.items() if v is not None}
    for name, rate in rates.items():
        if not 1 <= rate < inf:
            raise ValueError(f"{name} is {rate:g}, expected a number of bytes/s, 1 or more")
    device = replace(chip_named(chip), **((measured(links) if links else {}) | rates))
    report = train_report(
        presets.resolve(model),
        device,
        how,
        tokens,
        int(train_tokens),
        mfu=mfu,
        price=price,
        recompute=recompute,
        attention=attention,
    )
    if json:
        return print_json(report)
    terms = ("math", "memory", "communication", "overlapped", "summed")
    rows = [[f"{term}" for term in terms], [seconds(report[f"{term}_seconds"]) for term in terms]]
    title = f"{report['model']}, {gpus} x {report['chip']}: a step of {report['global_batch']}"
    print_table(f"{title} x {tokens} tokens at peak rates", rows[0], rows[1:])
    if wires := report["collectives"]:
        head = ("for", "what", "collective", "ranks", "times", "message", "a GPU sends", "seconds")
        print_table("what goes over the wires", head, [line(c) for c in wires])
    for name, text in summary(report).items():
        print(f"{name:>18}  {text}")


def measured(links: Path) -> dict[str, float]:
    """Fields of a chip from a fit of measured collectives; `ValueError` if the file holds none."""
    names = {"near": "link", "far": "network"}
    try:
        tiers = codec.loads(links.read_text())["tiers"]
        found = {names[tier]: float(fit["beta"]) for tier, fit in tiers.items()}
        delays = {f"{names[tier]}_delay": float(fit["alpha"]) for tier, fit in tiers.items()}
    except OSError as error:
        raise ValueError(f"links is {links}, which cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"links is {links}, expected a file that `cookbook links` wrote") from None
    if not all(0 < rate < inf for rate in found.values()) or not all(
        0 <= delay < inf for delay in delays.values()
    ):
        raise ValueError(f"links is {links}, expected rates above 0 and delays of 0 or more in it")
    return found | delays


def line(c: dict[str, Any]) -> tuple:
    sizes = nbytes(c["nbytes"]), nbytes(c["sent_bytes"])
    return (c["why"], c["what"], c["kind"], c["ranks"], c["times"], *sizes, seconds(c["seconds"]))


def summary(report: dict[str, Any]) -> dict[str, str]:
    """The headline in words: the run at the given MFU, or at best."""
    given = report["mfu"] != report["mfu_overlapped"]
    energy, cost = report["energy_joules"], report["cost"]
    short = report["memory_bytes"] - report["chip_bytes"]
    verdict = f"{short / 1e9:.1f} GB too much, see `cookbook memory`" if short > 0 else "fits"
    return {
        "memory": f"{report['memory_bytes'] / 1e9:.1f} GB of {report['chip_bytes'] / 1e9:.0f} on "
        f"the fullest GPU: {verdict}",
        "bound by": f"{report['bound_by']}; the pipeline waits {report['bubble']:.1%} of the time",
        "MFU": f"{report['mfu']:.1%}, as given; "
        * given
        + f"at most {report['mfu_overlapped']:.1%}, or {report['mfu_summed']:.1%} if nothing "
        "overlaps",
        "step": f"{seconds(report['seconds_per_step'])}, {report['tokens_per_second']:,.0f} "
        f"tokens/s, {count(report['flops_per_gpu_second'])}FLOP/s on each GPU",
        "run": f"{report['days']:,.1f} days of {report['steps']:,.0f} steps, "
        f"{report['gpu_hours']:,.0f} GPU hours, {count(report['flops'])}FLOP",
        **({"energy": f"{energy / KWH:,.0f} kWh at the boards' limit"} if energy else {}),
        **({"cost": f"{cost:,.0f}"} if cost is not None else {}),
    }
