"""The ways to attend to keys that are spread over ranks, in JAX: one program that each rank runs.

The keys' first axis, tokens, is cut over the mesh, into equal parts as `shard_map` wants them: a
shard with fewer tokens is padded with keys whose position is beyond all queries'.
Axes: b batch, l queries, h query heads, g key heads, s keys of a rank, k head_dim.
"""

from collections.abc import Callable, Mapping
from functools import partial as bound
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from cookbook_lib.communication.jax_ranks import AXIS

PADDING = 2**30  # position of a key that no query sees, and of a query that sees all


class Part(NamedTuple):
    """As `tree_attention.Partial`: sums of exp(score - m) v and of exp(score - m)."""

    n: Array
    d: Array
    m: Array

    def output(self, dtype: jnp.dtype) -> Array:
        return (self.n / jnp.where(self.d > 0, self.d, 1)[..., None]).astype(dtype)


class Keys(NamedTuple):
    """k, v: s b g k. at: positions, 1 s or b s."""

    k: Array
    v: Array
    at: Array


def part_of(q: Array, q_at: Array, keys: Keys, scale: float) -> Part:
    acc = jnp.promote_types(q.dtype, jnp.float32)
    b, h, l, width = q.shape
    s, _, g, _ = keys.k.shape
    grouped = (q.astype(acc) * scale).reshape(b, g, h // g, l, width)
    scores = jnp.einsum("bgrlk,sbgk->bgrls", grouped, keys.k.astype(acc))
    seen = (keys.at[:, None, :] <= q_at[:, :, None])[:, None, None]
    scores = jnp.where(seen, scores, -jnp.inf)
    m = scores.max(-1, initial=-jnp.inf)
    weights = jnp.exp(scores - finite(m)[..., None])
    n = jnp.einsum("bgrls,sbgk->bgrlk", weights, keys.v.astype(acc))
    return Part(*(x.reshape(b, h, *x.shape[3:]) for x in (n, weights.sum(-1), m)))


def finite(m: Array) -> Array:
    return jnp.where(m == -jnp.inf, 0, m)


def rescaled(part: Part, m: Array) -> Part:
    weight = jnp.exp(part.m - finite(m))
    return Part(part.n * weight[..., None], part.d * weight, m)


def merge(one: Part, other: Part) -> Part:
    m = jnp.maximum(one.m, other.m)
    return Part(*map(jnp.add, rescaled(one, m)[:2], rescaled(other, m)[:2]), m)


def packed(part: Part) -> Array:
    return jnp.concatenate([part.n, part.d[..., None], part.m[..., None]], -1)


def unpacked(x: Array) -> Part:
    return Part(x[..., :-2], x[..., -2], x[..., -1])


def shared_maximum(part: Part) -> Part:
    return rescaled(part, lax.pmax(part.m, AXIS))


def tree(q: Array, q_at: Array, keys: Keys, scale: float) -> Array:
    part = shared_maximum(part_of(q, q_at, keys, scale))
    return Part(lax.psum(part.n, AXIS), lax.psum(part.d, AXIS), part.m).output(q.dtype)


def tree_fused(q: Array, q_at: Array, keys: Keys, scale: float) -> Array:
    part = shared_maximum(part_of(q, q_at, keys, scale))
    both = lax.psum(jnp.concatenate([part.n, part.d[..., None]], -1), AXIS)
    return Part(both[..., :-1], both[..., -1], part.m).output(q.dtype)


def tree_once(q: Array, q_at: Array, keys: Keys, scale: float) -> Array:
    """One all-reduce whose operator is the merge, by recursive doubling, as `tree_methods` has it.

    `psum` takes no other operator than the sum; `ppermute` in pairs takes any.
    """
    rank, ranks = lax.axis_index(AXIS), lax.axis_size(AXIS)
    part, whole = part_of(q, q_at, keys, scale), 1 << (ranks.bit_length() - 1)
    if more := [(r, r - whole) for r in range(whole, ranks)]:
        got = lax.ppermute(packed(part), AXIS, more)  # zeros for a rank that nobody sends to
        part = chosen(rank < ranks - whole, merge(part, unpacked(got)), part)
    for bit in [1 << i for i in range(whole.bit_length() - 1)]:
        pairs = [(r, r ^ bit) for r in range(whole)]
        other = unpacked(lax.ppermute(packed(part), AXIS, pairs))
        first = rank & bit == 0
        part = merge(chosen(first, part, other), chosen(first, other, part))  # same on both
    if more:
        back = [(to, r) for r, to in more]
        part = chosen(rank < whole, part, unpacked(lax.ppermute(packed(part), AXIS, back)))
    return part.output(q.dtype)


def chosen(yes: Array, one: Part, other: Part) -> Part:
    return Part(*(jnp.where(yes, a, b) for a, b in zip(one, other, strict=True)))


def all_gather(q: Array, q_at: Array, keys: Keys, scale: float) -> Array:
    parts = unpacked(lax.all_gather(packed(part_of(q, q_at, keys, scale)), AXIS))
    found = rescaled(parts, parts.m.max(0))
    return Part(found.n.sum(0), found.d.sum(0), found.m).output(q.dtype)


def next_rank(x: Array) -> Array:
    ranks = lax.axis_size(AXIS)
    return lax.ppermute(x, AXIS, [(r, (r + 1) % ranks) for r in range(ranks)])


def ring_kv(q: Array, q_at: Array, keys: Keys, scale: float) -> Array:
    found = part_of(q, q_at, keys, scale)
    for _ in range(lax.axis_size(AXIS) - 1):
        keys = Keys(*map(next_rank, keys))
        found = merge(found, part_of(q, q_at, keys, scale))
    return found.output(q.dtype)


def ring_q(q: Array, q_at: Array, keys: Keys, scale: float) -> Array:
    """The queries are cut over the ranks, filled up to equal parts: a lone one travels with p - 1
    that are empty."""
    ranks, l, width = lax.axis_size(AXIS), q.shape[2], q.shape[-1]
    acc, size = jnp.promote_types(q.dtype, jnp.float32), -(-l // ranks)
    start = lax.axis_index(AXIS) * size
    more = ranks * size - l
    all_q = jnp.pad(q, ((0, 0), (0, 0), (0, more), (0, 0)))
    all_at = jnp.pad(q_at, ((0, 0), (0, more)))
    mine = lax.dynamic_slice_in_dim(all_q, start, size, 2)
    at = lax.dynamic_slice_in_dim(all_at, start, size, 1)
    found = part_of(mine, at, keys, scale)
    for _ in range(ranks - 1):
        message = next_rank(jnp.concatenate([mine.astype(acc), packed(found)], -1))
        mine, found = message[..., :width].astype(q.dtype), unpacked(message[..., width:])
        at = next_rank(at)
        found = merge(found, part_of(mine, at, keys, scale))
    every = lax.all_gather(found.output(q.dtype), AXIS, axis=2)  # b h p l k; rank r has r + 1's
    every = jnp.roll(every, 1, axis=2)
    return every.reshape(*q.shape[:2], ranks * size, width)[:, :, :l]


METHODS: Mapping[str, Callable[[Array, Array, Keys, float], Array]] = {
    "tree": tree,
    "tree-fused": tree_fused,
    "tree-once": tree_once,
    "ring-kv": ring_kv,
    "ring-q": ring_q,
    "all-gather": all_gather,
}


def program(method: str, mesh: Mesh, scale: float) -> Callable[[Array, Array, Keys], Array]:
    """(q, positions of q, keys) -> output, all global arrays: keys are cut over the mesh."""
    mapped = jax.shard_map(
        bound(METHODS[method], scale=scale),
        mesh=mesh,
        in_specs=(P(), P(), Keys(P(AXIS), P(AXIS), P(None, AXIS))),
        out_specs=P(),
        check_vma=False,
    )
    return jax.jit(mapped)
