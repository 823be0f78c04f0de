"""The training of `cookbook plan`: its budget, and the time that its communication takes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cookbook_lib.calculators import chips, scaling
from cookbook_lib.calculators.plan_training import plan_training
from cookbook_lib.calculators.planning import Candidate
from cookbook_lib.commands.output import count, print_table, seconds
from cookbook_lib.commands.train_time import measured

TOKENS = 1e12  # of training, if no budget says otherwise


def training(
    flops: float | None,
    tokens: float | None,
    gpus: int | None,
    days: float | None,
    mfu: float,
    train_chip: str,
) -> tuple[float | None, float | None]:
    """The budget in FLOPs or in tokens, from one of the three ways to say it."""
    scaling.share(mfu)
    machine = chips.chip(train_chip)
    if (gpus is None) != (days is None):
        raise ValueError(f"gpus is {gpus} and days is {days}, expected both or neither")
    if sum(x is not None for x in (flops, tokens, gpus)) > 1:
        raise ValueError("train_flops, train_tokens and gpus: expected only one of them")
    if gpus is not None:
        return scaling.budget(machine, gpus, days, mfu), None
    return flops, TOKENS if flops is tokens is None else tokens


def trainer(
    gpus: int | None,
    mfu: float,
    train_chip: str,
    links: Path | None,
    sequences: int | None,
    length: int,
) -> Callable[[Candidate], dict[str, float]] | None:
    """What gives the time of a candidate's training, where it is said on how many chips."""
    if gpus is None:
        if given := [k for k, v in {"links": links, "sequences": sequences}.items() if v]:
            raise ValueError(f"{given[0]} is given without gpus, expected --gpus and --days too")
        return None
    machine = replace(chips.chip(train_chip), **(measured(links) if links else {}))
    if gpus > 1 and (machine.network if gpus > machine.node else machine.link) is None:
        return None  # no vendor's number, and none measured

    def trained(c: Candidate) -> dict[str, float]:
        run = plan_training(c.choice.model(), c.tokens, machine, gpus, mfu, length, sequences)
        days = {"hidden_days": run.hidden_days, "waiting_days": run.waiting_days}
        return run._asdict() | days

    return trained


def show_training(rows: list[dict[str, Any]]) -> None:
    """A step of each, and the run."""
    head = ("architecture", "steps", "arithmetic", "communication", "days, hidden", "waiting")
    lines = []
    for r in rows:
        run = r["training"]
        times = [seconds(run[k]) for k in ("math", "communication")]
        days = [f"{run[k]:,.1f}" for k in ("hidden_days", "waiting_days")]
        lines.append((r["architecture"], count(run["steps"]), *times, *days))
    print_table("training: each GPU holds the model, ZeRO 1; seconds of a step", head, lines)
