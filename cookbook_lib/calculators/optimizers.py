"""Bytes that an optimizer keeps for each weight, beside the weight and its gradient."""

from collections.abc import Callable
from dataclasses import dataclass

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.runs import BITS, Run, choose


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A parameter of a block, as one rank holds it.

    expert: one of several that tokens choose from. matrix: a linear map inside the model, which is
    what Muon is for; embedding, head, convolutions and vectors are not.
    """

    name: str
    elements: int
    expert: bool
    matrix: bool


def weights_of(block: Block) -> list[Weight]:
    """The parameters of a block, by their names in it."""
    run = Run()
    pairs = zip(block.ops(run), block.rows(run), strict=True)
    return [
        Weight(
            name=row.op,
            elements=row.params,
            expert=op.gather == "n_experts",
            matrix=row.kind == "matmul" and row.component != "head",
        )
        for op, row in pairs
        if row.params
    ]


def adamw(weight: Weight, number: float) -> float:
    """Two running means: arXiv:1711.05101, algorithm 2."""
    return 2 * number


def adam8bit(weight: Weight, number: float) -> float:
    """The same in 8 bits, with a float32 scale for each block of 256 (bitsandbytes 0.45,
    blockwise AdamW8bit; arXiv:2110.02861 has blocks of 2048). Small tensors, which it leaves in
    32 bits, count as the others."""
    return 2 * (1 + 4 / 256)


def muon(weight: Weight, number: float) -> float:
    """One momentum for each matrix (arXiv:2502.16982, section 2.1), AdamW for the rest."""
    return number if weight.matrix else adamw(weight, number)


def sgd(weight: Weight, number: float) -> float:
    """One momentum."""
    return number


OPTIMIZERS: dict[str, Callable[[Weight, float], float]] = {
    "adamw": adamw,
    "adam8bit": adam8bit,
    "muon": muon,
    "sgd": sgd,
}


def state_bytes(weight: Weight, optimizer: str, dtype: str, master: bool) -> float:
    """Bytes of optimizer states for each element, the float32 master copy among them.

    States are float32 beside a master copy, in the weights' dtype otherwise, as PyTorch has them.
    """
    choose("optimizer", optimizer, OPTIMIZERS)
    copy = 4 if master and BITS[dtype] < 32 else 0
    return OPTIMIZERS[optimizer](weight, 4.0 if copy else BITS[dtype] / 8) + copy
