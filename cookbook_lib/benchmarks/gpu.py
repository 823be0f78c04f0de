"""`make gpu`: what the project wants to know of a GPU, within a budget of time, one row at a time.

It needs PyTorch and the standard library; a part that needs more is left out where that is missing,
and the run says so. What was never measured on this device comes first, one case of each part in
turn in the order of PLAN; then what was measured with older code, the oldest row first. Every row
is in its file before the next case starts, so a run may be killed at any moment, and the next one
goes on. `code` in a row is a fingerprint of the sources that its number depends on.
"""

import argparse
import re
import sys
import traceback
from hashlib import sha256
from importlib import import_module
from inspect import getdoc, signature
from itertools import chain, zip_longest
from pathlib import Path
from time import monotonic
from typing import Any, Literal, NamedTuple

import torch

from cookbook_lib.benchmarks.provenance import device_name, where
from cookbook_lib.benchmarks.sweep import Row, attempt, words
from cookbook_lib.benchmarks.wanted import NOTHING, Case, Here, Wanted
from cookbook_lib.results import FOLDER, agrees, append, ready

PACKAGE = Path(__file__).parents[1]
REHEARSAL = PACKAGE.parent / "build/gpu"  # rows of tiny sizes are no results
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
    since: str  # date of the newest row that there is; empty for none


def gpu(
    device: Literal["cuda", "cpu"] = "cuda",
    budget: float = 600.0,
    only: str = "",
    out: Path | None = None,
    show: bool = False,
) -> None:
    """Measure what docs/data does not hold yet of this device, and append it there.

    Args:
        device: cuda; or cpu, which runs everything at tiny sizes, as a rehearsal
        budget: seconds; no case begins that may not end in time
        only: parts of the plan, with commas between; all of it if not given
        out: a folder for the rows; docs/data, and build/gpu for a rehearsal, if not given
        show: print what is missing, in the order in which it would run, and stop
    """
    end = monotonic() + budget
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but PyTorch finds no GPU: `--device cpu` rehearses")
    if unknown := set(only.split(",")) - {part.name for part in PLAN} - {""}:
        names = ", ".join(part.name for part in PLAN)
        raise ValueError(f"only is {min(unknown)!r}, expected some of {names}")
    here = Here(device=device, name=device_name(device), tiny=device == "cpu")
    out = out or (FOLDER if device == "cuda" else REHEARSAL)
    plan = [part for part in PLAN if not only or part.name in only.split(",")]
    left = gaps(plan, here, {out, FOLDER} if device == "cuda" else {out})
    print(f"{here.name}: {len(left)} rows are missing; {budget:.0f} s; rows go to {out}")
    if show:
        for gap in left:
            print(named(gap))
        return
    done, failed = worked_off(left, here, out, end)
    rest = len(left) - done - failed
    print(f"{done} rows measured, {failed} cases failed, {rest} left for the next run")
    if failed:
        sys.exit(1)


def worked_off(left: list[Gap], here: Here, out: Path, end: float) -> tuple[int, int]:
    """Run the cases that can still end in time; how many gave a row, and how many failed."""
    done = failed = 0
    for gap in left:
        if monotonic() + gap.part.seconds > end:
            continue
        name, begun = named(gap), monotonic()
        file = out / f"{gap.part.file}.jsonl"
        ready(file)  # cuts off half a line of a run that was killed
        try:
            found = attempt(lambda gap=gap: gap.wanted.run(dict(gap.case)), here.device)
        except ModuleNotFoundError as error:
            print(f"{name}: left out, this Python has no {error.name}", flush=True)
            continue
        except Exception:  # a part that is broken does not cost the rows of others
            failed += 1
            print(f"{name}: failed\n{traceback.format_exc()}", flush=True)
            continue
        if found.get("outcome") != NOTHING:
            place = {} if "date" in found else where(here.device)
            append(file, gap.case | place | found | {"code": code(gap.part)})
            done += 1
        print(f"{name}: {told(found)}, {monotonic() - begun:.1f} s", flush=True)
    return done, failed


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
        rows = held(part, here, folders)
        found = [gap for case in wanted.cases if (gap := missing(part, case, wanted, rows))]
        new.append([gap for gap in found if not gap.since])
        old += [gap for gap in found if gap.since]
    turns = chain.from_iterable(zip_longest(*new))
    return [gap for gap in turns if gap] + sorted(old, key=lambda gap: gap.since)


def held(part: Part, here: Here, folders: set[Path]) -> list[Row]:
    """The rows of this device, wherever they lie."""
    files = [folder / f"{part.file}.jsonl" for folder in sorted(folders)]
    rows = [row for file in files if file.exists() for row in ready(file)]
    return [row for row in rows if row.get("device") == here.name]


def missing(part: Part, case: Case, wanted: Wanted, rows: list[Row]) -> Gap | None:
    mine = [row for row in rows if agrees(row, case)]
    if any(row.get("code") == code(part) for row in mine):
        return None
    return Gap(part, case, wanted, max((row.get("date", " ") for row in mine), default=""))


def code(part: Part) -> str:
    """A fingerprint of the sources behind a part's numbers."""
    whole = sha256()
    for place in (PACKAGE / source for source in (*TIMING, *part.sources)):
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            whole.update(file.read_bytes())
    return whole.hexdigest()[:12]


def named(gap: Gap) -> str:
    """The case in a line, without what is long."""
    return f"{gap.part.name}: " + words({k: v for k, v in gap.case.items() if k != "sizes"})


def told(row: Row) -> str:
    """The outcome in a few words."""
    if "flops_per_second" not in row:
        return str(row.get("outcome", "measured"))
    return f"{row['flops_per_second'] / 1e12:.3g} TFLOP/s"


def main(argv: list[str] | None = None) -> None:
    """The signature as a command line without tyro, which a machine may not have."""
    what, _, lines = str(getdoc(gpu)).partition("\n\nArgs:\n")
    helps = dict(re.findall(r"^ +(\w+): (.+)", lines, re.MULTILINE))
    parser = argparse.ArgumentParser(description=what, prog="make gpu")
    for name, parameter in signature(gpu).parameters.items():
        kind: dict[str, Any] = {"type": type(parameter.default)}
        if parameter.default is None:
            kind = {"type": Path}
        if parameter.default is False:
            kind = {"action": "store_true"}
        parser.add_argument(f"--{name}", default=parameter.default, help=helps[name], **kind)
    try:
        gpu(**vars(parser.parse_args(argv)))
    except ValueError as error:
        sys.exit(f"make gpu: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
