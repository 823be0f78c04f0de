"""What training a planned architecture takes on GPUs: arithmetic at an MFU, and communication.

Each GPU holds the whole model and has sequences of its own; the optimizer's states are split among
them (ZeRO 1). Whether communication hides behind arithmetic is not known: both ends are given.
"""

from typing import NamedTuple

from cookbook_lib.calculators.chips import Chip
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.calculators.step_time import DAY, step_time


class PlanTraining(NamedTuple):
    """math, communication: seconds of a step; steps: of the run."""

    steps: float
    math: float
    communication: float

    @property
    def hidden_days(self) -> float:
        """Of the run, if communication goes on behind the arithmetic."""
        return self.steps * max(self.math, self.communication) / DAY

    @property
    def waiting_days(self) -> float:
        """Of the run, if the arithmetic waits for it."""
        return self.steps * (self.math + self.communication) / DAY


def plan_training(
    model: Model,
    train_tokens: float,
    chip: Chip,
    gpus: int,
    mfu: float,
    length: int,
    sequences: int | None = None,
) -> PlanTraining:
    """A run of so many tokens; sequences: of `length` tokens in a step, by default one for a GPU.

    The chip's links are its peak, or what `cookbook links` has fitted to measured collectives:
    rates and delays of both tiers. `ValueError` for a chip whose links are not known.
    """
    how = Parallel(gpus=gpus, zero=1, global_batch=sequences)
    step = step_time(model, chip, how, length)
    return PlanTraining(
        steps=train_tokens / (how.micro_batches * gpus * length),
        math=step.flops / (gpus * chip.flops * mfu),
        communication=step.communication,
    )
