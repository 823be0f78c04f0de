"""What a run says of itself: a line of JSON for each step, a bar for people, TensorBoard."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from cookbook_lib import results
from cookbook_lib.calculators.chips import CHIPS
from cookbook_lib.calculators.model import Model
from cookbook_lib.commands.output import count
from cookbook_lib.commands.output import seconds as duration

EVERY = 30  # seconds between two lines where there is no terminal to draw a bar on


class Lines:
    """A file of JSON lines, one a step, that never holds a step twice."""

    def __init__(self, path: Path, step: int):
        """Go on after `step`: what a run wrote that was lost behind it is cut off."""
        self.path, new = path, path.with_suffix(".new")
        kept = [row for row in results.ready(path) if row["step"] <= step]
        new.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        os.replace(new, path)

    def add(self, row: dict[str, Any]) -> None:
        """One row, handed to the system at once. `ValueError` in one line where it takes none."""
        try:
            results.append(self.path, row)
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be written: {error.strerror}") from None


class Clock:
    """The rate of a run since it was made: tokens a second, the part of the peak, time left."""

    def __init__(self, flops_per_token: float, peak: float):
        """peak: FLOP/s of all ranks together."""
        self.flops_per_token, self.peak = flops_per_token, peak
        self.last = perf_counter()

    def tick(self, tokens: int) -> dict[str, float]:
        now = perf_counter()
        seconds, self.last = now - self.last, now
        rate = tokens / seconds
        mfu = rate * self.flops_per_token / self.peak
        return {"seconds": seconds, "tokens_per_second": rate, "mfu": mfu}

    def forget(self) -> None:
        """What happened since the last tick is not the next step's: a checkpoint, a measurement."""
        self.last = perf_counter()


def flops_per_token(spec: Model, length: int) -> float:
    """FLOPs of training on one token of a sequence: forward and twice that back, attention causal.

    They are those of the model, whatever is computed again.
    """
    return 3 * spec.flops(b=1, l=length, attention="causal") / length


@cache
def peak(device: str, bf16: bool = False) -> float:
    """FLOP/s that one device can reach: the vendor's for a GPU in the table of chips (its rate of
    bf16 products), and otherwise what square products are measured to reach here and now."""
    if device == "cuda":
        name = torch.cuda.get_device_name().lower()
        for key, chip in CHIPS.items():
            if key in name.replace(" ", ""):
                return chip.flops
    size, dtype = (4096 if device == "cuda" else 1024), torch.bfloat16 if bf16 else torch.float32
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in "ab")  # draws nothing
    best = float("inf")
    for _ in range(5):
        start = perf_counter()
        (a @ b)[0, 0].item()  # waits for the device
        best = min(best, perf_counter() - start)
    return 2 * size**3 / best


@contextmanager
def bar(step: int, steps: int, shown: bool) -> Iterator:
    """A function that is told each row: it draws on a terminal, or prints a line now and then."""
    if not shown:
        yield lambda row: None
    elif not sys.stderr.isatty():
        yield lines(steps)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), "{task.completed}/{task.total}", TextColumn("{task.fields[said]}"))
        console = Console(stderr=True)
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            task = progress.add_task("", total=steps, completed=step, said="")

            def draw(row: dict[str, Any]) -> None:
                progress.update(task, completed=row["step"], said=said(row))

            yield draw


def said(row: dict[str, Any]) -> str:
    rate = count(row["tokens_per_second"])
    return f"loss {row['loss']:.3f}  {rate}tokens/s  MFU {row['mfu']:.1%}"


def lines(steps: int):
    last = time.monotonic() - EVERY

    def tell(row: dict[str, Any]) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY or row["step"] == steps:
            last = time.monotonic()
            left = duration((steps - row["step"]) * row["seconds"])
            print(f"step {row['step']} of {steps}: {said(row)}  {left} left", file=sys.stderr)

    return tell


def board(folder: Path, step: int):
    """A writer for TensorBoard that forgets what was written behind `step`."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
