"""Trials in bulk, one JSON line each: a run that was stopped goes on where it was."""

import sys
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import NamedTuple

import torch

from cookbook_lib import results
from cookbook_lib.provenance import where
from cookbook_lib.training.tasks import Copying, Induction, Phonebook, Recall, Task
from cookbook_lib.training.tiny import Makers, ablations, mixers
from cookbook_lib.training.trial import trial

TASKS: dict[str, Task] = {  # small enough for a CPU, large enough to tell the models apart
    "recall": Recall(pairs=8, keys=32, values=32),
    "copying": Copying(letters=6, span=30, alphabet=12),
    "induction": Induction(span=31, alphabet=16),
    "phonebook": Phonebook(entries=6, names=12, digits=2),
}

KEY = ("experiment", "task", "model", "seed", "budget")  # what tells one trial from another


class Experiment(NamedTuple):
    """Models that are compared on a task, each trained for so many steps."""

    name: str
    task: str
    steps: int
    models: Makers


def cases() -> list[Experiment]:
    """Every mixer on every task; every ablation on copying, which the whole of Zamba2 learns."""
    compared = [Experiment("mixers", name, 800, mixers(t.vocab)) for name, t in TASKS.items()]
    return [*compared, Experiment("ablations", "copying", 1000, ablations(TASKS["copying"].vocab))]


def train_tasks(out: Path, seeds: int = 5, scale: float = 1.0, threads: int = 2) -> None:
    """Train tiny models on the memory tasks and append a line for each trial to a file.

    Args:
        out: file of JSON lines; trials that it holds are not repeated
        seeds: trials of each model on each task
        scale: of the number of training steps
        threads: that PyTorch may use
    """
    for name, value in {"seeds": seeds, "threads": threads}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    if not 0 < scale < inf:
        raise ValueError(f"scale is {scale}, expected a number above 0")
    torch.set_num_threads(threads)
    done = {tuple(row[k] for k in KEY) for row in results.ready(out)}
    for seed in range(seeds):
        for name, task, budget, models in cases():
            steps = max(1, round(scale * budget))
            for model, make in models.items():
                if (name, task, model, seed, steps) in done:
                    continue
                result = asdict(trial(model, make, TASKS[task], seed, steps))
                row = {"experiment": name, **result, "task": task, "budget": steps} | where("cpu")
                results.append(out, row)
                print(f"{task} {model} {seed}: {result['accuracy'][-1]:.2f}", file=sys.stderr)
