"""`cookbook train anneal`: every variant from every seed, one JSON line each."""

import sys
from collections.abc import Collection, Iterator
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from cookbook_lib import results
from cookbook_lib.blocks.models import LanguageModel, Options, Residual
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.data.python_corpus import FOLDER, Corpus, python_corpus
from cookbook_lib.provenance import where
from cookbook_lib.training import loop
from cookbook_lib.training.annealing import VARIANTS, Scale, Variant, trunk
from cookbook_lib.training.averaging import Average
from cookbook_lib.training.exam import Exam
from cookbook_lib.training.loop import Run
from cookbook_lib.training.phases import Plan
from cookbook_lib.training.sampling import Sampler
from cookbook_lib.training.tiny import tiny


def begun(corpus: Corpus, scale: Scale, plan: Plan, seed: int) -> Run:
    """A tiny hybrid before its first step: the seed draws its weights and the order of its data."""

    def make() -> LanguageModel:
        return Residual(tiny("m-a-", scale.vocab, scale.d_model), Options(rope=RoPE()))

    sampler = Sampler(plan, corpus.shards, scale.length, seed)
    return Run(make, plan, sampler, loop.Options(batch=scale.batch, seed=seed))


def fork(run: Run, plan: Plan, corpus: Corpus) -> Run:
    """A copy that goes on by another plan, from the same place in the data."""
    other = deepcopy(run)
    other.plan = plan
    other.sampler = Sampler(plan, corpus.shards, run.sampler.length, run.options.seed)
    if run.step:
        other.sampler.load(run.sampler.state())
    return other


def finish(run: Run, variant: Variant, scale: Scale, exam: Exam) -> dict[str, Any]:
    """Train the last phase; losses along the way, at the end, and of the average checkpoint."""
    start, began = perf_counter(), run.step
    left = scale.steps - began
    marks = {began + round(left * (i + 1) / scale.kept) for i in range(scale.kept)}
    curve, average = [], Average()
    while run.step < scale.steps:
        run.advance()
        if run.step in marks:
            average.add(run.model.state_dict())
        if run.step % scale.every == 0 or run.step == scale.steps:
            curve.append({"step": run.step, **exam.losses(run.model)})
    last = curve[-1]
    run.model.load_state_dict(average.state_dict())
    return {
        "variant": variant.name,
        "seed": run.options.seed,
        **{name: last[name] for name in exam.asked},
        "average": exam.losses(run.model),
        "curve": curve,
        "epochs": run.sampler.epochs(),
        "seconds": perf_counter() - start,
    }


def variants(
    seed: int, scale: Scale, corpus: Corpus, asked: Collection[Variant] = VARIANTS
) -> Iterator[dict[str, Any]]:
    """One row for each variant, and one for each trunk that they share, as they are done."""
    exam = Exam(corpus, scale.length, scale.asked)
    for name in dict.fromkeys(v.trunk for v in asked):
        mine = sorted((v for v in asked if v.trunk == name), key=lambda v: v.begins(scale))
        steps = mine[-1].begins(scale)
        shared = Plan(name=name, phases=trunk(name, scale, max(1, steps)))
        run = begun(corpus, scale, shared, seed)
        curve = [{"step": 0, **exam.losses(run.model)}]
        for variant in mine:
            while run.step < variant.begins(scale):
                run.advance()
                if run.step % scale.every == 0:
                    curve.append({"step": run.step, **exam.losses(run.model)})
            yield finish(fork(run, variant.plan(scale), corpus), variant, scale, exam)
        yield {"variant": name, "seed": seed, "curve": curve}


def train_anneal(
    out: Path,
    seeds: int = 6,
    first: int = 0,
    steps: int = 600,
    corpus: Path = FOLDER,
    threads: int = 1,
) -> None:
    """Train a tiny hybrid, end its run in all ways that are compared, and append a line for each.

    Args:
        out: file of JSON lines; what it holds is not repeated
        seeds: runs of each variant
        first: the first seed
        steps: of a whole run
        corpus: folder in which the corpus of this Python is made, or lies
        threads: that PyTorch may use
    """
    for name, value in {"seeds": seeds, "steps": steps, "threads": threads}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    torch.set_num_threads(threads)
    scale = replace(Scale(), steps=steps)
    sizes = asdict(scale)
    rows = results.ready(out)
    done = {(row["variant"], row["seed"]) for row in rows if row["scale"] == sizes}
    texts = python_corpus(corpus, scale.vocab)
    for seed in range(first, first + seeds):
        left = [v for v in VARIANTS if (v.name, seed) not in done]
        for row in variants(seed, scale, texts, left):
            if (row["variant"], seed) in done:
                continue
            results.append(out, row | {"scale": sizes} | where("cpu"))
            said = " ".join(f"{k} {row[k]:.3f}" for k in ("code", "prose") if k in row)
            print(f"seed {seed} {row['variant']}: {said}", file=sys.stderr)
