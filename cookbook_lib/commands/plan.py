"""`cookbook plan`: architectures within budgets, the best of them, and why not the others."""

import json as format_json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from cookbook_lib.calculators import chips, planning, scaling
from cookbook_lib.calculators.families import FAMILIES, config
from cookbook_lib.calculators.planning import Budgets, Candidate, Plan, Use
from cookbook_lib.calculators.serving import USABLE
from cookbook_lib.calculators.space import grid
from cookbook_lib.calculators.storage import Storage
from cookbook_lib.calculators.verdicts import neighbours
from cookbook_lib.commands.output import count, nbytes, print_json, print_table
from cookbook_lib.commands.planned_training import show_training, trainer, training


def plan(
    max_params: float | None = None,
    memory: float | None = None,
    max_cache: float | None = None,
    max_seconds: float | None = None,
    min_attention: float = 0.1,
    train_flops: float | None = None,
    train_tokens: float | None = None,
    gpus: int | None = None,
    days: float | None = None,
    mfu: float = 0.4,
    train_chip: str = "h100",
    links: Path | None = None,
    sequences: int | None = None,
    length: int = 4096,
    chip: str = "h100",
    context: int = 4096,
    batch: int = 1,
    weights: str = "bf16",
    cache: str = "bf16",
    vocab: int = 32768,
    untied: bool = False,
    families: tuple[str, ...] = (),
    law: Literal["besiroglu", "hoffmann", "sardana"] = "besiroglu",
    margin: float = 0.01,
    top: int = 10,
    save: Path | None = None,
    json: bool = False,
) -> None:
    """Architectures within budgets: the best ones, what they cost, why the others were dropped.

    The best has the least cache among those whose predicted loss is within `margin` of the least.
    The scaling law that predicts it was fitted to dense transformers and knows no mixers. With
    gpus and days the time that communication takes is shown; the choice does not depend on it.

    Args:
        max_params: most parameters stored
        memory: most bytes of weights and cache; 90% of the chip's memory if not given
        max_cache: most bytes of cache
        max_seconds: longest time of one token, by the roofline
        min_attention: share of the sequence mixers that must attend, for the sake of recall
        train_flops: training budget in FLOP; or say train_tokens, or gpus and days
        train_tokens: training tokens; 1e12 if no training budget is given
        gpus: how many chips train
        days: for how long
        mfu: the share of their bf16 peak that training reaches
        train_chip: which chips train
        links: with gpus, a file of `cookbook links`: rates and delays of their links as measured
        sequences: of a training step, by default one for each of the gpus
        length: tokens of a training sequence
        chip: what the model is served on: h100, rtx4090, phone, …
        context: tokens of each sequence that the cache holds
        batch: sequences
        weights: format of the weights while serving: bf16, int8, int4, …
        cache: format of the KV cache: bf16, fp8, …
        vocab: tokens in the vocabulary
        untied: give the head a weight of its own
        families: look at these only
        law: the fit that predicts the loss
        margin: nats of predicted loss that do not count
        top: rows of the table
        save: write the best one's config.json into this folder
        json: print one JSON document instead of tables
    """
    for name, value in {"vocab": vocab, "top": top}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected a whole number above 0")
    if wrong := [f for f in families if f not in FAMILIES]:
        raise ValueError(f"families has {wrong[0]!r}, expected only {', '.join(FAMILIES)}")
    machine = chips.chip(chip)
    flops, tokens = training(train_flops, train_tokens, gpus, days, mfu, train_chip)
    trained = trainer(gpus, mfu, train_chip, links, sequences, length)
    use = Use(
        train_flops=flops,
        train_tokens=tokens,
        length=length,
        context=context,
        batch=batch,
        chip=machine,
        store=Storage(weights=weights, cache=cache),
        law=scaling.LAWS[law],
    )
    budgets = Budgets(
        params=max_params,
        memory=USABLE * machine.memory if memory is None else memory,
        cache=max_cache,
        seconds=max_seconds,
        min_attention=min_attention,
    )
    choices = (c for c in grid(vocab, not untied) if not families or c.family in families)
    found = planning.plan(choices, use, budgets, margin)
    report = summary(found, top, trained)
    if save is not None:
        write(found.best, save)
    if json:
        return print_json(report)
    show(found, report)
    if gpus and not trained:
        print(f"communication: no rate of {train_chip}'s links is on record; give --links")


def summary(
    found: Plan, top: int, trained: Callable[[Candidate], dict] | None = None
) -> dict[str, Any]:
    """The plan as plain data."""

    def timed(c: Candidate) -> dict[str, Any]:
        return row(c) | {"training": trained(c) if trained else None}

    use, budgets = found.use, found.budgets
    return {
        "context": use.context,
        "batch": use.batch,
        "chip": use.chip.name,
        "law": use.law.name,
        "budgets": vars(budgets),
        "candidates": len(found.candidates),
        "fitting": len(found.fitting),
        "front": len(found.front),
        "best": timed(found.best) | {"config": config(found.best.choice)},
        "top": [timed(c) for c in found.front[:top]],
        "neighbours": [
            row(n.candidate) | {"change": n.change, "why": n.why} for n in neighbours(found)
        ],
    }


def row(c: Candidate) -> dict[str, Any]:
    numbers = {k: v for k, v in c._asdict().items() if k != "choice"}
    return {"architecture": c.choice.label, "family": c.choice.family} | numbers


def show(found: Plan, report: dict[str, Any]) -> None:
    """The front's best, and what stands next to the first of them."""
    title = (
        f"{report['candidates']:,} candidates, {report['fitting']:,} within the budgets, "
        f"{report['front']:,} on the front; the best first"
    )
    head = ("architecture", "params", "active", "train tokens", "loss", "cache", "memory", "token")
    rows = [
        (
            r["architecture"],
            *(count(r[k]) for k in ("params", "params_active", "tokens")),
            f"{r['loss']:.3f}",
            nbytes(r["cache"]),
            nbytes(r["memory"]),
            f"{1e3 * r['seconds']:.2f} ms",
        )
        for r in report["top"]
    ]
    print_table(title, head, rows)
    if report["best"]["training"]:
        show_training(report["top"])
    head = ("instead", "architecture", "why not")
    print_table(
        "next to the best",
        head,
        [(r["change"], r["architecture"], r["why"]) for r in report["neighbours"]],
    )
    law, best = found.use.law, found.best
    where = "inside" if law.fits(best.params_active, best.tokens) else "beyond"
    print(
        f"loss: predicted by {law.source}, {where} the sizes of its fit, for the parameters that "
        "a token uses. The law was fitted to dense transformers: it sees neither mixers, nor the "
        "size of a state, nor experts that a token does not pick."
    )


def write(best: Candidate, folder: Path) -> None:
    """The best one's config.json, which `cookbook cost` and frameworks read."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = format_json.dumps(config(best.choice), indent=2)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written: {error.strerror}") from None
