"""`cookbook links`: alpha and beta of measured collectives, for `cookbook train-time --links`."""

import json as codec
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import tyro

from cookbook_lib.commands.output import count, print_json, print_table, seconds
from cookbook_lib.communication.fit import Fit, best, tiers
from cookbook_lib.results import read


def links(
    rows: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ROWS")],
    backend: str | None = None,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Fit t = alpha steps + volume / beta to what `cookbook bench comm --out ROWS` has measured.

    "near" are the rows inside a node, "far" those over several. For the planner measure far ones
    with one rank in each node: then beta is the rate of one network card.

    Args:
        rows: a file of JSON lines
        backend: of the rows to fit, such as "torch gloo", if there are several
        out: a file for `cookbook train-time --links`
        json: print one JSON document instead of tables
    """
    try:
        found = [row for row in read(rows) if backend in (None, row.get("backend"))]
        found = [row for row in found if "outcome" not in row]  # a size out of memory has no time
    except OSError as error:
        raise ValueError(f"{rows}: cannot be read: {error.strerror}") from None
    report = links_report(found)
    if out:
        out.write_text(codec.dumps(report, indent=2) + "\n")
    if json:
        return print_json(report)
    head = ("tier", "alpha", "beta", "residual", "rows")
    print_table(
        f"{report['backend']}: all collectives together",
        head,
        [line(tier, fit) for tier, fit in report["tiers"].items()],
    )
    print_table(
        "each collective, by the formula that fits best",
        ("collective", "tier", "algorithm", *head[1:]),
        [(f["op"], f["tier"], f["algorithm"], *line("", f)[1:]) for f in report["collectives"]],
    )


def line(tier: str, fit: dict[str, Any]) -> tuple:
    beta = f"{count(fit['beta'])}B/s"
    return tier, seconds(fit["alpha"]), beta, f"{fit['residual']:.1%}", fit["points"]


def links_report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Fits of each tier, and of each collective in it whose rows tell alpha from beta."""
    backends = sorted({row.get("backend", "") for row in rows})
    if len(backends) != 1:
        raise ValueError(
            f"rows are of {len(backends)} backends, expected one: {', '.join(backends) or 'none'}; "
            "choose with --backend"
        )
    each = []
    for tier, op in sorted({(row["nodes"] > 1, row["op"]) for row in rows}):
        group = [row for row in rows if (row["nodes"] > 1, row["op"]) == (tier, op)]
        try:
            found: Fit = best(group)
        except ValueError:
            continue
        each.append({"op": op, "tier": "far" if tier else "near", **asdict(found)})
    return {
        "backend": backends[0],
        "tiers": {tier: asdict(found) for tier, found in tiers(rows).items()},
        "collectives": each,
    }
