"""A pipeline carried out on disk: three passes, each piece of which is done once.

In the output folder: `kept/` and `removed/` with the documents, `report.json`, and `state/` while
it runs. A run that was killed goes on from the pieces that were done; another pipeline, or other
input, does not mix with it; and two runs on one folder refuse each other.
"""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cookbook_lib.data.delivery import deliver
from cookbook_lib.data.duplicates import Second, find_duplicates
from cookbook_lib.data.files import find, on_disk
from cookbook_lib.data.gauge import Gauge, high_mark
from cookbook_lib.data.kept import Kept
from cookbook_lib.data.linking import Each
from cookbook_lib.data.pipeline import Pipeline
from cookbook_lib.data.reading import Piece, pieces
from cookbook_lib.data.report import reported
from cookbook_lib.data.sifting import sift
from cookbook_lib.data.steps import Source
from cookbook_lib.data.storage import claimed, read_json, write_json
from cookbook_lib.data.tally import Tally
from cookbook_lib.data.workers import Crew, Task, crew

PASSAGES = pa.list_(pa.list_(pa.int64()))
Work = list[tuple[Piece, Source]]
Progress = Callable[[str, int, int], None]  # pass, done, of how many


def run(
    pipeline: Pipeline,
    out: Path,
    workers: int = 1,
    progress: Progress = lambda *_: None,
    engine: str = "local",
    address: str | None = None,
) -> dict[str, Any]:
    """Carry out a pipeline and return its report. `ValueError` for a full disk and the like."""
    folder, hands = on_disk(out).absolute(), crew(engine, workers, address)
    try:
        return carried_out(pipeline, folder, hands, progress)
    except OSError as error:
        raise ValueError(
            f"{out}: {error.strerror or error}; run it again to go on from here"
        ) from error


def carried_out(
    pipeline: Pipeline, out: Path, hands: AbstractContextManager[Crew], progress: Progress
) -> dict[str, Any]:
    started = time.perf_counter()
    work, skipped = inputs(pipeline, out)
    state = out / "state"
    with claimed(out):
        if (out / "report.json").exists():
            return finished(out, pipeline, work)
        same_plan(state, pipeline, work)
        with hands as crew:
            tally = three_passes(pipeline, work, state, out, crew, progress)
        report = reported(pipeline, tally) | {
            "files": len({piece.file.path for piece, _ in work}),
            "skipped_files": skipped,
            "seconds": time.perf_counter() - started,
            "peak_bytes": max(high_mark(), *tally.gauge.peaks.values()),
            "plan": fingerprint(pipeline, work),
        }
        write_json(out / "report.json", report)
        shutil.rmtree(state)
    return report


def three_passes(
    pipeline: Pipeline, work: Work, state: Path, out: Path, crew: Crew, progress: Progress
) -> Tally:
    """Filter and make keys; decide who goes; write. What is done already is not done again."""

    def each(name: str, tasks: list[Task]) -> None:
        crew.carry_out(tasks, lambda done: progress(name, done, len(tasks)))

    todo = [
        (sift, (piece, source, pipeline, i, state))
        for i, (piece, source) in enumerate(work)
        if not (state / f"sifted-{i:05}.json").exists()
    ]
    each("filters", todo)
    kept = Kept([state / f"kept-{i:05}.parquet" for i in range(len(work))])
    ranks = {source.name: rank for rank, source in enumerate(pipeline.sources)}
    rank = np.repeat([ranks[source.name] for _, source in work], np.diff(kept.starts))
    tally = Tally()
    tally.gauge.add(decided(pipeline, kept, rank, state, each, crew.size))
    for name in ("kept", "removed"):
        (out / name).mkdir(exist_ok=True)
    todo = [
        (deliver, (i, source.name, pipeline, state, out))
        for i, (_, source) in enumerate(work)
        if not (state / f"delivered-{i:05}.json").exists()
    ]
    each("writing", todo)
    for kind in ("sifted", "delivered"):
        for i in range(len(work)):
            tally.add(read_json(state / f"{kind}-{i:05}.json"))
    return tally


def inputs(pipeline: Pipeline, out: Path) -> tuple[Work, list[str]]:
    """All pieces with their sources, in order, and the files of other kinds.

    What lies in the output folder is no input, even if that is inside a source.
    """
    work, skipped, owners = [], [], {}
    for source in pipeline.sources:
        files, other = find(source.paths)
        files = [f for f in files if out.resolve() not in Path(f.path).resolve().parents]
        for file in files:
            if owners.setdefault(file.path, source.name) != source.name:
                raise ValueError(
                    f"{file.path} is in two sources, {owners[file.path]} and {source.name}"
                )
        work += [(piece, source) for piece in pieces(files)]
        skipped += other
    return work, skipped


def fingerprint(pipeline: Pipeline, work: Work) -> str:
    """What a result depends on: the pipeline, and name, size and date of each file."""
    plan = [pipeline.plan(), [asdict(piece) for piece, _ in work]]
    return blake2b(json.dumps(plan, sort_keys=True).encode(), digest_size=16).hexdigest()


def same_plan(state: Path, pipeline: Pipeline, work: Work) -> None:
    """Begin, or go on with what was begun; `ValueError` if that was something else."""
    state.mkdir(exist_ok=True)
    plan = state / "plan.json"
    wanted = fingerprint(pipeline, work)
    if not plan.exists():
        write_json(plan, wanted)
    elif json.loads(plan.read_text()) != wanted:
        raise ValueError(
            f"{state.parent} holds an unfinished run of another pipeline or other input: "
            "delete it, or give another --out"
        )


def finished(out: Path, pipeline: Pipeline, work: Work) -> dict[str, Any]:
    """The report of a run that is done, if it is this one."""
    report = json.loads((out / "report.json").read_text())
    if report["plan"] != fingerprint(pipeline, work):
        raise ValueError(
            f"{out} holds the result of another pipeline or other input: give another --out"
        )
    shutil.rmtree(out / "state", ignore_errors=True)  # killed between its last two lines
    return report


def decided(
    pipeline: Pipeline, kept: Kept, rank: np.ndarray, state: Path, each: Each, workers: int
) -> dict[str, Any]:
    """Write for each piece which of its documents go and for whose sake; what each step took."""
    mark = state / "decided.json"
    if not mark.exists():
        gauge = Gauge()
        second = Second(kept=kept, rank=rank, folder=state, each=each, workers=workers, gauge=gauge)
        by, stays, cuts = find_duplicates(pipeline, second)
        ids = np.array(kept.take(np.unique(stays[by >= 0]), "id"), object)
        order = np.searchsorted(np.unique(stays[by >= 0]), stays)
        for i, (low, high) in enumerate(zip(kept.starts, kept.starts[1:], strict=False)):
            names = [
                ids[k] if step >= 0 else None
                for k, step in zip(order[low:high], by[low:high], strict=True)
            ]
            columns = {
                "by": pa.array(by[low:high]),
                "stays": pa.array(names, pa.string()),
                "cuts": pa.array([cuts.get(k, []) for k in range(low, high)], PASSAGES),
            }
            pq.write_table(pa.table(columns), state / f"decided-{i:05}.parquet")
        write_json(mark, gauge.to_json())
    return read_json(mark)
