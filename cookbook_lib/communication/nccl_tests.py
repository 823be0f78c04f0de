"""What nccl-tests prints, and the JSON that its option -J writes, as rows of `cookbook bench comm`.

The table is read by its head, since its columns have changed over the years. Read against
src/util.cu of NVIDIA/nccl-tests at 0fdb00a: times in microseconds, bandwidths in 1e9 bytes/s.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cookbook_lib.communication.micro import Row, row, text_of

OPS = {  # program -> collective; rccl-tests uses the same names
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "gather": "gather",
    "scatter": "scatter",
    "sendrecv": "permute",  # each rank to the next, round a ring
}
DTYPES = {"float": "fp32", "half": "fp16", "bfloat16": "bf16", "double": "fp64"}
TAG = re.compile(r"^\s*\[\d+,\d+\]<std\w+>:")  # mpirun --tag-output
PROGRAM = re.compile(r"\b([a-z_]+?)_perf(?:_mpi)?\b")
RANK = re.compile(r"#\s+Rank\s+(\d+) .*?\bPid\s+(\d+)")
AVERAGE = re.compile(r"#\s*Avg bus bandwidth\s*:\s*([\d.e+-]+)")


def nccl_tests(path: Path, op: str | None = None, ranks: int | None = None) -> list[Row]:
    """The rows of a file, text or JSON: two for each size, out-of-place and in-place.

    op, ranks: where the file does not say them. `ValueError` names the file and the line of what
    does not fit, also where a printed bandwidth is not size over time, or a mean not the rows'.
    """
    text = text_of(path)
    if text.lstrip().startswith("{"):
        return from_json(path, text, op, ranks)
    found, head, seen, rows = op, None, {}, []
    for number, line in enumerate(text.splitlines(), 1):
        where, line = f"{path}:{number}", TAG.sub("", line)
        words = line.lstrip("# ").split()
        if match := RANK.match(line):
            rank, process = int(match[1]), match[2]
            if seen.setdefault(rank, process) != process:
                raise ValueError(
                    f"{where}: rank {rank} is there twice, expected once: each process was alone, "
                    "as without MPI; build nccl-tests with MPI=1"
                )
        elif words[:2] == ["size", "count"]:
            head = words
            if "cputime" in head:
                raise ValueError(f"{where}: CPU times, expected times: run without -C")
        elif match := AVERAGE.match(line):
            check_average(where, float(match[1]), rows)
            continue
        elif head and words and words[0].isdigit() and not line.lstrip().startswith("#"):
            if len(words) < len(head):
                raise ValueError(f"{where}: {len(words)} columns, expected {len(head)}: {head}")
            size = ranks or (1 + max(seen) if seen else None)
            rows += measured(where, dict_of(head, words), op or found, size)
        if not head and (program := PROGRAM.search(line)):
            found = op or OPS.get(program[1], program[1])
    if not rows:
        raise ValueError(f"{path}: no row of numbers, expected the table that nccl-tests prints")
    return rows


def dict_of(head: list[str], words: list[str]) -> dict[str, list[str]]:
    """Words by column; time, algbw, busbw and errors twice: out-of-place, then in-place."""
    found: dict[str, list[str]] = {}
    for name, word in zip(head, words, strict=False):
        found.setdefault({"error": "#wrong"}.get(name, name), []).append(word)
    return found


def measured(where: str, cells: dict[str, list[str]], op: str | None, ranks: int | None) -> list:
    """Both rows of a line, each held against its own size and time."""
    try:
        nbytes, rows = int(cells["size"][0]), []
        columns = ("time", "algbw", "busbw", "#wrong")
        for i, words in enumerate(zip(*(cells[name] for name in columns), strict=True)):
            time, algbw, busbw = (float(word) for word in words[:3])
            wrong = None if words[3] == "N/A" else int(float(words[3]))
            made = row("nccl-tests", op, ranks, nbytes, 1e-6 * time, where)
            made |= judged(cells["type"][0], i == 1, wrong)
            for name, said, word in (("algbw", algbw, words[1]), ("busbw", busbw, words[2])):
                slack = half_a_digit(word) + made[name] / 1e9 * half_a_digit(words[0]) / time
                if abs(said - made[name] / 1e9) > 1.01 * slack:
                    raise ValueError(
                        f"{where}: {name} is {said:g}, expected {made[name] / 1e9:.4g} GB/s for "
                        f"{nbytes} bytes of {op} by {ranks} ranks in {time:g} us"
                    )
            rows.append(made)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        if str(error).startswith(where):
            raise
        raise ValueError(f"{where}: cannot be read as a row of nccl-tests: {error}") from None
    return rows


def judged(dtype: str, in_place: bool, wrong: int | None) -> dict[str, Any]:
    """wrong: numbers that nccl-tests found wrong, None if it did not look (-c 0)."""
    found = {"dtype": DTYPES.get(dtype, dtype), "in_place": in_place, "wrong": wrong}
    return found | {"checked": wrong == 0}


def half_a_digit(word: str) -> float:
    """Half of the last digit that was printed: 297.16 may be 0.005 off, 1.2e+06 50,000."""
    digits, _, power = word.lower().partition("e")
    return 0.5 * 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))


def check_average(where: str, said: float, rows: list[Row]) -> None:
    """The mean bus bandwidth that is printed, against that of the rows above it."""
    if not rows:
        raise ValueError(f"{where}: a mean of no rows, expected the table above it")
    mean = sum(row["busbw"] for row in rows) / len(rows) / 1e9
    if abs(said - mean) > 0.005 + 1e-3 * mean:
        raise ValueError(
            f"{where}: the mean bus bandwidth is {said:g}, expected {mean:.5g} GB/s from the "
            f"{len(rows)} rows above: lines are missing, or are of two runs"
        )


def from_json(path: Path, text: str, op: str | None, ranks: int | None) -> list[Row]:
    try:
        return list(json_rows(path, json.loads(text), op, ranks))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: {error} is missing or is no number, expected what nccl-tests -J writes"
        ) from None


def json_rows(path: Path, said: dict[str, Any], op: str | None, ranks: int | None) -> Iterator[Row]:
    program = PROGRAM.search(said["args"][0])
    op = op or (OPS.get(program[1], program[1]) if program else None)
    ranks = ranks or len(said["config"]["devices"])
    for number, result in enumerate(said["results"], 1):
        where = f"{path}: result {number}"
        for place in ("out_of_place", "in_place"):
            if (body := result[place]) is None:
                continue
            if "cpu_time" in body:
                raise ValueError(f"{where}: CPU times, expected times: run without -C")
            made = row("nccl-tests", op, ranks, result["size"], 1e-6 * body["time"], where)
            for name in ("algbw", "busbw"):
                bandwidth = 1e9 * body[name.replace("bw", "_bw")]
                if abs(bandwidth - made[name]) > 1e3 + 1e-3 * made[name]:
                    raise ValueError(
                        f"{where}: {name} is {bandwidth / 1e9:g}, expected {made[name] / 1e9:g}"
                    )
            wrong = None if body["nwrong"] is None else int(body["nwrong"])
            yield made | judged(result["type"], place == "in_place", wrong)
