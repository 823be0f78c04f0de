"""The states of a model between calls: one dict of tensors for each use of a block.

Allocated once from what the specs declare; the blocks read and write it in place. There are two
kinds. A tensor that *grows* has a slot for each token (keys, values, latents): what was written
stays. Any other is *replaced* by every token (a convolution's, an SSM's, the ring of a window): to
come back to an earlier token takes a copy from that time, a snapshot. Axes: b sequences, s slots.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from cookbook_lib.blocks.dtypes import DTYPES, NAMES
from cookbook_lib.calculators.model import Model

STRIDE = 256  # ragged rows look at their slots in steps of so many: few shapes, so few graphs


@dataclass(frozen=True)
class Snapshot:
    """What `restore` needs: the tokens seen, and copies of the tensors that are replaced."""

    length: int
    replaced: dict[tuple[str, str], Tensor]

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self.replaced.values())


@dataclass
class Cache:
    """States of `b` sequences with room for `size` tokens each.

    states: `use_name` of a block -> its tensors, as the spec's `states` names and shapes them.
    slots: (use, tensor) -> the axis of its slots, of tensors that grow.
    length: tokens seen, padding included. valid: which of them are real, None if all are.
    lengths: tokens of each row where rows differ; then `length` is the longest's.
    marks: the moments that it can go back to, oldest first (see `decoding/snapshots.py`).
    """

    states: dict[str, dict[str, Tensor]]
    size: int
    slots: dict[tuple[str, str], int] = field(default_factory=dict)
    length: int = 0
    valid: Bool[Tensor, "b s"] | None = None
    lengths: Int[Tensor, " b"] | None = None
    marks: list[Snapshot] = field(default_factory=list)

    @classmethod
    def of(cls, spec: Model, b: int, size: int, dtype: torch.dtype, device=None) -> "Cache":
        """An empty cache for `b` sequences of at most `size` tokens; `dtype` is the weights'."""
        if b < 1 or size < 1:
            raise ValueError(f"the cache is for {b} x {size} tokens, expected both above 0")
        states, slots = {}, {}
        for i, letter in enumerate(spec.pattern):
            for (name, _), (_, block) in zip(spec.letters[letter], spec.layer(i), strict=True):
                use, declared = use_name(i, name), block.states(b, size, NAMES[dtype])
                longer = block.states(b, size + 1, NAMES[dtype])
                for t, one_more in zip(declared, longer, strict=True):
                    tensor = torch.zeros(t.shape, dtype=DTYPES[t.dtype], device=device)
                    states.setdefault(use, {})[t.name] = tensor
                    for axis, (n, m) in enumerate(zip(t.shape, one_more.shape, strict=True)):
                        if n != m:
                            slots[use, t.name] = axis
        return cls(states, size, slots)

    @property
    def nbytes(self) -> int:
        """Bytes of all states: the spec's `state_bytes`."""
        return sum(t.nbytes for _, t in self.tensors())

    def tensors(self) -> Iterator[tuple[tuple[str, str], Tensor]]:
        """All of them, under (use, name)."""
        for use, tensors in self.states.items():
            for name, tensor in tensors.items():
                yield (use, name), tensor

    def of_use(self, use: str) -> dict[str, Tensor]:
        """What a block gets: its tensors; of ragged rows only slots that some row may have used."""
        state = self.states[use]
        if self.lengths is None:
            return state
        reach = min(self.size, -(-self.length // STRIDE) * STRIDE)
        return {
            name: t.narrow(self.slots[use, name], 0, reach) if (use, name) in self.slots else t
            for name, t in state.items()
        }

    def start(self) -> int | Int[Tensor, " b"]:
        """Where the next token belongs, before `advance`."""
        return self.length if self.lengths is None else self.lengths.clone()

    def advance(self, l: int, mask: Bool[Tensor, "b l"] | None) -> None:
        """Note that `l` more tokens are coming, of which `mask` are real."""
        if self.length + l > self.size:
            raise ValueError(
                f"the cache has room for {self.size} tokens, expected {self.length + l}: "
                "allocate it for the longest context"
            )
        if self.lengths is not None:
            if mask is not None:
                raise ValueError("mask is given, expected None: rows that differ have no padding")
            self.lengths += l
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
