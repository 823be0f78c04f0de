"""Keys, values and states in few bits: an experiment with the error, not a faster cache.

Symmetric integers with a scale of its own for each token and head (for a state: for each row of a
head's matrix). A key is rounded once, when it is written. A state is rounded at every token, and
what was lost goes on into all later ones.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cookbook_lib.blocks.cache import Cache
from cookbook_lib.calculators.runs import choose

LEVELS = {"int8": 127, "int4": 7}  # the largest integer of each side; one code stays unused
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
FORMATS = ("", *LEVELS, *HALVES)


def rounded(x: Float[Tensor, "... n"], how: str) -> Float[Tensor, "... n"]:
    """What comes back of `x` after it was stored in a format; "" leaves it as it is."""
    if not how:
        return x
    if how in HALVES:
        return x.to(HALVES[how]).to(x.dtype)
    scale = (x.abs().amax(-1, keepdim=True) / LEVELS[how]).half().to(x.dtype)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (x / scale).round().clamp(-LEVELS[how], LEVELS[how]) * scale


@dataclass(frozen=True, kw_only=True)
class Formats:
    """How the growing tensors (kv) and the states of SSMs (ssm) are stored; "" as they are.

    A convolution's last inputs stay: they are few.
    """

    kv: str = ""
    ssm: str = ""

    def __post_init__(self):
        choose("kv", self.kv, FORMATS)
        choose("ssm", self.ssm, FORMATS)

    def store(self, cache: Cache, new: int) -> None:
        """Round what the last pass of `new` tokens wrote to the cache."""
        for (use, name), t in cache.tensors():
            if (axis := cache.slots.get((use, name))) is not None:
                part = t.narrow(axis, cache.length - new, new)
                part.copy_(rounded(part, self.kv))
            elif name == "ssm":
                t.copy_(rounded(t, self.ssm))

    def nbytes(self, cache: Cache) -> int:
        """Bytes that the cache would take: numbers, and a scale of two bytes for each row."""
        total = 0
        for key, t in cache.tensors():
            how = self.kv if key in cache.slots else self.ssm if key[1] == "ssm" else ""
            bits = {"int8": 8, "int4": 4, "bf16": 16, "fp16": 16}.get(how, 8 * t.element_size())
            total += t.numel() * bits // 8
            total += 2 * t[..., 0].numel() if how in LEVELS else 0
        return total
