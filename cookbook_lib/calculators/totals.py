"""A model's totals, one sum for each kind of layer: what `Model` says, a hundred times as fast.

`Model` lists the rows of every layer. Here each distinct block is counted once and multiplied by
its uses, so that a planner can look at thousands of models.
"""

from functools import lru_cache
from typing import NamedTuple

from cookbook_lib.calculators.chips import Chip
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.hardware import roofline
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.storage import Storage


class Totals(NamedTuple):
    """Of a model, or of one block.

    params_active: that one token uses, each stored one once. weight_bytes: of all parameters.
    flops: of the forward pass of `train`. cache_bytes: what the sequences of `serve` keep.
    seconds: the fused bound of `serve`.
    """

    params: int
    params_active: int
    weight_bytes: float
    flops: int
    cache_bytes: float
    seconds: float


@lru_cache(maxsize=65536)
def of_block(block: Block, train: Run, serve: Run, chip: Chip, store: Storage) -> Totals:
    return Totals(
        params=block.params(),
        params_active=block.params_active(),
        weight_bytes=store.weights_nbytes(block),
        flops=sum(row.flops for row in block.rows(train)),
        cache_bytes=store.states_nbytes(block, serve.b, serve.s),
        seconds=roofline(block, chip, serve, store).fused,
    )


def totals(model: Model, train: Run, serve: Run, chip: Chip, store: Storage) -> Totals:
    """What training on `train` and one pass of `serve` cost, as `Model` and `roofline` count."""
    stored: dict[str, Totals] = {}  # blocks with one name for all their uses
    sums = [0, 0, 0.0, 0, 0.0, 0.0]
    uses = {letter: model.pattern.count(letter) for letter, _ in model.layers}
    layers = [(name, block, uses[k], k) for k, layout in model.layers for name, block in layout]
    around = [(name, block, 1, "") for name, block in (*model.before, *model.after)]
    for name, block, n, letter in layers + around:
        if not n:
            continue
        part = of_block(block, train, serve, chip, store)
        own = "{i}" in name or "{use}" in name
        if not own:  # a shared block, or a head that is the embedding
            stored[name.replace("{first}", letter)] = part
        for i, value in enumerate(part):
            sums[i] += n * value if own or i >= 3 else 0
    for part in stored.values():
        for i in range(3):
            sums[i] += part[i]
    return Totals(*sums)
