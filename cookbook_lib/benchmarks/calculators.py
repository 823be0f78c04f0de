"""How fast the calculators are: importing them, one row table, and a whole `cookbook cost`."""

import platform
import subprocess
import sys
from statistics import median
from time import perf_counter

from cookbook_lib.commands.output import print_json, print_table

ROWS = """
from time import perf_counter
from cookbook_lib.calculators.presets import preset
model = preset("zamba2-7b")
start = perf_counter()
rows = model.costs(b=1, l=4096)
print(perf_counter() - start)
"""
IMPORT = """
from time import perf_counter
start = perf_counter()
import cookbook_lib.calculators.presets
print(perf_counter() - start)
"""
COST = [sys.executable, "-m", "cookbook_lib", "cost", "zamba2-7b", "--json"]


def printed(program: str) -> float:
    """The seconds that a fresh interpreter prints."""
    run = [sys.executable, "-c", program]
    return float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


def whole(command: list[str]) -> float:
    """The seconds that a whole process takes."""
    start = perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return perf_counter() - start


CASES = {
    "import of the calculators": lambda: printed(IMPORT),
    "all rows of zamba2-7b, first time": lambda: printed(ROWS),
    "whole process: cookbook cost zamba2-7b --json": lambda: whole(COST),
}


def bench_calculators(repeats: int = 7, json: bool = False) -> None:
    """Time the calculators, each measurement in a fresh process.

    Args:
        repeats: measurements of each case, after one that is not counted
        json: print one JSON document instead of a table
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}, expected at least 1")
    results = []
    for case, measure in CASES.items():
        seconds = sorted([measure() for _ in range(repeats + 1)][1:])
        results.append(
            {"case": case, "min": seconds[0], "median": median(seconds), "max": seconds[-1]}
        )
    if json:
        versions = {"python": platform.python_version(), "machine": platform.machine()}
        return print_json({**versions, "repeats": repeats, "seconds": results})
    rows = [
        [r["case"], *(f"{1e3 * r[k]:.1f} ms" for k in ("min", "median", "max"))] for r in results
    ]
    print_table(f"{repeats} runs each", ("case", "min", "median", "max"), rows)
