"""The states of a model between calls: one dict of tensors for each use of a block.

Allocated once from what the specs declare; the blocks read and write it in place.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from cookbook_lib.blocks.dtypes import DTYPES, NAMES
from cookbook_lib.calculators.model import Model


@dataclass
class Cache:
    """States of `b` sequences with room for `size` tokens each.

    states: `use_name` of a block -> its tensors, as the spec's `states` names and shapes them.
    length: tokens seen, padding included. valid: which of them are real, None if all are.
    """

    states: dict[str, dict[str, Tensor]]
    size: int
    length: int = 0
    valid: Bool[Tensor, "b s"] | None = None

    @classmethod
    def of(cls, spec: Model, b: int, size: int, dtype: torch.dtype, device=None) -> "Cache":
        """An empty cache for `b` sequences of at most `size` tokens; `dtype` is the weights'."""
        if b < 1 or size < 1:
            raise ValueError(f"the cache is for {b} x {size} tokens, expected both above 0")
        states = {}
        for i, letter in enumerate(spec.pattern):
            for (name, _), (_, block) in zip(spec.letters[letter], spec.layer(i), strict=True):
                if tensors := block.states(b, size, NAMES[dtype]):
                    states[use_name(i, name)] = {
                        t.name: torch.zeros(t.shape, dtype=DTYPES[t.dtype], device=device)
                        for t in tensors
                    }
        return cls(states, size)

    @property
    def nbytes(self) -> int:
        """Bytes of all states: the spec's `state_bytes`."""
        return sum(t.nbytes for tensors in self.states.values() for t in tensors.values())

    def advance(self, l: int, mask: Bool[Tensor, "b l"] | None) -> None:
        """Note that `l` more tokens are coming, of which `mask` are real."""
        if self.length + l > self.size:
            raise ValueError(
                f"the cache has room for {self.size} tokens, expected {self.length + l}: "
                "allocate it for the longest context"
            )
        if mask is not None and self.valid is None:
            self.valid = torch.ones(len(mask), self.size, dtype=torch.bool, device=mask.device)
        if mask is not None:
            self.valid[:, self.length : self.length + l] = mask
        self.length += l


def use_name(i: int, name: str) -> str:
    """What identifies one use of a block: the layer that uses it, and what it is there.

    `name` is as the layer's layout has it: "model.layers.{first}.shared_transformer.self_attn"
    in layer 11 is "11.shared_transformer.self_attn".
    """
    return f"{i}.{role(name)}"


def role(name: str) -> str:
    """A block's name in its layer: what comes after the layer's number, less the use's."""
    return name.partition("}.")[2].removesuffix(".{use}") or name
