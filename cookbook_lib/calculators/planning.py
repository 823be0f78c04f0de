"""Which architecture fits a budget: candidates, what each costs, and why all but one were dropped.

Everything but quality is counted. Quality is the scaling law's loss for the parameters that a token
uses and the tokens that the training budget pays for. The law knows no mixers: it calls attention
and state space equal at equal size. What it cannot see, recall, enters as a rule: at least one
mixer in so many attends (`Budgets.min_attention`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from cookbook_lib.calculators.chips import CHIPS, Chip
from cookbook_lib.calculators.families import Choice
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.scaling import LAWS, Law, positive
from cookbook_lib.calculators.storage import Storage
from cookbook_lib.calculators.totals import totals

Number = int | float


@dataclass(frozen=True, kw_only=True)
class Use:
    """How a model is trained and served. One of train_flops and train_tokens decides the other.

    length: tokens of a training sequence; attention in training is counted causal.
    """

    train_flops: Number | None = None
    train_tokens: Number | None = None
    length: int = 4096
    context: int = 4096
    batch: int = 1
    chip: Chip = CHIPS["h100"]
    store: Storage = field(default_factory=Storage)
    law: Law = LAWS["besiroglu"]

    def __post_init__(self):
        if (self.train_flops is None) == (self.train_tokens is None):
            raise ValueError(
                f"train_flops is {self.train_flops} and train_tokens is {self.train_tokens}, "
                "expected exactly one of them"
            )
        train = {k: getattr(self, k) for k in ("train_flops", "train_tokens")}
        positive(**{k: v for k, v in train.items() if v is not None})
        positive(length=self.length, context=self.context, batch=self.batch)


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """Limits; None leaves one open. memory: bytes of weights and cache. seconds: of one token.

    min_attention: share of the sequence mixers that must attend. One in ten is the least among
    the hybrids in use (Granite 4.0); without any, copying and lookup fall behind: arXiv:2402.01032,
    arXiv:2406.07887.
    """

    params: Number | None = None
    memory: Number | None = None
    cache: Number | None = None
    seconds: Number | None = None
    min_attention: Number = 0.1

    def __post_init__(self):
        limits = {k: v for k, v in vars(self).items() if v is not None and k != "min_attention"}
        positive(**limits)
        if not 0 <= self.min_attention <= 1:
            raise ValueError(f"min_attention is {self.min_attention:g}, expected a share, 0 to 1")


class Candidate(NamedTuple):
    """A choice with what it costs; smaller is better in every number from `loss` on."""

    choice: Choice
    tokens: float
    params_active: int
    memory: float
    loss: float
    params: int
    train_flops: float
    cache: float
    seconds: float

    def over(self, budgets: Budgets) -> dict[str, float]:
        """The budgets that it exceeds, and how many times."""
        used = {k: getattr(self, k) for k in ("params", "memory", "cache", "seconds")}
        limits = {k: getattr(budgets, k) for k in used}
        return {k: used[k] / v for k, v in limits.items() if v is not None and used[k] > v}


def measure(choice: Choice, use: Use) -> Candidate:
    """What a choice costs: exact counts, a roofline for the time, the law's loss."""
    train = Run(l=use.length, attention="causal")
    serve = Run(b=use.batch, l=1, s=use.context)
    cost = totals(choice.model(), train, serve, use.chip, use.store)
    step = 3 * cost.flops / use.length  # of one token, forward and backward
    tokens = use.train_flops / step if use.train_flops else use.train_tokens
    return Candidate(
        choice=choice,
        tokens=float(tokens),
        params_active=cost.params_active,
        memory=cost.weight_bytes + cost.cache_bytes,
        loss=use.law.loss(cost.params_active, tokens),
        params=cost.params,
        train_flops=float(use.train_flops or tokens * step),
        cache=cost.cache_bytes,
        seconds=cost.seconds,
    )


def dominates(a: Candidate, b: Candidate) -> bool:
    """At least as good in loss, parameters, training, cache and time, and better in one."""
    return (
        a.loss <= b.loss
        and a.cache <= b.cache
        and a.seconds <= b.seconds
        and a.params <= b.params
        and a.train_flops <= b.train_flops
        and a[4:] != b[4:]
    )


def front(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that no other dominates, by loss; of two that cost the same, the first."""
    kept: list[Candidate] = []
    costs: list[tuple] = []  # of those kept, without the loss: it is no larger than the next one's
    for c in sorted(candidates, key=lambda c: c[4:]):  # whoever dominates it comes before it
        _, params, flops, cache, seconds = c[4:]
        for i, (n, f, k, s) in enumerate(costs):
            if k <= cache and s <= seconds and n <= params and f <= flops:
                costs.insert(0, costs.pop(i))  # it may well dominate the next one too
                break
        else:
            kept.append(c)
            costs.append((params, flops, cache, seconds))
    return kept


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All candidates, those within the budgets, and the front of these; the best comes first."""

    use: Use
    budgets: Budgets
    margin: float
    candidates: Sequence[Candidate]

    @cached_property
    def allowed(self) -> list[Candidate]:
        return [c for c in self.candidates if c.choice.share >= self.budgets.min_attention]

    @cached_property
    def fitting(self) -> list[Candidate]:
        fitting = [c for c in self.allowed if not c.over(self.budgets)]
        if not fitting:
            raise ValueError(nothing(self.allowed, self.budgets))
        return fitting

    @cached_property
    def front(self) -> list[Candidate]:
        """First those whose loss is within the margin of the least, by cache; then by loss."""
        kept = front(self.fitting)
        least = kept[0].loss

        def rank(c: Candidate):
            return (0, c.cache, c.seconds) if c.loss <= least + self.margin else (1, c.loss, 0)

        return sorted(kept, key=rank)

    @property
    def best(self) -> Candidate:
        return self.front[0]


def plan(
    choices: Iterable[Choice], use: Use, budgets: Budgets | None = None, margin: Number = 0.01
) -> Plan:
    """The plan for a use: candidates whose predicted loss differs by less than `margin` are equal
    in quality, and the one with the least cache is best."""
    if not 0 <= margin < float("inf"):
        raise ValueError(f"margin is {margin:g}, expected 0 or more nats")
    measured = [measure(choice, use) for choice in choices]
    return Plan(use=use, budgets=budgets or Budgets(), margin=float(margin), candidates=measured)


def nothing(allowed: Sequence[Candidate], budgets: Budgets) -> str:
    """Which budget stops the candidate that comes nearest to all of them, and by how much."""
    if not allowed:
        return f"min_attention is {budgets.min_attention:g}: no candidate has as much attention"
    nearest = min(allowed, key=lambda c: max(c.over(budgets).values()))
    misses = nearest.over(budgets)
    worst = max(misses, key=misses.__getitem__)
    return (
        f"no candidate fits: {worst} is the binding budget; the nearest, {nearest.choice.label}, "
        f"takes {getattr(nearest, worst):.3g}, {misses[worst]:.3g} times the {worst} of "
        f"{getattr(budgets, worst):.3g}"
    )
