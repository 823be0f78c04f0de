"""The plan of `make gpu`: what is wanted of each part, and what is missing of it on a device.

What was never measured on this device comes first, one case of each part in turn in the order of
PLAN; then what was measured with older code, the oldest row first. `code` in a row is a fingerprint
of the sources that its number depends on.
"""

from hashlib import sha256
from importlib import import_module
from itertools import chain, zip_longest
from pathlib import Path
from typing import NamedTuple

from cookbook_lib.benchmarks.sweep import Row
from cookbook_lib.benchmarks.wanted import Case, Here, Wanted
from cookbook_lib.results import agrees, ready

PACKAGE = Path(__file__).parents[1]
TIMING = ("benchmarks/timing.py", "benchmarks/cuda.py", "benchmarks/ceilings.py", "cuda_graphs.py")


class Part(NamedTuple):
    """A line of the plan. A case of it takes `seconds` at most, or is not begun.

    file: of docs/data, where its rows go. make: "module:function" that gives what is wanted `Here`,
    imported only when it runs. sources: beside TIMING, what its numbers depend on.
    """

    name: str
    file: str
    make: str
    seconds: float
    sources: tuple[str, ...]


WORK = "cookbook_lib.benchmarks.gpu_work"
BLOCKS = "cookbook_lib.benchmarks.gpu_blocks"
DECODING = "cookbook_lib.benchmarks.gpu_decoding"
STEPS = ("benchmarks/generation.py", "benchmarks/shapes.py", "blocks", "decoding")
FIRST = ("benchmarks/first_token.py", *STEPS)
SPLIT = ("benchmarks/split_k.py", "decoding/split_k.py", "blocks/attention.py")
PASSES = ("benchmarks/passes.py", "blocks", "calculators/specs")
PLAN = (  # another part is another line
    Part("ceilings", "ceilings", f"{WORK}:roofs", 20, ()),
    Part("tests", "gpu_tests", f"{WORK}:tests", 120, ("blocks", "calculators")),
    Part("crossovers", "crossovers", f"{BLOCKS}:crossovers", 10, PASSES),
    Part("blocks", "gpu_blocks", f"{BLOCKS}:of_models", 15, PASSES),
    Part("gemm", "gemms", f"{WORK}:matmuls", 10, ("benchmarks/gemm.py",)),
    Part("first tokens", "decoding", f"{DECODING}:first_tokens", 60, FIRST),
    Part("steps", "decoding", f"{DECODING}:steps", 40, STEPS),
    Part("split-k", "split_k", f"{DECODING}:split", 20, SPLIT),
    Part("memory", "gpu_memory", f"{WORK}:steps", 60, ("benchmarks/memory.py", "blocks")),
)


class Gap(NamedTuple):
    """A case without a row, or with a row of older code."""

    part: Part
    case: Case
    wanted: Wanted
    code: str  # that its row will name
    since: str  # date of the newest row that there is; empty for none


def gaps(plan: list[Part], here: Here, folders: set[Path]) -> list[Gap]:
    """What is wanted and not held, in the order in which it is to be measured."""
    new, old = [], []
    for part in plan:
        module, _, function = part.make.partition(":")
        try:
            wanted = getattr(import_module(module), function)(here)
        except ModuleNotFoundError as error:
            print(f"{part.name}: left out, this Python has no {error.name}")
            continue
        now, rows = code(part), held(part, here, folders)
        since = [(case, newest(rows, case, now)) for case in wanted.cases]
        found = [Gap(part, case, wanted, now, date) for case, date in since if date is not None]
        new.append([gap for gap in found if not gap.since])
        old += [gap for gap in found if gap.since]
    turns = chain.from_iterable(zip_longest(*new))
    return [gap for gap in turns if gap] + sorted(old, key=lambda gap: gap.since)


def held(part: Part, here: Here, folders: set[Path]) -> list[Row]:
    """The rows of this device, wherever they lie."""
    files = [folder / f"{part.file}.jsonl" for folder in sorted(folders)]
    rows = [row for file in files if file.exists() for row in ready(file)]
    return [row for row in rows if row.get("device") == here.name]


def newest(rows: list[Row], case: Case, now: str) -> str | None:
    """The date of a case's newest row, empty for none; None if this code has measured it."""
    mine = [row for row in rows if agrees(row, case)]
    if any(row.get("code") == now for row in mine):
        return None
    return max((row.get("date", " ") for row in mine), default="")


def code(part: Part) -> str:
    """A fingerprint of the sources behind a part's numbers."""
    whole = sha256()
    for place in (PACKAGE / source for source in (*TIMING, *part.sources)):
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            whole.update(file.read_bytes())
    return whole.hexdigest()[:12]
