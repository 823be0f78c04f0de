"""`cookbook bench check`: rows of results that are whole, plausible, and not there twice.

A rate beyond what the device can do is not a record: it is a wrong unit, work that did not run, or
a clock that did not wait. Where the chip is in our table its data sheet is the limit; elsewhere it
is twice the best ceiling that was measured on the device.
"""

import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import tyro

from cookbook_lib.calculators.chips import CHIPS, named
from cookbook_lib.commands.output import print_json
from cookbook_lib.results import FOLDER, read

Row = dict[str, Any]
NEEDED = ("device", "date")
CLEAN_SINCE = "2026-11-25"  # rows before it may be of a checkout that was changed: 11 of them are
CACHED = 2**28  # bytes: a smaller working set may stay in a cache, beyond the memory's bandwidth
SLACK = 2.0  # beyond the best ceiling measured on a device that is in no table


def bench_check(
    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = (),
    json: bool = False,
) -> None:
    """Check files of results; all of docs/data if none is named.

    Args:
        files: of JSON lines
        json: print one JSON document
    """
    chosen = list(files) or sorted(FOLDER.glob("*.jsonl"))
    if unknown := [file for file in chosen if not file.is_file()]:
        raise ValueError(f"{unknown[0]}: no such file")
    rows = {file: read(file) for file in chosen}
    wrong = list(faults(rows))
    counted = sum(map(len, rows.values()))
    if json:
        print_json({"files": len(rows), "rows": counted, "wrong": wrong})
    if wrong:
        raise ValueError("; ".join(wrong))
    if not json:
        print(f"{counted} rows in {len(rows)} files: all whole and plausible, none twice")


def faults(files: dict[Path, list[Row]]) -> Iterator[str]:
    """What is wrong, as file:line and a sentence."""
    best = ceilings([row for rows in files.values() for row in rows])
    for file, rows in files.items():
        seen: dict[str, int] = {}
        for number, row in enumerate(rows, 1):
            where = f"{file.name}:{number}"
            first = seen.setdefault(repr(sorted(row.items(), key=lambda it: it[0])), number)
            if first != number:
                yield f"{where}: the same row as in line {first}"
            for fault in (*missing(row), *numbers(row), *beyond(row, best)):
                yield f"{where}: {fault}"


def missing(row: Row) -> Iterator[str]:
    """Keys without which a number means nothing."""
    for key in NEEDED:
        if not row.get(key):
            yield f"{key} is missing"
    try:
        datetime.fromisoformat(str(row.get("date")))
    except ValueError:
        yield f"date is {row.get('date')!r}, expected as in 2026-01-31"
    commit, date = str(row.get("commit")), str(row.get("date"))
    if commit.endswith("-dirty") and date >= CLEAN_SINCE:
        yield f"commit is {commit}, expected one without changes: commit them, and measure again"
    if not (row.get("versions") or row.get("torch")):
        yield "versions is missing"


def numbers(row: Row) -> Iterator[str]:
    """Every number is one, and no time is zero or negative; medians lie inside their intervals."""
    for path, value in leaves(row):
        if not math.isfinite(value):
            yield f"{path} is {value}, expected a number"
        if path.startswith("seconds") and not path.endswith(".count") and value <= 0:
            yield f"{path} is {value}, expected above 0"
    took = row.get("seconds")
    whole = isinstance(took, dict) and {"low", "median", "high"} <= set(took)
    if whole and not took["low"] <= took["median"] <= took["high"]:
        yield f"seconds.median is {took['median']}, expected between low and high"


def beyond(row: Row, best: dict[tuple[str, str], float]) -> Iterator[str]:
    """Rates that the device cannot reach."""
    device, dtype = str(row.get("device")), str(row.get("dtype", ""))
    found, chip = rates(row), CHIPS.get(named(device) or "")
    if chip:
        most = chip.rate(dtype) / (2 if dtype == "fp32" else 1)  # TF32 runs at half the rate
        if found.get("flops", 0) > most:
            yield f"{found['flops']:.3g} FLOP/s, expected at most {most:.3g}: {chip.source}"
        large = row.get("nbytes", CACHED) >= CACHED
        if large and found.get("nbytes", 0) > chip.bandwidth:
            yield f"{found['nbytes']:.3g} bytes/s, expected at most {chip.bandwidth:.3g}"
        memory = chip.memory * 2**30 / 1e9  # sheets say 80 GB of what drivers count as 80 GiB
        for path, value in leaves({k: row.get(k) or {} for k in ("measured", "peak_bytes")}):
            if value > memory:
                yield f"{path} is {value:.3g} bytes, expected at most {memory:.3g}"
    elif found.get("flops", 0) > SLACK * best.get((device, dtype), math.inf):
        most = best[device, dtype]
        yield f"{found['flops']:.3g} FLOP/s, where a large product reached {most:.3g}"


def rates(row: Row) -> dict[str, float]:
    """FLOP/s and bytes/s of a row, from its counts and its seconds, or as it says."""
    took = row.get("seconds")
    said = {"flops": row.get("flops_per_second"), "nbytes": row.get("bytes_per_second")}
    found = {key: rate or 0.0 for key, rate in said.items()}
    if isinstance(took, dict) and took:
        one = middle(took) if "median" in took else min(map(middle, took.values()))
        for key in found:
            if one and isinstance(row.get(key), int | float):
                found[key] = max(found[key], row[key] / one)
    return found


def middle(took: Any) -> float:
    """The median of samples, of a timing as rows hold it, or of one number."""
    if isinstance(took, dict):
        return float(took["median"])
    return median(took) if isinstance(took, list) else float(took)


def ceilings(rows: list[Row]) -> dict[tuple[str, str], float]:
    """The best FLOP/s of a large product that rows tell of a device, for each dtype."""
    best: dict[tuple[str, str], float] = {}
    for row in rows:
        top = row.get("ceilings") or {}
        reached = row.get("flops_per_second") if row.get("benchmark") == "ceilings" else None
        value = reached or (top.get("flops") if isinstance(top, dict) else None)
        if value:
            key = str(row.get("device")), str(row.get("dtype", ""))
            best[key] = max(best.get(key, 0.0), value)
    return best


def leaves(thing: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a row, with where it is."""
    if isinstance(thing, dict):
        for key, value in thing.items():
            yield from leaves(value, f"{path}.{key}" if path else key)
    elif isinstance(thing, list):
        for i, value in enumerate(thing):
            yield from leaves(value, f"{path}[{i}]")
    elif isinstance(thing, int | float) and not isinstance(thing, bool):
        yield path, thing
