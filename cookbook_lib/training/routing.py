"""Who works how much: the load of each expert while a tiny mixture of experts is trained.

The model is BlackMamba's with Mamba-2 for Mamba: state-space layers and experts in turn, no
attention, one expert a token, a sigmoid gate (arXiv:2402.01771).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from cookbook_lib.blocks.models import LanguageModel, Options, Residual
from cookbook_lib.blocks.moe import MoE
from cookbook_lib.blocks.sinkhorn import Balance, load, sinkhorn
from cookbook_lib.data.python_corpus import Corpus
from cookbook_lib.training import loop
from cookbook_lib.training.phases import Phase, Plan
from cookbook_lib.training.sampling import Sampler
from cookbook_lib.training.tiny import tiny

Balancer = Callable[[Tensor], Balance]
BALANCERS: dict[str, Balancer | None] = {
    "none (argmax)": None,
    "ones, one round": partial(sinkhorn, start="ones", iterations=1),
    "BlackMamba's, one round": partial(sinkhorn, start="balanced", iterations=1),
    "BlackMamba's, to the end": partial(sinkhorn, start="balanced"),
}


def blackmamba(vocab: int, balancer: Balancer | None, pattern: str = "m8m8") -> LanguageModel:
    """Fresh weights; Sinkhorn as `balancer` does it chooses the experts in training, or nobody."""
    balance = "none" if balancer is None else "sinkhorn"
    options = Options(activation="gelu", gate="sigmoid", normalise=False, balance=balance)
    model = Residual(tiny(pattern, vocab), options)
    for moe in experts(model):
        moe.balancer = balancer or moe.balancer
    return model


def experts(model: LanguageModel) -> list[MoE]:
    """The layers of experts, in their order."""
    return [module for module in model.modules() if isinstance(module, MoE)]


class Watch:
    """The load of every layer's experts each time that it routes, as parts of the mean."""

    def __init__(self, model: LanguageModel):
        self.loads: list[list[Tensor]] = [[] for _ in experts(model)]
        for moe, seen in zip(experts(model), self.loads, strict=True):
            moe.route = partial(self.route, moe.route, moe.spec.n_experts, seen)

    @staticmethod
    def route(inner: Callable, n_experts: int, seen: list[Tensor], x: Tensor):
        chosen, weights = inner(x)
        seen.append(load(chosen, n_experts))
        return chosen, weights

    def busiest(self) -> Tensor:
        """(layers, passes): the load of the busiest expert."""
        return torch.stack([torch.stack(seen).amax(1) for seen in self.loads])


@dataclass(frozen=True)
class Routed:
    """How one training went: the loss of each step, and the busiest expert of each layer and step.

    at_rest: the busiest expert by the logits alone, as in inference, on what was held out.
    """

    name: str
    seed: int
    loss: list[float] = field(repr=False)
    busiest: Tensor = field(repr=False)
    at_rest: list[float]


def routed(name: str, seed: int, corpus: Corpus, steps: int = 80, rate: float = 3e-3) -> Routed:
    """Train from scratch on code and prose with one of BALANCERS."""
    length, batch = 64, 16
    tokens = float(steps * batch * length)
    phase = Phase(name=name, tokens=tokens, lr=rate, warmup=tokens / 8, mix={"code": 1, "prose": 1})
    plan = Plan(name=name, phases=(phase,))
    run = loop.Run(
        lambda: blackmamba(corpus.vocab, BALANCERS[name]),
        plan,
        Sampler(plan, corpus.shards, length, seed),
        loop.Options(batch=batch, seed=seed),
    )
    watch = Watch(run.model)
    losses = [run.advance()["loss"] for _ in range(steps)]
    busiest = watch.busiest()
    rest = Watch(run.model.eval())
    with torch.no_grad():
        asked = Sampler(plan, corpus.held_out, length).draw(4 * batch)
        run.model(torch.from_numpy(asked.tokens), seq_idx=torch.from_numpy(asked.documents))
    return Routed(name, seed, losses, busiest, rest.busiest()[:, 0].tolist())
