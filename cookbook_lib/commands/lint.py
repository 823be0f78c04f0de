"""`cookbook lint`: which sizes of a model waste a GPU, how much, and what to change them to."""

from dataclasses import asdict
from typing import Annotated

import tyro

from cookbook_lib.calculators import lint as rules
from cookbook_lib.calculators import presets
from cookbook_lib.calculators.sizing import Setting
from cookbook_lib.commands.output import print_json, print_table


def lint(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    chip: str = "h100",
    tp: int = 1,
    tokens: int = 8192,
    json: bool = False,
) -> None:
    """Sizes of a model that waste a GPU, with the reason, its source, and better values nearby.

    Values are those of the whole model, or of one rank where ranks hold more than their part.

    Args:
        model: a preset (see `cookbook models`), a config.json, or a folder that holds one
        chip: h200, h100, a100, l40s or rtx4090: the rules are those of CUDA kernels
        tp: ranks of tensor parallelism
        tokens: of one micro-batch, all sequences together
        json: print one JSON document instead of a table
    """
    for name, value in {"tp": tp, "tokens": tokens}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected a whole number above 0")
    spec, where = presets.resolve(model), Setting(tokens=tokens, chip=chip.lower(), tp=tp)
    found = rules.lint(spec, where)
    split = all(f.rule != "tensor parallel" for f in found)
    useful = rules.efficiency(spec, where) if split else None
    if json:
        report = {"model": spec.name, **asdict(where), "efficiency": useful}
        return print_json(report | {"findings": [asdict(f) for f in found]})
    title = f"{spec.name} on {chip}, {tokens} tokens, tp {tp}"
    if found:
        head = ("rule", "field", "value", "change to", "useful", "lost", "where")
        print_table(title, head, [row(f) for f in found])
        for rule in dict.fromkeys(f.rule for f in found):
            first = next(f for f in found if f.rule == rule)
            print(f"{rule}: {first.why} [{first.source}]")
    else:
        print(f"{title}: nothing found")
    if useful is not None:
        print(f"products with weights: {useful:.1%} of tiles and SMs do useful work, at best")


def row(f: rules.Finding) -> tuple:
    """A finding as a line: 0 useful means that the kernel refuses."""
    better = " or ".join(f"{n:,}" for n in (f.down, f.up) if n)
    useful = "" if f.efficiency is None else f"{f.efficiency:.0%}" if f.efficiency else "refused"
    lost = f"{f.lost:.1%}" if f.lost else ""
    where = f"{f.where} ({f.uses} uses)" if f.uses > 1 else f.where
    return f.rule, f.field, f.value, better, useful, lost, where
