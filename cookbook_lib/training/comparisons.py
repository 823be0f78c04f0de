"""Architectures of one size in training: which runs compare them, and what a run tells.

Runs of one seed read the same sequences in the same order. Before them the learning rate is swept,
from another seed, for each architecture by itself; an ablation takes the hybrid's or, if asked
for, one of its own.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from time import process_time
from typing import Any

from cookbook_lib.data.python_corpus import Corpus
from cookbook_lib.training.contenders import (
    ARCHITECTURES,
    CONTENDERS,
    LENGTH,
    Contender,
    width,
)
from cookbook_lib.training.exam import Exam
from cookbook_lib.training.loop import Options, Run
from cookbook_lib.training.phases import Phase, Plan
from cookbook_lib.training.sampling import Sampler

RATES = (3e-3, 6e-3, 1.2e-2, 2.4e-2, 4.8e-2, 9.6e-2)
LOWER = RATES[1:-1]  # of ablations, which bear the hybrid's rate or less
SWEEP = 1000  # the seed of the sweep, which nothing else uses
SOURCES = ("prose", "code")
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Sizes of the runs. tokens: of a run, unless it is given FLOPs instead.

    every: steps between two measurements on `seen` held-out sequences of each source; the last
    measurement is on `asked` of them.
    """

    steps: int = 160
    batch: int = 8
    warmup: float = 0.1  # part of the run
    every: int = 40
    seen: int = 32
    asked: int = 128

    @property
    def step_tokens(self) -> int:
        return self.batch * LENGTH


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run. equal: what it has as much of as the hybrid, "tokens" or "FLOPs"."""

    experiment: str
    contender: Contender
    equal: str
    seed: int
    rate: float

    def steps(self, scale: Scale) -> int:
        if self.equal == "tokens":
            return scale.steps
        ratio = CONTENDERS["hybrid"].flops_per_token / self.contender.flops_per_token
        return round(scale.steps * ratio)

    def plan(self, scale: Scale) -> Plan:
        """A warm-up, then a line to 0; both sources in equal parts."""
        tokens = float(self.steps(scale) * scale.step_tokens)
        phase = Phase(
            name="all",
            tokens=tokens,
            lr=self.rate,
            end=0.0,
            decay="linear",
            warmup=tokens * scale.warmup,
            mix=dict.fromkeys(SOURCES, 0.5),
        )
        return Plan(name=self.contender.name, phases=(phase,))

    def run(self, scale: Scale, corpus: Corpus) -> Run:
        """Before its first step: the seed draws its weights and the order of its data."""
        plan = self.plan(scale)
        sampler = Sampler(plan, corpus.shards, LENGTH, self.seed)
        return Run(self.contender.make, plan, sampler, Options(batch=scale.batch, seed=self.seed))


def trained(case: Case, scale: Scale, corpus: Corpus) -> Row:
    """Train it; what it is, its losses over the steps, those held out, its speed on this CPU."""
    seen, whole = (Exam(corpus, LENGTH, asked) for asked in (scale.seen, scale.asked))
    run, spec = case.run(scale, corpus), case.contender.spec
    losses, curve, took = [], [], []
    for step in range(1, run.steps + 1):
        start = process_time()
        losses.append(round(run.advance()["loss"], 4))
        took.append(process_time() - start)
        if step % scale.every == 0 and step < run.steps:
            curve.append({"tokens": run.tokens, **seen.losses(run.model)})
    held_out = whole.losses(run.model, scale.seen)
    return {
        "experiment": case.experiment,
        "model": case.contender.name,
        "equal": case.equal,
        "seed": case.seed,
        "rate": case.rate,
        "spec": {"pattern": spec.pattern, "d_ff": width(spec), "params": spec.params()},
        "tokens": run.tokens,
        "flops_per_token": case.contender.flops_per_token,
        **held_out,
        "curve": curve,
        "losses": losses,
        "tokens_per_cpu_second": scale.step_tokens / median(took),
        "scale": asdict(scale),
    }


def swept(rows: Sequence[Row]) -> dict[str, dict[float, float]]:
    """The mean loss over the sources of each rate that was tried, by model."""
    found: dict[str, dict[float, float]] = {}
    for row in rows:
        if row["experiment"] == "rates":
            found.setdefault(row["model"], {})[row["rate"]] = mean_loss(row)
    return found


def mean_loss(row: Row) -> float:
    """Nats a token, over both sources in equal parts, as they are trained on."""
    return sum(row[source] for source in SOURCES) / len(SOURCES)


def best_rate(rows: Sequence[Row], contender: Contender) -> float:
    """What did best in its sweep; an ablation that was not swept takes the hybrid's."""
    found = swept(rows)
    tried = found[contender.name] if contender in ARCHITECTURES else found["hybrid"]
    tried = found.get(contender.name, tried)
    return min(tried, key=lambda rate: tried[rate])


def swept_cases(chosen: Sequence[Contender]) -> list[Case]:
    """A run for each rate of each of them."""
    return [
        Case(experiment="rates", contender=c, equal="tokens", seed=SWEEP, rate=rate)
        for c in chosen
        for rate in (RATES if c in ARCHITECTURES else LOWER)
    ]


def compared(chosen: Sequence[Contender], seed: int, rows: Sequence[Row]) -> list[Case]:
    """The runs of one seed: architectures at equal tokens and at equal FLOPs, ablations at equal
    tokens. The hybrid is the measure of both."""
    cases = []
    for c in chosen:
        name = "architectures" if c in ARCHITECTURES else "ablations"
        twice = name == "architectures" and c.name != "hybrid"
        for equal in ("tokens", "FLOPs")[: 1 + twice]:
            rate = best_rate(rows, c)
            cases.append(Case(experiment=name, contender=c, equal=equal, seed=seed, rate=rate))
    return cases
