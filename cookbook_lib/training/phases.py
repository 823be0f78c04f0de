"""A training run as a list of phases, from which everything that changes with time follows.

Standard library only. Time is counted in tokens from the beginning of the run: a step of B tokens
that follows t others is best given the rate of its middle, `plan.lr(t + B / 2)`, which is never the
0 of a warm-up's beginning or a decay's end.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf, isfinite

from cookbook_lib.training.schedules import SHAPES, Number, half_life


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Tokens that are trained on with one mixture, while the rate follows one curve.

    lr: after the warm-up. end: at the phase's end; `lr` if not given.
    decay: the curve between the two (see SHAPES), over the tokens behind the warm-up; "half-life"
        halves the rate every `half_life` tokens, "inverse-sqrt" is lr * sqrt(warmup / t): both come
        to their own end.
    decay_tokens: in which the curve would reach its end, if that is not the end of the phase; one
        that is cut off ends higher.
    warmup: tokens in which the rate rises in a line from `warmup_from` to `lr`.
    mix: the weight of each source in the tokens; they are scaled to add up to 1.
    anneal: this phase is for high quality, so that repetition of its data is worth a warning.
    """

    name: str
    tokens: Number
    lr: Number
    end: Number | None = None
    decay: str = "constant"
    decay_tokens: Number | None = None
    half_life: Number | None = None
    warmup: Number = 0.0
    warmup_from: Number = 0.0
    mix: Mapping[str, Number] = field(default_factory=lambda: {"data": 1.0})
    anneal: bool = False

    def __post_init__(self):
        limits = {k: getattr(self, k) for k in ("tokens", "lr", "decay_tokens", "half_life")}
        for name, value in limits.items():
            if value is not None and not 0 < value < inf:
                raise ValueError(f"{name} of {self.name} is {value}, expected a number above 0")
        for name in ("end", "warmup", "warmup_from"):
            if not 0 <= (getattr(self, name) or 0) < inf:
                raise ValueError(
                    f"{name} of {self.name} is {getattr(self, name)}, expected 0 or more"
                )
        for name in ("warmup", "tokens"):
            most = self.tokens if name == "warmup" else self.decay_tokens or inf
            if getattr(self, name) > most:
                raise ValueError(
                    f"{name} of {self.name} is {getattr(self, name):g}, expected at most {most:g}"
                )
        self.check_decay()
        if not self.mix or not all(0 <= w < inf for w in self.mix.values()) or not self.weight:
            raise ValueError(
                f"mix of {self.name} is {dict(self.mix)}, expected weights, 0 or more, not all 0"
            )

    def check_decay(self) -> None:
        known = (*SHAPES, "half-life", "inverse-sqrt")
        if self.decay not in known:
            raise ValueError(
                f"decay of {self.name} is {self.decay!r}, expected one of {', '.join(known)}"
            )
        if (self.decay == "half-life") != (self.half_life is not None):
            raise ValueError(
                f"half_life of {self.name} is {self.half_life} with decay {self.decay!r}: "
                "'half-life' needs it, and nothing else has one"
            )
        if self.decay == "inverse-sqrt" and not self.warmup:
            raise ValueError(f"warmup of {self.name} is 0, and 'inverse-sqrt' is counted from it")
        if self.end is not None and self.decay in ("constant", "half-life", "inverse-sqrt"):
            raise ValueError(
                f"end of {self.name} is {self.end} with decay {self.decay!r}, which has its own end"
            )
        if self.decay in SHAPES and self.decay != "constant" and self.end is None:
            raise ValueError(f"end of {self.name} is missing: decay {self.decay!r} goes there")
        if self.decay == "exponential" and not self.end:
            raise ValueError(f"end of {self.name} is 0, which 'exponential' never reaches")

    @property
    def weight(self) -> Number:
        return sum(self.mix.values())

    def share(self, source: str) -> Number:
        """The part of this phase's tokens that come from a source."""
        return self.mix.get(source, 0) / self.weight

    def rate(self, t: Number) -> Number:
        """The learning rate after `t` tokens of this phase."""
        if t < self.warmup:
            return self.warmup_from + (self.lr - self.warmup_from) * t / self.warmup
        if self.decay == "half-life":
            return self.lr * half_life(t - self.warmup, self.half_life)
        if self.decay == "inverse-sqrt":
            return self.lr * (self.warmup / t) ** 0.5
        length = (self.decay_tokens or self.tokens) - self.warmup
        u = min((t - self.warmup) / length, 1.0) if length else 1.0
        return SHAPES[self.decay](u, self.lr, self.lr if self.end is None else self.end)

    @property
    def last(self) -> Number:
        """The rate that it ends with."""
        return self.rate(self.tokens)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Phases in their order. available: tokens of each source, where they are known.

    source: where the plan is from. note: what is not known of it. batch: tokens of a step, where it
    is known. unit: what `tokens` counts, where that is not tokens.
    """

    name: str
    phases: tuple[Phase, ...]
    available: Mapping[str, Number] = field(default_factory=dict)
    source: str = ""
    note: str = ""
    batch: Number | None = None
    unit: str = "tokens"

    def __post_init__(self):
        if not self.phases:
            raise ValueError(f"phases of {self.name} is empty, expected at least one phase")
        for source, tokens in self.available.items():
            if not (isfinite(tokens) and tokens > 0):
                raise ValueError(f"available of {source} is {tokens}, expected a number above 0")

    @property
    def tokens(self) -> Number:
        return sum(p.tokens for p in self.phases)

    @property
    def peak(self) -> Number:
        """The highest rate of the first phase: what others are compared with."""
        return self.phases[0].lr

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(s for p in self.phases for s in p.mix))

    def spans(self) -> Iterator[tuple[Number, Phase]]:
        """Each phase with the tokens that came before it."""
        start = 0.0
        for phase in self.phases:
            yield start, phase
            start += phase.tokens

    def index(self, t: Number) -> int:
        """Number of the phase after `t` tokens; from the end on, the last one."""
        begun = [i for i, (start, _) in enumerate(self.spans()) if start <= t]
        return begun[-1] if begun else 0

    def at(self, t: Number) -> tuple[Number, Phase]:
        """The phase after `t` tokens, and where it began."""
        return list(self.spans())[self.index(t)]

    def lr(self, t: Number) -> Number:
        """The learning rate after `t` tokens."""
        start, phase = self.at(t)
        return phase.rate(min(t - start, phase.tokens))

    def mix(self, t: Number) -> dict[str, Number]:
        """The share of each source after `t` tokens; they add up to 1."""
        phase = self.at(t)[1]
        return {s: phase.share(s) for s in self.sources}

    def drawn(self) -> dict[str, Number]:
        """Tokens that the whole run takes from each source."""
        return {s: sum(p.tokens * p.share(s) for p in self.phases) for s in self.sources}

    def epochs(self) -> dict[str, Number]:
        """How often the run reads each source whose size is known."""
        return {s: n / self.available[s] for s, n in self.drawn().items() if s in self.available}


def replay(
    old: Mapping[str, Number], new: Mapping[str, Number], share: Number
) -> dict[str, Number]:
    """A mixture in which `share` is the old one again, and the rest is new."""
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}, expected a part of the mixture, 0 to 1")
    parts = ((old, share), (new, 1 - share))
    mixed: dict[str, Number] = {}
    for mix, part in parts:
        for source, weight in mix.items():
            mixed[source] = mixed.get(source, 0.0) + part * weight / sum(mix.values())
    return {s: w for s, w in mixed.items() if w}
