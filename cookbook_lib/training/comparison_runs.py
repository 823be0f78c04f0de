"""`cookbook train compare`: a line of JSON for each run, each of them done once."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from cookbook_lib import results
from cookbook_lib.calculators.runs import choose
from cookbook_lib.data.python_corpus import FOLDER, python_corpus
from cookbook_lib.provenance import where
from cookbook_lib.training.comparisons import (
    SOURCES,
    Case,
    Row,
    Scale,
    compared,
    swept_cases,
    trained,
)
from cookbook_lib.training.contenders import ARCHITECTURES, CONTENDERS, VOCAB, Contender


def key(row: Row) -> tuple:
    """What tells one run from another; outside the sweep the rate follows from it."""
    rate = row["rate"] if row["experiment"] == "rates" else None
    return row["experiment"], row["model"], row["equal"], row["seed"], rate


def named(option: str, names: Sequence[str]) -> list[Contender]:
    """Models by name; `ValueError` for one that there is not."""
    return [CONTENDERS[choose(option, name, CONTENDERS)] for name in names]


def train_compare(
    out: Path,
    seeds: int = 5,
    first: int = 0,
    only: list[str] | None = None,
    sweep: list[str] | None = None,
    steps: int = 160,
    corpus: Path = FOLDER,
    threads: int = 1,
) -> None:
    """Train architectures and ablations of one size on text; append a line for each run to a file.

    Args:
        out: file of JSON lines; what it holds is not repeated
        seeds: runs of each model; 0 for the sweep alone
        first: the first seed
        only: names of models, all if not given
        sweep: names of ablations that get a learning rate of their own, not the hybrid's
        steps: of a run of the hybrid
        corpus: folder in which the corpus of this Python is made, or lies
        threads: that PyTorch may use
    """
    for name, value, least in (("seeds", seeds, 0), ("steps", steps, 1), ("threads", threads, 1)):
        if value < least:
            raise ValueError(f"{name} is {value}, expected at least {least}")
    chosen = named("only", only or list(CONTENDERS))
    needed = [c if c in ARCHITECTURES else CONTENDERS["hybrid"] for c in chosen]
    tried = list(dict.fromkeys((*needed, *named("sweep", sweep or []))))
    torch.set_num_threads(threads)
    scale = replace(Scale(), steps=steps)
    rows = [row for row in results.ready(out) if row.get("scale") == asdict(scale)]
    texts = python_corpus(corpus, VOCAB)

    def do(cases: Sequence[Case]) -> None:
        done = set(map(key, rows))
        for case in cases:
            asked = vars(case) | {"model": case.contender.name}
            if key(asked) not in done:
                row = trained(case, scale, texts) | where("cpu")
                results.append(out, row)
                rows.append(row)
                said = " ".join(f"{source} {row[source]:.3f}" for source in SOURCES)
                print(f"{case.experiment} {key(row)[1:]}: {said}", file=sys.stderr)

    do(swept_cases(tried))
    for seed in range(first, first + seeds):
        do(compared(chosen, seed, rows))
