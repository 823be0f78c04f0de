"""The committed results for the page that filters them: `docs/data` as one small JSON file.

A file without an entry in KINDS is shown too, by the numbers on top of its rows.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cookbook_lib.benchmarks.check import leaves
from cookbook_lib.publishing.boxes import many
from cookbook_lib.publishing.result_kinds import KINDS, Kind
from cookbook_lib.results import FOLDER, read

NAMES = ("block", "part", "op", "method", "benchmark", "kind", "variant", "task", "model")
MOST = 6  # columns of a file that nobody described
DIGITS = 4  # as many as a table and a plot show
SAID = {"ranks": "{} ranks", "p": "{} ranks", "width": "width {}", "uplink": "uplink {}"}  # of `by`


def generic(rows: list[dict[str, Any]]) -> Kind:
    """For a file that nobody described: its numbers, and the first key that names something."""
    keys = dict.fromkeys(key for row in rows for key in row)
    paths = dict.fromkeys(path for row in rows for path, _ in leaves(row) if "[" not in path)
    columns = tuple((path, path, "") for path in list(paths)[:MOST])
    name = next((key for key in NAMES if key in keys), "device")
    return Kind(title="", name=name, command="", columns=columns)


def at(row: dict[str, Any], path: str) -> Any:
    """A value in a row: `seconds.median`, `tokens+context`; of a list the last, as of a curve."""
    if "+" in path:
        parts = [at(row, part) for part in path.split("+")]
        return None if None in parts else sum(parts)
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
        yield said(key, row.get(key))
    for _, path, _ in kind.columns:
        yield rounded(at(row, path))


def said(key: str, value: Any) -> str:
    """A further key's value, so that it can be read without the key."""
    if value is None:
        return ""
    text = f"{value / 1e6:g} MB/s" if key in ("rate", "uplink") else str(value)
    return SAID.get(key, "{}").format(text)


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
