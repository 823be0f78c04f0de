"""Ends of a run to compare: variants of one plan that share all of it but its last phase.

The stable phase is trained once for each seed. Every variant goes on from one of its states, with
the same weights, moments and order of data, so that two variants differ in one thing only.
"""

from dataclasses import dataclass

from cookbook_lib.training.phases import Phase, Plan, replay

OLD, NEW = {"code": 1.0}, {"prose": 1.0}
WARMUP = 0.05  # part of a run in which the rate rises at its beginning


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Sizes of the experiment. steps: of a whole run, its last phase included.

    every: steps between two measurements, each of `asked` sequences of each source.
    kept: checkpoints of the last phase that are averaged, at equal distances, the last among them.
    """

    steps: int = 600
    batch: int = 16
    length: int = 64
    peak: float = 3e-3
    every: int = 50
    asked: int = 128
    kept: int = 5
    vocab: int = 1024
    d_model: int = 64

    @property
    def step_tokens(self) -> int:
        return self.batch * self.length

    def part(self, share: float) -> int:
        """Steps that are a share of the run, one at least."""
        return max(1, round(share * self.steps))


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A last phase: `share` of a run, from the stable phase or ("low") from a decayed one.

    entry, end: rates as parts of the peak. rewarm: part of the phase in which the rate rises to
    `entry` from 0. replay: part of the phase's tokens that are old data.
    """

    name: str
    share: float = 0.1
    decay: str = "linear"
    entry: float = 1.0
    end: float = 0.0
    rewarm: float = 0.0
    replay: float = 1.0
    trunk: str = "stable"

    def begins(self, scale: Scale) -> int:
        """Steps of the run before this phase."""
        return scale.steps - scale.part(self.share)

    def plan(self, scale: Scale) -> Plan:
        tokens = float(scale.part(self.share) * scale.step_tokens)
        phase = Phase(
            name=self.name,
            tokens=tokens,
            lr=scale.peak * self.entry,
            end=None if self.decay == "constant" else scale.peak * self.end,
            decay=self.decay,
            warmup=tokens * self.rewarm,
            mix=replay(OLD, NEW, self.replay),
            anneal=True,
        )
        before = trunk(self.trunk, scale, self.begins(scale))
        return Plan(name=self.name, phases=(*before, phase))


def trunk(name: str, scale: Scale, steps: int) -> tuple[Phase, ...]:
    """The first `steps` of a run on old data: "stable", or "low", which a cosine lowers to LOW."""
    if not steps:
        return ()
    phase = Phase(
        name=name,
        tokens=float(steps * scale.step_tokens),
        lr=scale.peak,
        end=scale.peak * LOW if name == "low" else None,
        decay="cosine" if name == "low" else "constant",
        warmup=min(scale.part(WARMUP), steps) * scale.step_tokens,
        mix=OLD,
    )
    return (phase,)


FLOOR = 1e-7 / 1.1e-4  # end of Zamba-7B's exponential decay over its beginning: arXiv:2405.16712
LOW = 5e-5 / 2e-4  # end of phase 1 over its peak: Zyphra/zcookbook at ec06304, figure
REWARM = 3e3 / 60e3  # "a few thousand" of 60k iterations: the same

VARIANTS = (
    Variant(name="constant", decay="constant"),
    Variant(name="cosine", share=1.0, decay="cosine", rewarm=WARMUP),
    Variant(name="cosine 2x", share=1.0, decay="cosine", rewarm=WARMUP, entry=2.0),
    *(Variant(name=f"decay {100 * s:g}%", share=s) for s in (0.025, 0.05, 0.1, 0.2)),
    *(Variant(name=f"shape {shape}", decay=shape) for shape in ("cosine", "1-sqrt")),
    Variant(name="shape exponential", decay="exponential", end=FLOOR),
    *(Variant(name=f"replay {100 * r:g}%", replay=r) for r in (0.0, 0.3, 0.6)),
    Variant(name="go on", trunk="low", entry=LOW, replay=0.6),
    Variant(name="re-warm", trunk="low", entry=0.75, rewarm=REWARM, replay=0.6),
)
