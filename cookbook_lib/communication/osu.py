"""What the OSU Micro-Benchmarks print, as rows of `cookbook bench comm`.

Latencies are in microseconds, bandwidths in 1e6 bytes/s. Where OSU counts what one rank gives to
one other, the row counts the whole, as nccl-tests does: so the same message has the same size.
"""

import re
from pathlib import Path

from cookbook_lib.communication.micro import Row, row, text_of

TITLE = re.compile(
    r"^#?\s*OSU (\w+?)(?:-\w+)? (.*?) ?(?:Latency|Bandwidth)?(?: Test)?(?: v[\d.]+)?$"
)
PAIRS = re.compile(r"pairs:\s*(\d+)")
EACH = "each"  # the printed size is what goes from one rank to one other
WHOLE = "whole"
TESTS = {  # what stands in the title -> collective, what the size counts
    "": ("send", WHOLE),  # OSU halves the round trip itself
    "Bi-Directional": ("exchange", WHOLE),
    "Multiple Bandwidth / Message Rate": ("send", WHOLE),
    "Allreduce": ("all_reduce", WHOLE),
    "Allgather": ("all_gather", EACH),
    "Reduce_scatter": ("reduce_scatter", WHOLE),
    "All-to-All Personalized Exchange": ("all_to_all", EACH),
    "Broadcast": ("broadcast", WHOLE),
    "Reduce": ("reduce", WHOLE),
    "Gather": ("gather", EACH),
    "Scatter": ("scatter", EACH),
}
MICROSECONDS = ("Latency (us)", "Avg Latency(us)", "Avg Lat(us)")
MEDIAN = "Median Latency(us)"  # of `plain_mpi`: over the calls, of the slowest rank
COLUMNS = {"least": "Min Latency(us)", "most": "Max Latency(us)", "median": MEDIAN}
MEGABYTES = ("Bandwidth (MB/s)", "MB/s")


def osu(path: Path, ranks: int | None = None) -> list[Row]:
    """The rows of a file, which may hold several tests; messages of zero bytes are left out.

    ranks: of the collectives, which OSU does not print; of a point-to-point test it is two. The row
    has OSU's minimum and maximum over the ranks with -f. A bandwidth test has many messages under
    way, so `seconds` of its rows is a message's share, not its latency: `windowed` says so. Of
    several pairs, and of both directions, the row has what each of them gets.
    """
    test, head, pairs, rows = None, None, 1, []
    for number, line in enumerate(text_of(path).splitlines(), 1):
        where, line = f"{path}:{number}", line.strip()
        if match := TITLE.match(line):
            if match[2] not in TESTS:
                known = ", ".join(repr(name) for name in TESTS if name)
                raise ValueError(f"{where}: the test is {match[2]!r}, expected one of {known}")
            test, head, pairs = TESTS[match[2]], None, 1
        elif match := PAIRS.search(line):
            pairs = int(match[1])
        elif test and re.match(r"#?\s*Size\s", line):
            head = re.split(r"\s{2,}", line.lstrip("# "))
            if not {*head} & {*MICROSECONDS, *MEGABYTES}:
                raise ValueError(f"{where}: no latency and no bandwidth among the columns {head}")
        elif line[:1].isdigit():
            if not (test and head):
                raise ValueError(f"{where}: numbers before a title and a head, expected OSU's")
            words = line.split()
            if len(words) != len(head):
                raise ValueError(f"{where}: {len(words)} columns, expected {len(head)}: {head}")
            try:
                made = measured(where, test, dict(zip(head, words, strict=True)), pairs, ranks)
            except ValueError as error:
                if str(error).startswith(where):
                    raise
                raise ValueError(f"{where}: cannot be read as a row of OSU: {error}") from None
            rows += [made] if made else []
    if not rows:
        raise ValueError(f"{path}: no row of numbers, expected what an OSU benchmark prints")
    return rows


def measured(where: str, test: tuple[str, str], cells: dict, pairs: int, ranks: int | None):
    op, counts = test
    if not (size := int(cells["Size"])):
        return None
    if op in ("send", "exchange"):
        ranks = 2 * pairs
    elif not ranks:
        raise ValueError(f"{where}: OSU does not print the number of ranks, expected it: --ranks")
    nbytes = size * ranks if counts == EACH else size
    judged = {"checked": cells.get("Validation") == "Pass"}
    if cells.get("Validation", "Pass") != "Pass":
        raise ValueError(f"{where}: the result is wrong by OSU's own check")
    if latency := [cells[name] for name in MICROSECONDS if name in cells]:
        made = row("osu", op, ranks, nbytes, 1e-6 * float(cells.get(MEDIAN, latency[0])), where)
        made["seconds"] = {"mean": 1e-6 * float(latency[0])}
        for name, column in COLUMNS.items():
            if column in cells:
                made["seconds"][name] = 1e-6 * float(cells[column])
        return made | {"windowed": False} | judged
    (bandwidth,) = (cells[name] for name in MEGABYTES if name in cells)
    if not float(bandwidth):
        return None  # 0.00 of a few bytes: nothing can be said
    ways = 2 if op == "exchange" else 1  # OSU adds up both
    each = 1e6 * float(bandwidth) / pairs / ways
    made = row("osu", op, ranks, nbytes, nbytes / each, where)
    return made | {"windowed": True} | judged
