"""A trial: one tiny model trained on one task from one seed, on a CPU in seconds.

What such a trial can show is whether an architecture can represent and learn the task at this size.
It says nothing about the quality of a large model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from time import perf_counter

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from cookbook_lib.blocks.models import LanguageModel
from cookbook_lib.training.tasks import IGNORE, Task


@dataclass(frozen=True)
class Trial:
    """How one training went: accuracy on unseen draws along the way, and the cost."""

    task: str
    model: str
    pattern: str
    params: int
    state_bytes: int  # of one sequence of the task's length, float32
    seed: int
    steps: list[int]
    accuracy: list[float]
    seconds: float


def trial(
    name: str,
    make: Callable[[], LanguageModel],
    task: Task,
    seed: int = 0,
    steps: int = 300,
    batch: int = 32,
    rate: float = 3e-3,
    every: int = 50,
) -> Trial:
    """Train from scratch on fresh draws; every `every` steps, measure on draws never trained on."""
    torch.manual_seed(seed)
    model = make()
    train, test = (torch.Generator().manual_seed(2 * seed + i) for i in (0, 1))
    unseen = task.sample(256, test)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    marks, accuracy, start = [], [], perf_counter()
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(step / 20, 0.5 + 0.5 * cos(pi * step / steps))
        tokens, targets = task.sample(batch, train)
        loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % every == 0 or step == steps:
            marks.append(step)
            accuracy.append(score(model, *unseen))
    return Trial(
        task=type(task).__name__.lower(),
        model=name,
        pattern=model.spec.pattern,
        params=model.spec.params(),
        state_bytes=model.spec.state_bytes(s=task.length, dtype="fp32"),
        seed=seed,
        steps=marks,
        accuracy=accuracy,
        seconds=perf_counter() - start,
    )


@torch.no_grad()
def score(model: nn.Module, tokens: Int[Tensor, "b l"], targets: Int[Tensor, "b l"]) -> float:
    """Share of the questions that are answered right."""
    logits: Float[Tensor, "b l v"] = model(tokens)
    asked = targets != IGNORE
    return (logits.argmax(-1) == targets)[asked].float().mean().item()
