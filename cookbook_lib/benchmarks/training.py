"""`cookbook bench train`: tokens a second of the loop, of its bare parts, and of transformers."""

import json as jsonlib
import statistics
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cookbook_lib.blocks.models import LanguageModel
from cookbook_lib.commands.output import count, print_table
from cookbook_lib.commands.train import maker
from cookbook_lib.provenance import where
from cookbook_lib.training.loop import Options, Run
from cookbook_lib.training.metrics import Clock, Lines, flops_per_token, peak
from cookbook_lib.training.sampling import Batch

RATE, DECAY, CLIP = 1e-3, 0.1, 1.0


class Same:
    """The same batch again and again: a plan and a sampler in one, which cost nothing."""

    tokens = 1e12

    def __init__(self, vocab: int, length: int, batch: int):
        g = np.random.default_rng(0)
        ids, self.length = g.integers(vocab, size=(batch, length + 1)), length
        documents, sources = np.zeros((batch, length), np.int64), np.zeros(batch, np.int64)
        self.batch = Batch(
            tokens=ids[:, :-1], targets=ids[:, 1:], documents=documents, sources=sources
        )

    def lr(self, t: float) -> float:
        return RATE

    def draw(self, sequences: int, rank: int = 0, ranks: int = 1) -> Batch:
        return self.batch

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: Any) -> None: ...


def bench_train(
    model: str = "mhmh",
    d_model: int = 128,
    vocab: int = 2048,
    length: int = 256,
    batch: int = 8,
    steps: int = 5,
    repeats: int = 5,
    json: bool = False,
) -> None:
    """Time training steps of a model on a CPU, in turn: bare, by the loop, and by transformers.

    Bare is forward, backward and an optimizer step. Trainer takes part if accelerate is installed.

    Args:
        model: a pattern of letters or a preset, as in `cookbook train run`
        d_model: of a pattern
        vocab: of a pattern
        length: tokens of a sequence
        batch: sequences of a step
        steps: of each of them in a round
        repeats: rounds that count, after one that does not
        json: print one JSON document instead of a table
    """
    for name, value in {"steps": steps, "repeats": repeats, "batch": batch}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    make = maker(model, vocab, d_model)
    spec = make().spec
    data = Same(spec.before[0][1].vocab, length, batch)
    with TemporaryDirectory() as folder:
        ways: dict[str, Callable[[], float]] = {
            "bare": partial(bare(make, data), steps),
            "loop": partial(loop(make, data, Path(folder)), steps),
        }
        if find_spec("accelerate"):
            ways["Trainer"] = partial(trainer(make, data, Path(folder)), steps)
        rounds = [{name: way() for name, way in ways.items()} for _ in range(repeats + 1)][1:]
    tokens = steps * batch * length
    report = {
        "model": spec.name,
        "params": spec.params(),
        "tokens_per_step": batch * length,
        "tokens_per_second": {n: tokens / statistics.median(r[n] for r in rounds) for n in ways},
        "against_bare": {n: statistics.median(r["bare"] / r[n] for r in rounds) for n in ways},
        "rounds": rounds,
        **where("cpu"),
    }
    if json:
        print(jsonlib.dumps(report, indent=2))
        return
    rows = [
        [n, f"{count(report['tokens_per_second'][n])}tokens/s", f"{report['against_bare'][n]:.3f}"]
        for n in ways
    ]
    title = f"{spec.name}, {spec.params():,} parameters, {batch} x {length} tokens a step"
    print_table(title, ("by", "median", "of bare"), rows)
    if "Trainer" not in ways:
        print("transformers.Trainer takes part where accelerate is installed")


def asked(model: LanguageModel, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(tokens).flatten(0, 1).float(), targets.flatten())


def fresh(make: Callable[[], LanguageModel]) -> LanguageModel:
    torch.manual_seed(0)
    return make()


def bare(make: Callable[[], LanguageModel], data: Same) -> Callable[[int], float]:
    model = fresh(make)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    tokens, targets = (torch.tensor(t) for t in (data.batch.tokens, data.batch.targets))

    def run(steps: int) -> float:
        start = perf_counter()
        for _ in range(steps):
            asked(model, tokens, targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        return perf_counter() - start

    return run


def loop(make: Callable[[], LanguageModel], data: Same, folder: Path) -> Callable[[int], float]:
    """With all that happens at each step: clipping, a look at the loss, a row of metrics."""
    options = Options(batch=len(data.batch.tokens), weight_decay=DECAY, clip=CLIP)
    training = Run(make, data, data, options)
    lines = Lines(folder / "metrics.jsonl", 0)
    clock = Clock(flops_per_token(training.model.spec, data.length), peak("cpu"))

    def run(steps: int) -> float:
        start = perf_counter()
        for _ in range(steps):
            row = training.advance()
            lines.add(row | clock.tick(training.step_tokens))
        return perf_counter() - start

    return run


class Wrapped(nn.Module):
    """A model as Trainer wants it: it says its loss."""

    def __init__(self, model: LanguageModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": asked(self.model, input_ids, labels)}


def trainer(make: Callable[[], LanguageModel], data: Same, folder: Path) -> Callable[[int], float]:
    """The seconds between the beginning and the end of training, as Trainer tells its callbacks."""
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
    from transformers.utils import logging

    logging.disable_progress_bar()
    model, times = Wrapped(fresh(make)), []

    class Watch(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            times[:] = [perf_counter()]

        def on_train_end(self, *args, **kwargs):
            times.append(perf_counter())

    pairs = zip(data.batch.tokens, data.batch.targets, strict=True)
    rows = [{"input_ids": torch.tensor(x), "labels": torch.tensor(y)} for x, y in pairs]

    def run(steps: int) -> float:
        arguments = TrainingArguments(
            output_dir=str(folder / "trainer"),
            max_steps=steps,
            per_device_train_batch_size=len(rows),
            learning_rate=RATE,
            weight_decay=DECAY,
            max_grad_norm=CLIP,
            optim="adamw_torch",
            lr_scheduler_type="constant",
            use_cpu=True,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = Trainer(model, arguments, train_dataset=rows * steps, callbacks=[Watch()])
        trainer.remove_callback(PrinterCallback)  # standard output is the report's
        trainer.train()
        return times[-1] - times[0]

    return run
