"""`cookbook train anneal`: every variant from every seed, one JSON line each."""

import sys
from collections.abc import Collection, Iterator
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cookbook_lib import results
from cookbook_lib.blocks.models import LanguageModel, Options, Residual
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.data.python_corpus import FOLDER, Corpus, python_corpus
from cookbook_lib.data.streams import Stream
from cookbook_lib.training.annealing import VARIANTS, Scale, Variant, trunk
from cookbook_lib.training.averaging import Average
from cookbook_lib.training.experiments import provenance
from cookbook_lib.training.phases import Plan
from cookbook_lib.training.sampling import IGNORE, Sampler, packed
from cookbook_lib.training.tiny import tiny

Arrays = tuple[Tensor, Tensor, Tensor]  # tokens, targets, documents


def loss(model: nn.Module, tokens: Tensor, targets: Tensor, documents: Tensor) -> Tensor:
    logits = model(tokens, seq_idx=documents)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)


class Exam:
    """The same sequences for everybody, at equal distances over what a corpus holds out."""

    def __init__(self, corpus: Corpus, scale: Scale):
        self.asked: dict[str, Arrays] = {}
        for name, shards in corpus.held_out.items():
            stream = Stream(name, shards, scale.length)
            apart = max(1, stream.tokens // scale.length // scale.asked)
            read = [stream[i * apart] for i in range(scale.asked)]
            tokens, targets, documents = map(torch.from_numpy, packed(read))
            self.asked[name] = tokens, targets, documents

    @torch.no_grad()
    def losses(self, model: nn.Module) -> dict[str, float]:
        """Nats a token, by source."""
        return {name: loss(model, *asked).item() for name, asked in self.asked.items()}


class Run:
    """A model in training at some step of a plan."""

    def __init__(self, corpus: Corpus, scale: Scale, plan: Plan, seed: int):
        torch.manual_seed(seed)
        self.corpus, self.scale, self.seed, self.step = corpus, scale, seed, 0
        spec = tiny("m-a-", scale.vocab, scale.d_model)
        self.model: LanguageModel = Residual(spec, Options(rope=RoPE()))
        embedding = self.model.get_submodule(spec.before[0][0])
        nn.init.normal_(embedding.weight, std=0.02)  # as in GPT-2 and after
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.1
        )
        self.follow(plan)

    def follow(self, plan: Plan) -> None:
        """Go on by another plan, from the place in the data where this one is."""
        place = self.sampler.state() if self.step else None
        self.plan = plan
        self.sampler = Sampler(plan, self.corpus.shards, self.scale.length, self.seed)
        if place:
            self.sampler.load(place)

    def fork(self, plan: Plan) -> "Run":
        """A copy that goes on by another plan."""
        other = deepcopy(self)
        other.follow(plan)
        return other

    def one(self) -> None:
        """One step, at the rate of its middle."""
        batch = self.sampler.draw(self.scale.batch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.lr((self.step + 0.5) * self.scale.step_tokens)
        arrays = (torch.from_numpy(a) for a in (batch.tokens, batch.targets, batch.documents))
        self.optimizer.zero_grad()
        loss(self.model, *arrays).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1


def finish(run: Run, variant: Variant, exam: Exam) -> dict[str, Any]:
    """Train the last phase; losses along the way, at the end, and of the average checkpoint."""
    scale, start, began = run.scale, perf_counter(), run.step
    left = scale.steps - began
    marks = {began + round(left * (i + 1) / scale.kept) for i in range(scale.kept)}
    curve, average = [], Average()
    while run.step < scale.steps:
        run.one()
        if run.step in marks:
            average.add(run.model.state_dict())
        if run.step % scale.every == 0 or run.step == scale.steps:
            curve.append({"step": run.step, **exam.losses(run.model)})
    last = curve[-1]
    run.model.load_state_dict(average.state_dict())
    return {
        "variant": variant.name,
        "seed": run.seed,
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
    exam = Exam(corpus, scale)
    for name in dict.fromkeys(v.trunk for v in asked):
        mine = sorted((v for v in asked if v.trunk == name), key=lambda v: v.begins(scale))
        steps = mine[-1].begins(scale)
        run = Run(corpus, scale, Plan(name=name, phases=trunk(name, scale, max(1, steps))), seed)
        curve = [{"step": 0, **exam.losses(run.model)}]
        for variant in mine:
            while run.step < variant.begins(scale):
                run.one()
                if run.step % scale.every == 0:
                    curve.append({"step": run.step, **exam.losses(run.model)})
            yield finish(run.fork(variant.plan(scale)), variant, exam)
        yield {"variant": name, "seed": seed, "curve": curve}


def train_anneal(
    out: Path,
    seeds: int = 5,
    steps: int = 1200,
    corpus: Path = FOLDER,
    threads: int = 1,
) -> None:
    """Train a tiny hybrid, end its run in all ways that are compared, and append a line for each.

    Args:
        out: file of JSON lines; what it holds is not repeated
        seeds: runs of each variant
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
    for seed in range(seeds):
        left = [v for v in VARIANTS if (v.name, seed) not in done]
        for row in variants(seed, scale, texts, left):
            if (row["variant"], seed) in done:
                continue
            results.append(out, row | {"scale": sizes} | provenance())
            said = " ".join(f"{k} {row[k]:.3f}" for k in ("code", "prose") if k in row)
            print(f"seed {seed} {row['variant']}: {said}", file=sys.stderr)
