"""How long a training step takes at best, and so a training run: arithmetic, memory, wires.

Each of the three is a time at the chip's peak rates. If they overlap perfectly the step takes the
longest of them, T = max(T_math, T_memory, T_communication); if communication waits for the rest,
their sum. Neither says how much of the peak a kernel reaches: that is what a measured MFU is for.
"""

from dataclasses import dataclass
from typing import Any

from cookbook_lib.calculators.chips import Chip
from cookbook_lib.calculators.collectives import Collective, collectives
from cookbook_lib.calculators.costs import Run
from cookbook_lib.calculators.hardware import roofline
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.parallel import Parallel

ADAM = 12 + 12 + 2 + 2  # bytes: fp32 weight and moments read, written; gradient in, bf16 weight out
DAY = 86400


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of a step on the busiest GPU; what repeats with each micro-batch includes the bubble.

    flops: of the model in a step of all GPUs, forward and backward, nothing recomputed.
    """

    math: float
    memory: float
    communication: float
    bubble: float  # part of the step in which a stage has nothing to do
    flops: int
    wires: tuple[Collective, ...]

    @property
    def overlapped(self) -> float:
        return max(self.math, self.memory, self.communication)

    @property
    def summed(self) -> float:
        return max(self.math, self.memory) + self.communication

    @property
    def bound_by(self) -> str:
        return max(("math", "memory", "communication"), key=lambda term: getattr(self, term))


def step_time(
    model: Model,
    chip: Chip,
    how: Parallel,
    tokens: int,
    recompute: bool = False,
    attention: str = "causal",
) -> StepTime:
    """The terms of one step of `how.global_batch` sequences of `tokens` tokens."""
    how.check(model)
    run = Run(b=how.micro_batch, l=tokens, attention=attention)
    part = Run(b=how.micro_batch, l=how.tokens(tokens), attention=attention)  # of a sequence
    passes = 4 if recompute else 3  # forward, twice that backward, forward again
    m = how.micro_batches
    waits = m + how.pp - 1  # arXiv:2104.04473, section 2.2.1: (pp - 1) / m of the time is bubble
    math, memory, adam = 0.0, 0.0, 0.0
    for layout in how.stages(model):
        stage = [how.shard(block) for _, block in layout]
        busy = sum(roofline(block, chip, run).math for block in stage) / how.cp
        traffic = sum(roofline(block, chip, part).memory for block in stage)
        math, memory = max(math, busy), max(memory, traffic)
        params = sum({name: how.shard(block).params() for name, block in layout}.values())
        kept = params / (how.shared_by if how.zero else 1)
        adam = max(adam, kept * ADAM / chip.bandwidth)
    wires = tuple(collectives(model, how, tokens, recompute))
    each = sum(c.seconds(chip) for c in wires if c.each)
    once = sum(c.seconds(chip) for c in wires if not c.each)
    return StepTime(
        math=passes * waits * math,
        memory=passes * waits * memory + adam,
        communication=each * waits / m + once,
        bubble=(how.pp - 1) / waits,
        flops=3 * model.flops(b=run.b, l=tokens, attention=attention) * m * how.dp,
        wires=wires,
    )


def train_report(
    model: Model,
    chip: Chip,
    how: Parallel,
    tokens: int,
    train_tokens: int,
    mfu: float | None = None,
    price: float | None = None,
    recompute: bool = False,
    attention: str = "causal",
) -> dict[str, Any]:
    """A training run as one plain dictionary: seconds, bytes, FLOP, joules.

    mfu: the part of the peak that the model's FLOPs reach, if it is known; otherwise the step takes
    what `StepTime.overlapped` says, and `mfu` is what that comes to, which no run exceeds.
    price: of a GPU hour, in any currency. The energy is the limit of the boards for that time.
    """
    for name, value in {"tokens": tokens, "train_tokens": train_tokens}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected a whole number above 0")
    if mfu is not None and not 0 < mfu <= 1:
        raise ValueError(f"mfu is {mfu}, expected a part of the peak, 0 to 1")
    if price is not None and price < 0:
        raise ValueError(f"price is {price}, expected a price of a GPU hour, 0 or more")
    step = step_time(model, chip, how, tokens, recompute, attention)
    peak, batch = how.gpus * chip.flops, how.micro_batches * how.dp * how.micro_batch
    seconds = step.flops / (peak * mfu) if mfu else step.overlapped
    total = seconds * train_tokens / (batch * tokens)
    hours = how.gpus * total / 3600
    return {
        "model": model.name,
        "chip": chip.name,
        **vars(how),
        "dp": how.dp,
        "global_batch": batch,
        "tokens": tokens,
        "train_tokens": train_tokens,
        "attention": attention,
        "recompute": recompute,
        "flops_per_step": step.flops,
        "flops": step.flops * train_tokens / (batch * tokens),
        "math_seconds": step.math,
        "memory_seconds": step.memory,
        "communication_seconds": step.communication,
        "overlapped_seconds": step.overlapped,
        "summed_seconds": step.summed,
        "bubble": step.bubble,
        "bound_by": step.bound_by,
        "mfu_overlapped": step.flops / (peak * step.overlapped),
        "mfu_summed": step.flops / (peak * step.summed),
        "mfu": mfu or step.flops / (peak * step.overlapped),
        "seconds_per_step": seconds,
        "steps": train_tokens / (batch * tokens),
        "tokens_per_second": batch * tokens / seconds,
        "flops_per_gpu_second": step.flops / (how.gpus * seconds),
        "seconds": total,
        "days": total / DAY,
        "gpu_hours": hours,
        "cost": None if price is None else hours * price,
        "energy_joules": chip.power and chip.power * how.gpus * total,
        "collectives": [
            c._asdict() | {"sent_bytes": c.sent, "seconds": c.seconds(chip)} for c in step.wires
        ],
    }
