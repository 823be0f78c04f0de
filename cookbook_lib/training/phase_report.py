"""A plan as plain numbers: what each phase does, what is read how often, FLOPs and time."""

from typing import Any

from cookbook_lib.calculators.chips import Chip
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.calculators.step_time import train_report
from cookbook_lib.training.phases import Phase, Plan
from cookbook_lib.training.plan_warnings import warnings
from cookbook_lib.training.schedules import e_folds

POINTS = 400  # of a drawn curve, for each phase


def phase_row(plan: Plan, phase: Phase) -> dict[str, Any]:
    """A phase in numbers. `rate_on_entry` is that after the warm-up, as a part of the plan's peak;
    `e_folds` is how often the rate falls by a factor e until the end, None where that is 0."""
    return {
        "name": phase.name,
        "tokens": phase.tokens,
        "share": phase.tokens / plan.tokens,
        "decay": phase.decay,
        "warmup": phase.warmup,
        "lr": phase.lr,
        "end": phase.last,
        "rate_on_entry": phase.lr / plan.peak,
        "e_folds": e_folds(phase.lr, phase.last) if phase.last else None,
        "mix": {source: phase.share(source) for source in phase.mix},
        "anneal": phase.anneal,
    }


def phase_report(
    plan: Plan,
    model: Model | None = None,
    chip: Chip | None = None,
    how: Parallel | None = None,
    length: int = 4096,
    mfu: float | None = None,
) -> dict[str, Any]:
    """All that follows from a plan; with a model also its FLOPs, and with a chip its time."""
    report: dict[str, Any] = {
        "plan": plan.name,
        "source": plan.source,
        "note": plan.note,
        "unit": plan.unit,
        "tokens": plan.tokens,
        "peak": plan.peak,
        "phases": [phase_row(plan, phase) for phase in plan.phases],
        "drawn": plan.drawn(),
        "epochs": plan.epochs(),
        "warnings": warnings(plan),
    }
    if model is None:
        return report
    if plan.unit != "tokens":
        raise ValueError(f"plan {plan.name} counts {plan.unit}, of which FLOPs cannot be told")
    each = model.step_flops(l=length, attention="causal") / length
    report |= {"model": model.name, "flops_per_token": each, "flops": each * plan.tokens}
    if chip is not None:
        run = train_report(model, chip, how or Parallel(), length, round(plan.tokens), mfu=mfu)
        keys = ("chip", "gpus", "mfu", "seconds", "days", "gpu_hours", "memory_bytes", "fits")
        report |= {key: run[key] for key in keys}
        for row in report["phases"]:
            row["days"] = run["days"] * row["share"]
    return report


def curve(plan: Plan, points: int = POINTS) -> tuple[list[float], list[float]]:
    """Tokens and rates to draw: equally many points in each phase, so that a short one is seen."""
    tokens, rates = [], []
    for start, phase in plan.spans():
        for i in range(points + 1):
            tokens.append(start + phase.tokens * i / points)
            rates.append(phase.rate(phase.tokens * i / points))
    return tokens, rates
