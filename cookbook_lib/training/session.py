"""A run in a folder: it saves, it goes on where it was, and it stops so that nothing good is lost.

metrics.jsonl    a line for each step
checkpoints/     step-100, step-200, …: see `checkpoints`
tensorboard/     if asked for
lock             held while a run uses the folder
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cookbook_lib.training import checkpoints
from cookbook_lib.training.loop import Run
from cookbook_lib.training.metrics import Clock, Lines, bar, board, flops_per_token, peak
from cookbook_lib.training.ranks import Ranks

Measure = Callable[[Run], dict[str, float]]  # what more is known after a step; often nothing


@dataclass(frozen=True, kw_only=True)
class Session:
    """Where a run lives. every: steps between checkpoints; there is one at the end too. keep: the
    last so many. resume: go on with the run that the folder holds, from its start if it has no
    checkpoint; without it the folder must hold none. bar: show how it goes."""

    folder: Path
    every: int = 100
    keep: int = 3
    resume: bool = False
    tensorboard: bool = False
    bar: bool = True

    def __post_init__(self):
        for name in ("every", "keep"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")


def say(line: str) -> None:
    print(f"cookbook: {line}", file=sys.stderr)


def train(run: Run, session: Session, measure: Measure | None = None) -> dict[str, Any]:
    """Train to the end of the plan, or until SIGTERM; how it ended.

    `ValueError` in one line for a folder that is in use or not this run's, a checkpoint that cannot
    be written, and a loss that is no number: the last good checkpoint is intact.
    """
    ranks = run.ranks
    with held(session, ranks) as folder:
        begun = checkpoints.newest(folder, ranks, say) if session.resume else None
        if begun:
            run.check(checkpoints.progress(begun))
            checkpoints.load(begun, state := run.state(), ranks)
            run.load(state, checkpoints.progress(begun))
            if ranks.first:
                say(f"goes on after step {run.step}")
        checkpoints_at = run.step
        cost = flops_per_token(run.model.spec, run.sampler.length)
        clock = Clock(cost, ranks.size * peak(ranks.device.type, run.options.bf16))
        row: dict[str, Any] = {"step": run.step}
        with writers(session, run) as tell, asked_to_stop() as asked:
            stop = False
            while run.step < run.steps and not stop:
                try:
                    row = run.advance()
                except ValueError as error:
                    last = f"step {checkpoints_at}" if checkpoints_at else "none"
                    raise ValueError(f"{error}; the last good checkpoint: {last}") from None
                row |= clock.tick(run.step_tokens)
                row |= measure(run) if measure else {}
                tell(row)
                stop = ranks.any(asked())
                if stop or run.step % session.every == 0 or run.step == run.steps:
                    checkpoints.save(folder, run.state(), run.progress(), ranks)
                    checkpoints_at = run.step
                    if ranks.first:
                        checkpoints.prune(folder, session.keep)
                clock.forget()
            if stop and ranks.first:
                say(f"asked to stop: saved after step {run.step} of {run.steps}")
        return row | {"steps": run.steps, "done": run.step >= run.steps}


@contextmanager
def held(session: Session, ranks: Ranks) -> Iterator[Path]:
    """The folder of checkpoints, for this run alone; all ranks get it or none."""
    folder, refused = session.folder / "checkpoints", None
    with ExitStack() as stack:
        if ranks.first:
            try:
                stack.enter_context(checkpoints.alone(session.folder))
                if not session.resume and (session.folder / "metrics.jsonl").exists():
                    raise ValueError(f"{session.folder} holds a run: resume it, or name another")
                folder.mkdir(exist_ok=True)
            except ValueError as error:
                refused = str(error)
        if refused := ranks.told(refused):
            raise ValueError(refused)
        yield folder


@contextmanager
def writers(session: Session, run: Run) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What is told each row, on the first rank."""
    if not run.ranks.first:
        yield lambda row: None
        return
    file = Lines(session.folder / "metrics.jsonl", run.step)
    writer = board(session.folder / "tensorboard", run.step) if session.tensorboard else None
    with bar(run.step, run.steps, session.bar) as draw:

        def tell(row: dict[str, Any]) -> None:
            file.add(row)
            draw(row)
            for name, value in row.items() if writer else ():
                if name != "step":
                    writer.add_scalar(name, value, row["step"])

        try:
            yield tell
        finally:
            if writer:
                writer.close()


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM came, as from Slurm near the end of a job; it ends nothing by itself."""
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)
