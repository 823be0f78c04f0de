"""The committed results for the page that filters them: `docs/data` as one small JSON file.

A file in `docs/data` without an entry in KINDS is shown too, by the numbers on top of its rows.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cookbook_lib.publishing.boxes import many
from cookbook_lib.results import FOLDER, read

Column = tuple[str, str, str]  # what it says, where it is in a row, its unit
TIME, RATE = ("time", "seconds.median", "s"), ("rate", "flops_per_second", "FLOP/s")
TOKENS, SHARE = ("tokens", "tokens", ""), ("of the roofline", "roofline", "%")
NAMES = ("block", "part", "op", "method", "benchmark", "kind", "variant", "task", "model")
DIGITS = 4  # as many as a table and a plot show


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a file holds. name: the key of a block or an op; by: further keys that tell lines of
    the plot apart; columns: the first is the plot's x and the last its y."""

    title: str
    name: str
    command: str
    columns: tuple[Column, ...]
    by: tuple[str, ...] = ()


KINDS = {
    "blocks": Kind(
        title="Blocks beside their references",
        name="block",
        command="cookbook bench block mamba1 mamba2 --tokens 4096 --against transformers",
        by=("pass",),
        columns=(TOKENS, RATE, SHARE, TIME),
    ),
    "crossovers": Kind(
        title="Mixers against length",
        name="block",
        command="cookbook bench block attention --d-model 512 --tokens 256 512 1024",
        by=("pass",),
        columns=(("length", "tokens+context", ""), TOKENS, RATE, SHARE, TIME),
    ),
    "model_blocks": Kind(
        title="A model, block by block",
        name="part",
        command="cookbook bench block --model zamba2-1.2b --tokens 128",
        by=("model", "pass"),
        columns=(TOKENS, RATE, ("uses", "uses", ""), TIME),
    ),
    "gemms": Kind(
        title="Products of matrices",
        name="benchmark",
        command="cookbook bench gemm --model zamba2-2.7b --vary d_model --near 2560 --tokens 256",
        by=("layout",),
        columns=(("n", "n", ""), ("m", "m", ""), ("k", "k", ""), TIME, SHARE, RATE),
    ),
    "memory": Kind(
        title="Memory of a training step",
        name="model",
        command="cookbook bench memory",
        columns=(
            ("predicted", "predicted.total", "B"),
            TOKENS,
            ("layers", "layers", ""),
            ("predicted / measured", "ratio", ""),
            ("measured", "measured.total", "B"),
        ),
    ),
    "decoding": Kind(
        title="Decoding beside transformers",
        name="model",
        command="cookbook bench generate",
        by=("kind", "width"),
        columns=(
            ("context", "context", ""),
            ("batch", "batch", ""),
            ("cache", "cache_bytes", "B"),
            ("times as fast", "times_as_fast.median", ""),
            ("time of a step", "seconds.ours.median", "s"),
        ),
    ),
    "links": Kind(
        title="Collectives over links of a known rate",
        name="op",
        command="cookbook bench comm --op all --devices 4",
        by=("ranks", "rate"),
        columns=(
            ("message", "nbytes", "B"),
            ("ranks", "ranks", ""),
            ("time", "seconds.median", "s"),
            ("algbw", "algbw", "B/s"),
            ("busbw", "busbw", "B/s"),
        ),
    ),
    "wires": Kind(
        title="Bytes that collectives send",
        name="op",
        command="cookbook bench comm --op all --devices 4",
        columns=(("message", "nbytes", "B"), ("ranks", "ranks", ""), ("sent", "sent", "B")),
    ),
    "tree_attention": Kind(
        title="Attention to keys on several ranks",
        name="method",
        command="cookbook bench decode --method tree-fused,ring-kv --devices 4 --context 64Ki",
        by=("p", "rate"),
        columns=(
            ("keys", "s", ""),
            ("ranks", "p", ""),
            ("sent", "sent", "B"),
            ("steps", "steps", ""),
            TIME,
        ),
    ),
    "annealing": Kind(
        title="Ends of training runs",
        name="variant",
        command="cookbook train anneal --out rows.jsonl",
        columns=(("seed", "seed", ""), ("loss on code", "code", ""), ("on prose", "prose", "")),
    ),
    "tasks": Kind(
        title="Tasks that need memory",
        name="task",
        command="cookbook train tasks --out rows.jsonl",
        by=("model",),
        columns=(
            ("seed", "seed", ""),
            ("parameters", "params", ""),
            ("state", "state_bytes", "B"),
            ("steps", "budget", ""),
            ("accuracy", "accuracy", "%"),
        ),
    ),
}


def generic(rows: list[dict[str, Any]]) -> Kind:
    """For a file that nobody described: its numbers, and the first key that names something."""
    keys = dict.fromkeys(key for row in rows for key in row)
    numbers = [k for k in keys if type(at(rows[0], k)) in (int, float)][:6]
    name = next((key for key in NAMES if key in keys), "device")
    return Kind(title="", name=name, command="", columns=tuple((k, k, "") for k in numbers))


def at(row: dict[str, Any], path: str) -> Any:
    """A value in a row: `seconds.median`, `tokens+context`; of a list the last, as of a curve."""
    if "+" in path:
        return sum(at(row, part) for part in path.split("+"))
    found: Any = row
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found[-1] if isinstance(found, list) and found else found


def rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def data(folder: Path = FOLDER) -> dict[str, Any]:
    """All files for the page. A row: line, name, device, dtype, date, further keys, columns."""
    return {"files": [file(path) for path in sorted(folder.glob("*.jsonl"))]}


def file(path: Path) -> dict[str, Any]:
    rows = read(path)
    kind = KINDS.get(path.stem) or generic(rows)
    return {
        "file": path.stem,
        "title": kind.title or path.stem,
        "name": kind.name,
        "command": kind.command,
        "by": kind.by,
        "columns": [{"label": label, "unit": unit} for label, _, unit in kind.columns],
        "rows": [list(cells(number, row, kind)) for number, row in enumerate(rows, 1)],
    }


def cells(number: int, row: dict[str, Any], kind: Kind) -> Iterator[Any]:
    yield number
    for key in (kind.name, "device", "dtype"):
        yield "" if row.get(key) is None else str(row[key])
    yield str(row.get("date", ""))[:10]
    for key in kind.by:
        yield "" if row.get(key) is None else str(row[key])
    for _, path, _ in kind.columns:
        yield rounded(at(row, path))


def as_json(folder: Path = FOLDER) -> str:
    return json.dumps(data(folder), separators=(",", ":"), allow_nan=False)


def files(folder: Path = FOLDER) -> str:
    """The files as a list, each with the command that adds such rows."""
    lines = []
    for of in data(folder)["files"]:
        rows, devices = of["rows"], {row[2] for row in of["rows"]}
        made = f"<br>\n    `{of['command']}`" if of["command"] else ""
        lines.append(
            f"- {of['title']}: [{of['file']}.jsonl](data/{of['file']}.jsonl), "
            f"{many(len(rows), 'row')} from {many(len(devices), 'device')}{made}"
        )
    return "\n".join(lines)
