"""Keys and values spread over ranks by token: a cache in which each rank has room for its share.

Axes: s tokens of this rank first, so that any number of them is one piece of memory; b batch,
g key heads, k head_dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cookbook_lib.decoding.tree_attention import Partial, partial


@dataclass(frozen=True, kw_only=True)
class Query:
    """New tokens, the same on all ranks. at: their positions; None if they see all keys."""

    q: Float[Tensor, "b h l k"]
    at: Int[Tensor, "#b l"] | None = None
    scale: float | None = None


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The keys and values of one rank. lengths: how many tokens each rank has.

    at: positions, int32; of a key that nobody may see, as padding, one beyond all queries'.
    """

    k: Float[Tensor, "s b g k"]
    v: Float[Tensor, "s b g k"]
    lengths: tuple[int, ...]
    at: Int[Tensor, "#b s"] | None = None

    def partial(self, query: Query) -> Partial:
        k, v = (x.permute(1, 2, 0, 3) for x in (self.k, self.v))
        return partial(query.q, k, v, query.scale, query.at, self.at)


def cut(s: int, ranks: int) -> tuple[int, ...]:
    """Lengths of contiguous shards that differ by one at most, as torch.tensor_split has them."""
    return tuple(s // ranks + (rank < s % ranks) for rank in range(ranks))


class ShardedCache:
    """A rank's part of a cache that grows: a prompt in contiguous shards, later tokens dealt round.

    A new token goes to the next rank, so that none fills up before the others; its position goes
    with it, so the mask needs no order. All ranks make the same calls, and so know all lengths.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        rank: int,
        room: int,
        like: Float[Tensor, "s b g k"],
    ):
        """prompt: tokens of each rank. room: tokens that this one can hold. like: its shape."""
        self.rank, self.lengths, self.prompt = rank, [0] * len(prompt), list(prompt)
        self.k = like.new_empty(room, *like.shape[1:])
        self.v = torch.empty_like(self.k)
        self.at = torch.empty(1, room, dtype=torch.int32, device=like.device)

    def fill(self, k: Float[Tensor, "s b g k"], v: Float[Tensor, "s b g k"]) -> None:
        """The prompt: this rank's part of it."""
        start = sum(self.prompt[: self.rank])
        self.write(k, v, torch.arange(start, start + len(k), dtype=torch.int32))
        self.lengths = list(self.prompt)

    def append(self, k: Float[Tensor, "1 b g k"], v: Float[Tensor, "1 b g k"]) -> int:
        """One new token after all others; the rank that keeps it."""
        position = sum(self.lengths)
        owner = (position - sum(self.prompt)) % len(self.lengths)
        if owner == self.rank:
            self.write(k, v, torch.tensor([position], dtype=torch.int32))
        self.lengths[owner] += 1
        return owner

    def write(self, k: Tensor, v: Tensor, at: Tensor) -> None:
        start = self.lengths[self.rank]
        if (end := start + len(k)) > len(self.k):
            raise ValueError(
                f"the shard of rank {self.rank} has room for {len(self.k)} tokens, expected {end}: "
                "allocate it for its share of the longest context"
            )
        self.k[start:end], self.v[start:end], self.at[0, start:end] = k, v, at

    @property
    def shard(self) -> Shard:
        """What this rank has now: views, no copies."""
        n = self.lengths[self.rank]
        return Shard(k=self.k[:n], v=self.v[:n], at=self.at[:, :n], lengths=tuple(self.lengths))
