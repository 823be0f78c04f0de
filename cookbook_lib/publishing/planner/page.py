"""What the planner writes under its form, as HTML made of the reports; and its one entry point."""

import json
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from cookbook_lib.calculators.diagram import WIDTH, draw
from cookbook_lib.calculators.memory_plan import PARTS
from cookbook_lib.calculators.model import Model
from cookbook_lib.commands.output import gb, seconds
from cookbook_lib.publishing.planner import charts
from cookbook_lib.publishing.planner.answers import (
    COMMANDS,
    cache_curve,
    config_of,
    model_of,
    report,
    shell,
)
from cookbook_lib.publishing.planner.settings import State, parse
from cookbook_lib.publishing.tables import Cell, digits, flop, giga, share, size, span, table, whole

CONTEXTS = tuple(2**k for k in range(8, 21))
Reports = dict[str, dict[str, Any] | None]  # model letter -> report, None where there is none
NONE = Cell("–")
NARROW = 330  # pixels: the drawing on a phone


def respond(request: str) -> str:
    """What the page asks for, as JSON: {"parts": {"glance": HTML, …}, "errors": [line, …]}.

    request: {"state": {name: word}, "part": one of PARTS_OF}.
    """
    asked = json.loads(request)
    try:
        state = parse(asked["state"])
        return json.dumps(PARTS_OF[asked["part"]](state))
    except ValueError as error:
        return json.dumps({"parts": {}, "errors": [" ".join(str(error).split())]})


def quick(state: State) -> dict[str, Any]:
    """All that is there in a moment."""
    errors: list[str] = []
    models = {k: tried(errors, model_of, line, state.config) for k, line in state.models.items()}
    if models.get("A") is None:
        return {"parts": {}, "errors": errors}
    got = {
        name: {
            k: tried(errors, report, name, line, state.config, state.values, **options)
            if models[k]
            else None
            for k, line in state.models.items()
        }
        for name, options in (("cost", {}), ("memory", {"search": False}), ("time", {}))
    }
    names = {k: m.name if m else "" for k, m in models.items()}
    batch = state.values["batch"]
    lines = {k: cache_curve(m, batch, CONTEXTS) for k, m in models.items() if m}
    return {
        "parts": {
            "glance": glance(names, got, state),
            "cache": charts.curves(
                "Bytes of the cache against the context", CONTEXTS, lines, state.values["context"]
            )
            + legend(names),
            "memory": memory_bars(got["memory"]),
            "components": components(names, got["cost"]),
            "models": "".join(drawing(m) for m in models.values() if m),
            "commands": commands(state),
        },
        "fields": {k: fields(line, state.config, models[k]) for k, line in state.models.items()},
        "errors": errors,
    }


def serving(state: State) -> dict[str, Any]:
    """What takes a moment longer."""
    errors: list[str] = []
    served = {
        k: tried(errors, report, "serve", line, state.config, state.values)
        for k, line in state.models.items()
    }
    names = {
        k: m.name if (m := tried([], model_of, line, state.config)) else line
        for k, line in state.models.items()
    }
    rows = [
        row("Time to the first token", served, lambda r: span(r, "ttft")),
        row("Time for each further token", served, lambda r: span(r, "tpot")),
        row("Memory", served, lambda r: size(r["memory_bytes"])),
        row("Largest batch", served, lambda r: whole(r["largest_batch"])),
        row(
            "Longest context",
            served,
            lambda r: whole(n) if (n := r["longest_context"]) else Cell("no limit"),
        ),
    ]
    return {"parts": {"serving": table("Serving on one chip", head(names), rows)}, "errors": errors}


def advice(state: State) -> dict[str, Any]:
    """What would make a training fit that does not; in large models there is much to try."""
    reports = [
        tried([], report, "memory", line, state.config, state.values)
        for line in state.models.values()
    ]
    said = "".join(f"<p>{remedy(r)}</p>" for r in reports if r and not r["fits"])
    return {"parts": {"advice": said}, "errors": []}


def export(state: State) -> dict[str, Any]:
    """Every report of every model, as its command prints it with --json."""
    errors: list[str] = []
    every = {
        k: {
            name: {
                "command": shell(name, line, state.values),
                "report": tried(errors, report, name, line, state.config, state.values),
            }
            for name in COMMANDS
        }
        for k, line in state.models.items()
    }
    return {"parts": {"json": json.dumps(every, indent=2, allow_nan=False)}, "errors": errors}


def tried(errors: list[str], make: Callable, *args, **options) -> Any:
    """The result, or None with its error noted once."""
    try:
        return make(*args, **options)
    except ValueError as error:
        line = " ".join(str(error).split())
        if line not in errors:
            errors.append(line)
        return None


