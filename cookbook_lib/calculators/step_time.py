"""How long a training step takes at best, and so a training run: arithmetic, memory, wires.

Each of the three is a time at the chip's peak rates. If they overlap perfectly the step takes the
longest of them, T = max(T_math, T_memory, T_communication); if communication waits for the rest,
their sum. Neither says how much of the peak a kernel reaches: that is what a measured MFU is for.
"""

from dataclasses import dataclass
from math import fsum, inf
from typing import Any

from cookbook_lib.calculators.chips import Chip
from cookbook_lib.calculators.collectives import collectives
from cookbook_lib.calculators.hardware import roofline
from cookbook_lib.calculators.kept import RECOMPUTE
from cookbook_lib.calculators.memory import Training, named_weights
from cookbook_lib.calculators.memory import memory as fullest_gpu
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.parallel import Parallel, Stage
from cookbook_lib.calculators.runs import Run, choose
from cookbook_lib.calculators.wires import Collective

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
    recompute: str = "none",
    attention: str = "causal",
) -> StepTime:
    """The terms of one step of `how.global_batch` sequences of `tokens` tokens.

    recompute: in the backward pass nothing, the products without weights ("selective") or whole
    layers ("full") run forward once more.
    """
    choose("recompute", recompute, RECOMPUTE)
    how.check(model)
    run = Run(b=how.micro_batch, l=tokens, attention=attention)
    m = how.micro_batches
    waits = m + how.pp - 1  # arXiv:2104.04473, section 2.2.1: (pp - 1) / m of the time is bubble
    stages = how.stages(model)
    each = [stage_time(stage, chip, how, run, recompute) for stage in stages]
    math, memory, optimizer = (max(part) for part in zip(*each, strict=True))
    wires = collectives(model, how, tokens, recompute)
    repeated = fsum(c.seconds(chip) for c in wires if c.each)
    return StepTime(
        math=waits * math,
        memory=waits * memory + optimizer,
        communication=repeated * waits / m + fsum(c.seconds(chip) for c in wires if not c.each),
        bubble=(how.pp - 1) / waits,
        flops=3 * model.flops(b=run.b, l=tokens, attention=attention) * m * how.dp,
        wires=wires,
    )


def stage_time(
    stage: Stage, chip: Chip, how: Parallel, run: Run, recompute: str
) -> tuple[float, float, float]:
    """Seconds of arithmetic and of memory for a micro-batch on one rank, and of the optimizer.

    Context parallel ranks have equal parts of the arithmetic, as if the mask were dealt out evenly.
    """
    part = Run(b=run.b, l=how.tokens(run.l), attention=run.attention)
    layers = [how.shard(block) for layer in stage.layers for _, block in layer]
    blocks = [how.shard(block) for _, block in stage.layout]
    math = 3 * fsum(roofline(block, chip, run).math for block in blocks)
    memory = 3 * fsum(roofline(block, chip, part).memory for block in blocks)
    if recompute == "selective":
        rows = [row for block in layers for row in block.rows(run) if not row.params]
        math += sum(row.flops for row in rows) / chip.flops
    if recompute == "full":
        math += fsum(roofline(block, chip, run).math for block in layers)
        memory += fsum(roofline(block, chip, part).memory for block in layers)
    held = named_weights(stage.layout, how).values()
    kept = fsum(w.elements / (how.copies(w.expert) if how.zero else 1) for w in held)
    return math / how.cp, memory, kept * ADAM / chip.bandwidth


def train_report(
    model: Model,
    chip: Chip,
    how: Parallel,
    tokens: int,
    train_tokens: int,
    mfu: float | None = None,
    price: float | None = None,
    recompute: str = "none",
    attention: str = "causal",
) -> dict[str, Any]:
    """A training run as one plain dictionary: seconds, bytes, FLOP, joules.

    mfu: the part of the peak that the model's FLOPs reach, if it is known; otherwise the step takes
    what `StepTime.overlapped` says, and `mfu` is what that comes to, which no run exceeds.
    price: of a GPU hour, in any currency. The energy is the limit of the boards for that time.
    `memory_bytes` is what the fullest GPU needs with AdamW; the times are those of one that has it.
    """
    for name, value in {"tokens": tokens, "train_tokens": train_tokens}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected a whole number above 0")
    if mfu is not None and not 0 < mfu <= 1:
        raise ValueError(f"mfu is {mfu}, expected a part of the peak, 0 to 1")
    if price is not None and not 0 <= price < inf:
        raise ValueError(f"price is {price}, expected a price of a GPU hour, 0 or more")
    step = step_time(model, chip, how, tokens, recompute, attention)
    needed = fullest_gpu(model, Training(tokens=tokens, parallel=how, recompute=recompute)).total
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
        "memory_bytes": needed,
        "chip_bytes": int(chip.memory),
        "fits": needed <= chip.memory,
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
