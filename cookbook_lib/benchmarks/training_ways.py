"""Three ways to train the same model on the same batch: bare, by the loop, by transformers.

Each is a function that takes so many steps and gives the seconds that they took.
"""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cookbook_lib.blocks.models import LanguageModel
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
