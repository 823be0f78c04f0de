"""The pieces of the planner's answer: tables, charts and drawings made of reports."""

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from cookbook_lib.calculators.diagram import WIDTH, draw
from cookbook_lib.calculators.memory_plan import PARTS
from cookbook_lib.calculators.model import Model
from cookbook_lib.commands.output import gb, seconds
from cookbook_lib.publishing.planner import charts
from cookbook_lib.publishing.planner.answers import COMMANDS, config_of, shell
from cookbook_lib.publishing.planner.settings import State
from cookbook_lib.publishing.tables import Cell, digits, flop, giga, share, size, table, whole

Reports = dict[str, dict[str, Any] | None]  # model letter -> report, None where there is none
NONE = Cell("–")
NARROW = 330  # pixels: the drawing on a phone


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
    return f'<pre><code tabindex="0">{escape(chr(10).join(lines))}</code></pre>'


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
