"""A run that takes milliseconds: a tiny hybrid on drawn tokens, packed as a corpus would be."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from cookbook_lib.blocks.models import Options as Blocks
from cookbook_lib.blocks.models import Residual, Zamba2
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.training.loop import Options, Run
from cookbook_lib.training.sampling import IGNORE, Batch
from cookbook_lib.training.tiny import tiny, zamba2

VOCAB = 50


@dataclass
class Flat:
    """A plan of one rate."""

    tokens: float
    rate: float = 1e-2

    def lr(self, t: float) -> float:
        return self.rate


class Drawn:
    """Sequences from a seed, each the same whoever reads it; documents end here and there."""

    length = 24

    def __init__(self, seed: int = 0, ends: float = 0.1):
        self.seed, self.ends, self.drawn = seed, ends, 0

    def draw(self, sequences: int, rank: int = 0, ranks: int = 1) -> Batch:
        numbers = range(self.drawn, self.drawn + sequences)[rank::ranks]
        self.drawn += sequences
        ids, documents = zip(*map(self.sequence, numbers), strict=True)
        ids, documents = np.stack(ids), np.stack(documents)
        return Batch(
            tokens=ids[:, :-1],
            targets=np.where(documents[:, 1:] == documents[:, :-1], ids[:, 1:], IGNORE),
            documents=documents[:, :-1],
            sources=np.zeros(len(ids), np.int64),
        )

    def sequence(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        g = np.random.default_rng([self.seed, n])
        ids = g.integers(VOCAB // 2, size=self.length + 1)
        ids = np.cumsum(ids) % VOCAB if n % 2 else ids
        return ids, np.cumsum(g.random(self.length + 1) < self.ends * (n % 3))

    def state(self) -> dict:
        return {"drawn": self.drawn}

    def load(self, state: dict) -> None:
        self.drawn = state["drawn"]


def hybrid():
    spec = tiny("m-a-", VOCAB, d_model=32, d_state=8)
    return Residual(spec, Blocks(rope=RoPE()))


def short():
    return Residual(tiny("m-", VOCAB, d_model=32, d_state=8), Blocks(rope=RoPE()))


def shared():
    return Zamba2(zamba2(VOCAB), Blocks(rope=RoPE(), activation="gelu"))


def run(steps: int = 6, make=hybrid, ranks=None, sampler=None, **options) -> Run:
    options = Options(**{"batch": 4} | options)
    sampler = sampler or Drawn()
    return Run(make, Flat(steps * options.batch * sampler.length), sampler, options, ranks)


def losses(r: Run, steps: int | None = None) -> list[float]:
    return [r.advance()["loss"] for _ in range(steps or r.steps - r.step)]


@pytest.fixture(scope="module")
def one_thread():
    """What is so small is faster on one thread, also where others compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
