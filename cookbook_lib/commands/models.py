"""`cookbook models`: the presets and what they weigh."""

from itertools import groupby

from cookbook_lib.calculators import presets
from cookbook_lib.commands.output import count, print_json, print_table


def models(json: bool = False) -> None:
    """List the presets: parameters, active ones, pattern and source.

    Args:
        json: print one JSON document instead of a table
    """
    rows = [
        {
            "model": name,
            "family": model.family,
            "params": model.params(),
            "params_active": model.params_active(),
            "pattern": model.pattern,
            "legend": model.legend(),
            "source": model.source,
        }
        for name in presets.names()
        for model in [presets.preset(name)]
    ]
    if json:
        return print_json(rows)
    head = ("model", "params", "active", "pattern", "source")
    print_table(
        f"{len(rows)} presets",
        head,
        [
            (
                r["model"],
                count(r["params"]),
                count(r["params_active"]),
                short(r["pattern"]),
                r["source"].replace("https://", ""),
            )
            for r in rows
        ],
    )


def short(pattern: str) -> str:
    """A pattern with its runs counted: mmmmmA -> 5m A."""
    runs = [(letter, len(list(run))) for letter, run in groupby(pattern)]
    return " ".join(f"{n}{letter}" if n > 1 else letter for letter, n in runs)
