"""A model's totals, one sum for each kind of layer: what `Model` says, a hundred times as fast.

`Model` lists the rows of every layer. Here each distinct block is counted once and multiplied by
its uses, so that a planner can look at thousands of models.
"""

from functools import lru_cache
from typing import NamedTuple

from cookbook_lib.calculators.chips import Chip
from cookbook_lib.calculators.costs import Block, Run
from cookbook_lib.calculators.hardware import roofline
from cookbook_lib.calculators.model import Model


class Totals(NamedTuple):
    """Of a model, or of one block.

    params_active: that one token uses, each stored one once. flops: of the forward pass of `train`.
    cache_bytes: what the sequences of `serve` keep. seconds: the fused bound of `serve`.
    """

    params: int
    params_active: int
    flops: int
    cache_bytes: int
    seconds: float


@lru_cache(maxsize=65536)
def of_block(block: Block, train: Run, serve: Run, chip: Chip, dtype: str) -> Totals:
    return Totals(
        params=block.params(),
        params_active=block.params_active(),
        flops=sum(row.flops for row in block.rows(train)),
        cache_bytes=block.state_bytes(b=serve.b, s=serve.s, dtype=dtype),
        seconds=roofline(block, chip, serve, dtype).fused,
    )


def totals(model: Model, train: Run, serve: Run, chip: Chip, dtype: str = "bf16") -> Totals:
    """What training on `train` and one pass of `serve` cost, as `Model` and `roofline` count."""
    stored: dict[str, tuple[int, int]] = {}  # parameters of blocks with a name of their own
    params = active = flops = cache = 0
    seconds = 0.0
    uses = {letter: model.pattern.count(letter) for letter, _ in model.layers}
    layers = [(name, block, uses[k], k) for k, layout in model.layers for name, block in layout]
    around = [(name, block, 1, "") for name, block in (*model.before, *model.after)]
    for name, block, n, letter in layers + around:
        if not n:
            continue
        part = of_block(block, train, serve, chip, dtype)
        flops, cache = flops + n * part.flops, cache + n * part.cache_bytes
        seconds += n * part.seconds
        if "{i}" in name or "{use}" in name:
            params, active = params + n * part.params, active + n * part.params_active
        else:  # stored once: a shared block, or a head that is the embedding
            stored[name.replace("{first}", letter)] = part.params, part.params_active
    params += sum(n for n, _ in stored.values())
    active += sum(n for _, n in stored.values())
    return Totals(params, active, flops, cache, seconds)
