"""Prefix reuse: prompts that begin alike are read once.

A tree whose edges are blocks of `every` tokens. A node keeps the keys and values of its own block,
which all prompts below it share, and a snapshot of the states at its end. A KV cache alone could
share any number of tokens; with states the shared part ends where a snapshot was taken. So `every`
weighs memory against tokens that are read twice.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cookbook_lib.blocks.cache import Cache
from cookbook_lib.blocks.models import LanguageModel

Key = tuple[str, str]  # a use of a block, and the name of one of its tensors


@dataclass
class Node:
    """What one block of tokens adds: its slots, and the states after it."""

    above: "Node | None" = None
    block: tuple[int, ...] = ()
    slots: dict[Key, Tensor] = field(default_factory=dict)
    states: dict[Key, Tensor] = field(default_factory=dict)
    below: dict[tuple[int, ...], "Node"] = field(default_factory=dict)
    used: int = 0

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for part in (self.slots, self.states) for t in part.values())

    def path(self) -> list["Node"]:
        """From the first block to this one."""
        return [] if self.above is None else [*self.above.path(), self]


class Prefixes:
    """Blocks of prompts that were read by one model, at most `room` bytes of them."""

    def __init__(self, every: int = 64, room: int | None = None):
        if every < 1:
            raise ValueError(f"every is {every}, expected at least 1")
        self.every, self.room, self.root, self.clock = every, room, Node(), 0

    def nodes(self) -> list[Node]:
        found = [self.root]
        for node in found:
            found += node.below.values()
        return found[1:]

    @property
    def nbytes(self) -> int:
        return sum(node.nbytes for node in self.nodes())

    @torch.inference_mode()
    def read(
        self, model: LanguageModel, tokens: Int[Tensor, "1 l"], cache: Cache
    ) -> tuple[Float[Tensor, "1 vocab"], int]:
        """Fill an empty `cache` with a prompt: its last logits, and how many tokens were known.

        The prompt is read in blocks whether they are known or not, so the result is the same to
        the last bit. The last token is always read, as logits are not kept.
        """
        if len(tokens) != 1 or cache.length or not tokens.shape[1]:
            raise ValueError(
                f"tokens are {tuple(tokens.shape)} and the cache has {cache.length}, expected one "
                "prompt of at least one token and an empty cache"
            )
        self.clock += 1
        ids, node = tokens[0].tolist(), self.root
        ends = range(self.every, len(ids), self.every)
        blocks = [tuple(ids[end - self.every : end]) for end in ends]
        known = 0
        while known < len(blocks) and blocks[known] in node.below:
            node, known = node.below[blocks[known]], known + 1
            node.used = self.clock
        put_back(node, cache, self.every)
        for end, block in zip(ends[known:], blocks[known:], strict=True):
            model(tokens[:, cache.length : end], cache, logits="last")
            node.below[block] = kept(cache, self.every, node, block)
            node = node.below[block]
            node.used = self.clock
        self.make_room()
        logits = model(tokens[:, cache.length :], cache, logits="last")
        return logits[:, -1], known * self.every

    def make_room(self) -> None:
        """Drop the blocks that were not asked for the longest, from the ends of the tree."""
        while self.room is not None and self.nbytes > self.room:
            ends = [node for node in self.nodes() if not node.below]
            oldest = min(ends, key=lambda node: node.used)
            del oldest.above.below[oldest.block]


def kept(cache: Cache, every: int, above: Node, block: tuple[int, ...]) -> Node:
    """The last `every` tokens of a cache as a node: copies of their slots, and of the states."""
    node = Node(above, block)
    for key, t in cache.tensors():
        if (axis := cache.slots.get(key)) is None:
            node.states[key] = t.clone()
        else:
            node.slots[key] = t.narrow(axis, cache.length - every, every).clone()
    return node


def put_back(node: Node, cache: Cache, every: int) -> None:
    """Fill the cache with the blocks down to a node."""
    for part in node.path():
        for (use, name), t in part.slots.items():
            axis = cache.slots[use, name]
            cache.states[use][name].narrow(axis, cache.length, every).copy_(t)
        cache.length += every
    for (use, name), t in node.states.items():
        cache.states[use][name].copy_(t)