def glance(names: Mapping[str, str], got: Mapping[str, Reports], state: State) -> str:
    """The numbers that a reader asks for first, a column for each model."""
    cost, memory, time = got["cost"], got["memory"], got["time"]
    rows = [
        row("Parameters", cost, lambda r: whole(r["params"])),
        row("Active for a token", cost, lambda r: whole(r["params_active"])),
        row("Forward, each token", cost, lambda r: flop(r["flops_per_token"])),
        row("Decode, each token", cost, lambda r: flop(r["decode_flops"] / r["batch"])),
        row("Training step of this batch", cost, lambda r: flop(r["training_flops"])),
        row("Cache", cost, lambda r: size(r["cache_bytes"])),
        row("of it keys and values", cost, lambda r: size(r["kv_bytes"])),
        row("Memory to train, fullest GPU", memory, lambda r: giga_of(r)),
        row("Time of a step", time, lambda r: Cell(seconds(r["seconds_per_step"]))),
        row("Days of training", time, lambda r: digits(r["days"], 1)),
        row("GPU hours", time, lambda r: Cell(f"{r['gpu_hours']:,.0f}")),
        row("Part of the peak (MFU)", time, mfu),
        row("Bound by", time, lambda r: Cell(r["bound_by"])),
    ]
    if state.values["price"] != "":
        rows.append(row("Cost", time, lambda r: Cell(f"{r['cost']:,.0f}")))
    return table("At a glance", head(names), rows)


def head(names: Mapping[str, str]) -> list[str]:
    return ["", *(f"{k}: {name}" if len(names) > 1 else name for k, name in names.items())]


def row(label: str, reports: Reports, shown: Callable[[dict], Cell]) -> list[Cell | str]:
    return [label, *(NONE if r is None else shown(r) for r in reports.values())]


def giga_of(r: dict[str, Any]) -> Cell:
    verdict = "fits" if r["fits"] else "does not fit"
    return Cell(f"{gb(r['total'])} of {r['chip_bytes'] / 1e9:.0f} GB, {verdict}", r["total"])


def mfu(r: dict[str, Any]) -> Cell:
    most = r["mfu"] == r["mfu_overlapped"]
    return Cell(f"{r['mfu']:.1%}{' at most' * most}", r["mfu"])


def components(names: Mapping[str, str], cost: Reports) -> str:
    """Parameters and FLOPs of each component, by model."""
    parts = []
    for k, r in cost.items():
        if r is None:
            continue
        rows = [
            [
                entry["component"],
                whole(entry["params"]),
                share(entry["params"], r["params"]),
                flop(entry["flops"] / (r["batch"] * r["tokens"])),
                share(entry["flops"], r["flops"]),
            ]
            for entry in r["rows"]
        ]
        title = head(names)[1 + list(names).index(k)]
        columns = ("component", "parameters", "share", "FLOPs of a token", "share")
        parts.append(table(title, columns, rows))
    return "".join(parts)


def memory_bars(memory: Reports) -> str:
    """What fills the fullest GPU, part by part, as bars against the chip and as a table."""
    known = {k: r for k, r in memory.items() if r}
    if not known:
        return ""
    rows = {k: {part: r[part] for part in PARTS} for k, r in known.items()}
    room = next(iter(known.values()))["chip_bytes"]
    drawn = charts.bars("Memory of the fullest GPU by part", rows, room)
    cells = [[part, *(giga(r[part]) for r in known.values())] for part in PARTS]
    keys = "".join(f'<span class="part part{n}">{part}</span>' for n, part in enumerate(PARTS))
    words = table("Memory of the fullest GPU, GB", ["part", *known], cells)
    return f'{drawn}<p class="planner-keys">{keys}</p>{words}'


def legend(names: Mapping[str, str]) -> str:
    keys = (f'<span class="line {k}">{escape(name)}</span>' for k, name in names.items() if name)
    return f'<p class="planner-keys">{"".join(keys)}</p>'


def drawing(model: Model) -> str:
    """The layers, once for wide and once for narrow windows."""
    widths = {"model-wide": WIDTH, "model-narrow": NARROW}
    return "".join(
        f'<figure class="nb-figure {kind}">{draw(model, width=width)}</figure>'
        for kind, width in widths.items()
    )


def remedy(r: dict[str, Any]) -> str:
    """What to change so that the training fits."""
    if not r["change"]:
        return f"{escape(r['model'])} does not fit, and nothing that was tried makes it fit."
    return (
        f"{escape(r['model'])} fits with <code>{escape(r['change'])}</code>: "
        f"{gb(r['change_total'])} GB."
    )


def commands(state: State) -> str:
    lines = [shell(name, line, state.values) for line in state.models.values() for name in COMMANDS]
    return f"<pre><code>{escape(chr(10).join(lines))}</code></pre>"


def fields(line: str, config: str, model: Model | None) -> list[list[Any]]:
    """What the form lets a reader edit: the pattern, and each number of the config."""
    if model is None:
        return []
    numbers = [
        [name, value]
        for name, value in config_of(line, config).items()
        if type(value) in (int, float)
    ]
    return [["pattern", model.pattern], *numbers]


PARTS_OF: dict[str, Callable[[State], dict[str, Any]]] = {
    "quick": quick,
    "serving": serving,
    "advice": advice,
    "export": export,
}
