"""Serving on one chip: how long until the first token and between tokens, and what fits.

Prefill runs the whole prompt through the model and gives the first token; each further token is a
pass of one token for every sequence. Times are lower bounds, from two sides (see `hardware`), and
leave out what is no product of tensors, the launch of kernels and the sampling. Several chips are
not modelled.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cookbook_lib.calculators.chips import Chip
from cookbook_lib.calculators.hardware import Roofline, roofline
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.storage import Storage

USABLE = 0.9  # of the memory, by default in vLLM 0.6: engine/arg_utils.py, gpu_memory_utilization
ENDLESS = 2**40  # tokens; what still fits then grows no more


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A model on a chip, and how its numbers are stored.

    usable: the part of the memory that weights and caches may take; the rest is for activations,
    the runtime and fragments.
    """

    model: Model
    chip: Chip
    store: Storage = field(default_factory=Storage)
    usable: int | float = USABLE

    def __post_init__(self):
        if not 0 < self.usable <= 1:
            raise ValueError(f"usable is {self.usable}, expected a part of the memory, 0 to 1")

    @property
    def room(self) -> float:
        """Bytes that weights and caches may take."""
        return self.usable * self.chip.memory

    @cached_property
    def weights(self) -> float:
        """Bytes of the weights."""
        return float(self.store.weights_nbytes(self.model))

    def cache(self, batch: int, context: int) -> float:
        """Bytes that `batch` sequences of `context` tokens keep: keys, values and states."""
        return float(self.store.states_nbytes(self.model, batch, context))

    def fits(self, batch: int, context: int) -> bool:
        return self.weights + self.cache(batch, context) <= self.room

    def prefill(self, batch: int, prompt: int) -> Roofline:
        """The pass over the prompt. Attention skips what the mask hides; one row of logits."""
        run = Run(b=batch, l=prompt, attention="causal", logits="last")
        return roofline(self.model, self.chip, run, self.store)

    def decode(self, batch: int, context: int) -> Roofline:
        """One more token for each sequence, the last of `context`."""
        return roofline(self.model, self.chip, Run(b=batch, l=1, s=context), self.store)

    def largest_batch(self, context: int) -> int:
        """Sequences of `context` tokens that fit at once; 0 if none does."""
        return largest(lambda batch: self.fits(batch, context))

    def longest_context(self, batch: int) -> int | None:
        """Tokens that each of `batch` sequences may have; None if memory sets no limit."""
        if self.fits(batch, ENDLESS):
            return None
        return largest(lambda context: self.fits(batch, context))


def largest(fits: Callable[[int], bool]) -> int:
    """The largest n that fits, where all smaller ones do too; 0 if 1 does not."""
    high = 1
    while fits(high):
        high *= 2
    low = high // 2  # fits, or is 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def serving_report(serving: Serving, batch: int, prompt: int, output: int) -> dict[str, Any]:
    """What a batch of requests costs, as one plain dictionary; seconds, bytes, FLOP.

    Each of the `batch` sequences has `prompt` tokens and gets `output` more. The time per output
    token is that in the middle of the output, which is the mean as long as the cache grows evenly.
    Keys in `_fused` are the lower bound, in `_eager` the one for a run op by op.
    """
    for name, value in {"batch": batch, "prompt": prompt, "output": output}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected a whole number above 0")
    context = prompt + output
    needed = serving.weights + serving.cache(batch, context)
    if needed > serving.room:
        raise ValueError(
            f"{serving.model.name} with {batch} x {context} tokens needs {needed / 1e9:.1f} GB, "
            f"{(needed - serving.room) / 1e9:.1f} GB more than the {serving.usable:.0%} of "
            f"{serving.chip.memory / 1e9:.0f} GB that {serving.chip.name} may use: take fewer bits,"
            " a smaller batch or context, or a larger chip"
        )
    prefill = serving.prefill(batch, prompt)
    decode = serving.decode(batch, prompt + max(1, output // 2))
    further = output - 1  # passes of one token: prefill gives the first
    return {
        "model": serving.model.name,
        "chip": serving.chip.name,
        **vars(serving.store),
        "batch": batch,
        "prompt": prompt,
        "output": output,
        "weight_bytes": serving.weights,
        "cache_bytes": serving.cache(batch, context),
        "memory_bytes": needed,
        "largest_batch": serving.largest_batch(context),
        "longest_context": serving.longest_context(batch),
        "prefill": as_dict(prefill),
        "decode": as_dict(decode),
        "ttft_fused": prefill.fused,
        "ttft_eager": prefill.eager,
        "tpot_fused": decode.fused,
        "tpot_eager": decode.eager,
        "seconds_fused": prefill.fused + further * decode.fused,
        "seconds_eager": prefill.eager + further * decode.eager,
        "decode_tokens_per_second": batch / decode.fused,
        "tokens_per_second": batch * output / (prefill.fused + further * decode.fused),
    }


def as_dict(bound: Roofline) -> dict[str, Any]:
    return vars(bound) | {"intensity": bound.intensity, "bound_by": bound.bound_by}
