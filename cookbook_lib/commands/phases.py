"""`cookbook phases`: a training plan, in numbers and as a plot, before it runs."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from cookbook_lib.calculators import presets
from cookbook_lib.calculators.chips import chip as chip_named
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.commands.output import count, print_json, print_table
from cookbook_lib.training import plans
from cookbook_lib.training.phase_report import curve, phase_report
from cookbook_lib.training.phases import Plan


def phases(
    plan: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PLAN")],
    model: str | None = None,
    chip: str | None = None,
    gpus: int = 8,
    mfu: float | None = None,
    length: int = 4096,
    plot: Path | None = None,
    json: bool = False,
) -> None:
    """What a training plan does: learning rate, tokens and epochs of each source, FLOPs and days.

    Args:
        plan: zamba-7b, zamba2-2.7b, minicpm-2.4b, llama-3.1-405b, olmo-2-7b, zcookbook, or a file
            of phases in TOML (those are under cookbook_lib/training/plans)
        model: a preset or a config.json, for FLOPs
        chip: for the time; it needs --model
        gpus: in all, data parallel with ZeRO-1
        mfu: part of the peak that the run reaches, if known; otherwise its upper bound is taken
        length: tokens of a sequence
        plot: a file for the curves, such as plan.svg or plan.png
        json: print one JSON document instead of tables
    """
    if model is None and (chip is not None or mfu is not None):
        given = f"chip is {chip}" if chip is not None else f"mfu is {mfu}"
        raise ValueError(f"{given}, which needs --model")
    if chip is None and mfu is not None:
        raise ValueError(f"mfu is {mfu}, which needs --chip")
    if length < 1:
        raise ValueError(f"length is {length}, expected at least 1")
    made = plans.resolve(plan)
    report = phase_report(
        made,
        presets.resolve(model) if model else None,
        chip_named(chip) if chip else None,
        Parallel(gpus=gpus, zero=1),
        length,
        mfu,
    )
    if plot is not None:
        draw(made, plot)
    if json:
        print_json(report)
    else:
        show(report)


def show(report: dict[str, Any]) -> None:
    unit = report["unit"]
    head = ["phase", unit, "share", "warm-up", "rate", "of peak", "decay", "end", "mix"]
    days = ["days"] * ("days" in report)
    rows = [
        [
            row["name"],
            count(row["tokens"]),
            f"{row['share']:.2%}",
            count(row["warmup"]),
            f"{row['lr']:.3g}",
            f"{row['rate_on_entry']:.0%}",
            row["decay"],
            f"{row['end']:.3g}",
            ", ".join(f"{s} {part:.3g}" for s, part in row["mix"].items()),
            *(f"{row[d]:,.2f}" for d in days),
        ]
        for row in report["phases"]
    ]
    print_table(f"{report['plan']}: {report['tokens']:,.0f} {unit}", head + days, rows)
    epochs = report["epochs"]
    rows = [
        [s, count(n), f"{epochs[s]:.2f}" if s in epochs else "?"]
        for s, n in report["drawn"].items()
    ]
    print_table("what is read", ["source", unit, "epochs"], rows)
    for name, line in summary(report).items():
        print(f"{name:>10}  {line}")


def summary(report: dict[str, Any]) -> dict[str, str]:
    """What is left to say, where it is known."""
    said = {name: report[name] for name in ("source", "note") if report[name]}
    if "flops" in report:
        each = report["flops_per_token"]
        said["training"] = f"{report['flops']:.3g} FLOP, {each:.3g} a token, of {report['model']}"
    if "days" in report:
        said["time"] = (
            f"{report['days']:,.1f} days on {report['gpus']} {report['chip']} at an MFU of "
            f"{report['mfu']:.1%}, {report['gpu_hours']:,.0f} GPU hours"
        )
        if not report["fits"]:
            said["memory"] = "does not fit: see `cookbook memory`"
    for i, warning in enumerate(report["warnings"], 1):
        said[f"warning {i}"] = warning
    return said


def draw(plan: Plan, path: Path) -> None:
    """Learning rate, and below it the share of each source, against the part of the run."""
    import matplotlib.pyplot as plt

    from cookbook_lib import plots

    plots.use()
    if path.suffix.lstrip(".") not in (kinds := plt.gcf().canvas.get_supported_filetypes()):
        raise ValueError(
            f"plot is {path}, expected a name that ends in .{', .'.join(sorted(kinds))}"
        )
    plt.close()
    fig, (top, bottom) = plt.subplots(2, sharex=True, height_ratios=(3, 1), figsize=(5.8, 4.4))
    tokens, rates = curve(plan)
    top.plot(tokens, rates)
    top.set(ylabel="learning rate", title=plan.name, ylim=(0, None))
    edges = [start for start, _ in plan.spans()] + [plan.tokens]
    parts = [[p.share(s) for p in plan.phases] for s in plan.sources]
    floor = [0.0] * len(plan.phases)
    for source, part in zip(plan.sources, parts, strict=True):
        roof = [a + b for a, b in zip(floor, part, strict=True)]
        bottom.stairs(roof, edges, baseline=floor, fill=True, label=source)
        floor = roof
    bottom.set(xlabel=plan.unit, ylabel="share", ylim=(0, 1))
    fig.legend(loc="outside lower center", ncols=len(plan.sources))
    try:
        fig.savefig(path)
    except OSError as error:
        raise ValueError(f"plot is {path}, which cannot be written: {error.strerror}") from None
    finally:
        plt.close(fig)
