"""What training a model takes of each GPU's memory: five parts, for every stage of the pipeline.

Weights, gradients and optimizer states follow from the rows of a rank's shards; activations from
the tensors that its blocks keep; the largest temporary is whichever moment needs the most: the
loss, the layer that is made again, or a layer whose split weights are gathered.
Left out: the allocator's gaps, buffers of the network library, the driver's own memory, and what an
operation needs only while it runs.
"""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import ceil

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.kept import (
    KERNELS,
    RECOMPUTE,
    in_stream,
    nbytes,
    selective,
    tensors,
)
from cookbook_lib.calculators.model import Layout, Model
from cookbook_lib.calculators.optimizers import OPTIMIZERS, Weight, state_bytes, weights_of
from cookbook_lib.calculators.parallel import Parallel, Stage
from cookbook_lib.calculators.runs import BITS, Run, choose
from cookbook_lib.calculators.specs import Head, Norm

DTYPES = ("fp32", "bf16", "fp16")
LOSS = 3 * 4  # bytes of a logit at PyTorch's cross entropy, float32: log-probabilities, their
# gradient, and that of the logits; tests/test_memory.py measures it


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model is trained, as far as its memory depends on it.

    tokens: of each sequence. dtype: of weights and activations. gradients: their dtype, "" for that
    of the weights. master: a float32 copy of weights in less, with states in float32.
    recompute: none keeps all; selective nothing that a norm, an activation function, attention or a
    scan gives again; full only what enters each layer. kernels: see `kept`.
    """

    tokens: int = 4096
    parallel: Parallel = field(default_factory=Parallel)
    dtype: str = "bf16"
    gradients: str = ""
    master: bool = True
    optimizer: str = "adamw"
    recompute: str = "none"
    kernels: str = "fused"

    def __post_init__(self):
        if type(self.tokens) is not int or self.tokens < 1:
            raise ValueError(f"tokens is {self.tokens!r}, expected a whole number above 0")
        self.parallel.tokens(self.tokens)
        choose("dtype", self.dtype, DTYPES)
        choose("gradients", self.gradients, ("", *DTYPES))
        choose("optimizer", self.optimizer, OPTIMIZERS)
        choose("recompute", self.recompute, RECOMPUTE)
        choose("kernels", self.kernels, KERNELS)

    @property
    def run(self) -> Run:
        """One micro-batch on one rank, whose queries meet the keys of the whole sequence."""
        p = self.parallel
        return Run(b=p.micro_batch, l=p.tokens(self.tokens), s=self.tokens)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one GPU of one stage."""

    stage: int = 0
    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    temporary: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.temporary


def memory(model: Model, how: Training) -> Memory:
    """The GPU that needs the most; of several, one of the first stage that does."""
    return max(stages(model, how), key=lambda m: m.total)


def stages(model: Model, how: Training) -> tuple[Memory, ...]:
    """One GPU of each stage; `ValueError` if the model cannot be split so."""
    how.parallel.check(model)
    return tuple(
        of_stage(model, how, i, stage) for i, stage in enumerate(how.parallel.stages(model))
    )


def of_stage(model: Model, how: Training, i: int, stage: Stage) -> Memory:
    """The parts are added as if all peaks met, which is so when the backward pass begins."""
    ends = [end for end in (stage.before, stage.after) if end]
    kept = sum(activations(end, how) for end in ends)
    entering, again = entering_bytes(model, how), 0
    for layer in stage.layers:
        whole = activations(layer, how)
        some = {"none": whole, "full": entering}.get(how.recompute)
        some = activations(layer, how, again=True) if some is None else min(some, whole)
        kept += some
        again = max(again, whole - some + gathered(layer, how))
    loss = loss_bytes(stage.after, how) + max((gathered(end, how) for end in ends), default=0)
    weights, gradients, optimizer = states(stage.layout, how)
    return Memory(
        stage=i,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=kept * how.parallel.in_flight(i),
        temporary=max(again, loss),
    )


@lru_cache(maxsize=4096)
def shard_weights(block: Block, parallel: tuple[int, int]) -> tuple[Weight, ...]:
    return tuple(weights_of(block.shard(*parallel)))


def named_weights(layout: Layout, p: Parallel) -> dict[str, Weight]:
    """The weights that a rank holds before ZeRO, each once: a shared one has one name."""
    return {
        f"{name}.{weight.name}": weight
        for name, block in layout
        for weight in shard_weights(block, (p.tp, p.ep))
    }


def states(layout: Layout, how: Training) -> tuple[int, int, int]:
    """Bytes of weights, gradients and optimizer states that a rank keeps, split by ZeRO."""
    p, weight = how.parallel, BITS[how.dtype] / 8
    gradient = BITS[how.gradients or how.dtype] / 8
    sums = [0, 0, 0]
    for w in named_weights(layout, p).values():
        ranks = p.copies(w.expert)
        each = (weight, gradient, state_bytes(w, how.optimizer, how.dtype, how.master))
        for part, (from_stage, size) in enumerate(zip((3, 2, 1), each, strict=True)):
            elements = ceil(w.elements / ranks) if p.zero >= from_stage else w.elements
            sums[part] += ceil(elements * size)
    return sums[0], sums[1], sums[2]


def gathered(layout: Layout, how: Training) -> int:
    """Bytes beyond a rank's own part while the layout runs: its whole weights under ZeRO-3, and
    their gradients, before they are summed and split, under ZeRO-2."""
    if how.parallel.zero < 2:
        return 0
    whole = replace(how, parallel=replace(how.parallel, zero=0))
    pairs = zip(states(layout, whole), states(layout, how), strict=True)
    return sum(a - b for a, b in list(pairs)[:2])


def activations(layout: Layout, how: Training, again: bool = False) -> int:
    """Bytes that one micro-batch leaves in a rank's blocks; `again`: where the light ones are made
    again. Blocks behind one norm read the same tensor, which is kept once."""
    total, read = 0, set()
    for _, block in layout:
        if isinstance(block, Norm):
            read.clear()
        for name, size in block_bytes(block, how, again):
            if name == "x" and size in read:
                continue
            read |= {size} if name == "x" else set()
            total += size
    return total


@lru_cache(maxsize=4096)
def block_bytes(block: Block, how: Training, again: bool) -> tuple[tuple[str, int], ...]:
    """Name and bytes of each tensor that a rank's part of the block keeps."""
    shard, run, p = how.parallel.shard(block), how.run, how.parallel
    kept = selective(shard, run) if again else tensors(shard, run, how.kernels)
    return tuple(
        (t.name, ceil(nbytes(shard, t, run, how.dtype) / (p.tp if p.sp and in_stream(t) else 1)))
        for t in kept
    )


def entering_bytes(model: Model, how: Training) -> int:
    """Bytes of the stream that enters a layer: all that full recomputation keeps of it."""
    p, run = how.parallel, how.run
    width = next(block.d_model for _, block in model.before if hasattr(block, "d_model"))
    return ceil(run.b * run.l * width * BITS[how.dtype] / 8 / (p.tp if p.sp else 1))


def loss_bytes(layout: Layout, how: Training) -> int:
    """Bytes that the loss needs for the logits of one micro-batch."""
    heads = [how.parallel.shard(block) for _, block in layout if isinstance(block, Head)]
    return sum(LOSS * how.run.b * how.run.l * head.vocab for head in heads)
