"""Ways to attend to keys that are spread over ranks, in torch.distributed: all are exact.

Every rank has the queries and its shard, and gets the whole output. `group` holds the ranks that
share the tokens; heads shared with tensor parallelism are other groups.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import accumulate

import torch
import torch.distributed as dist
from torch import Tensor

from cookbook_lib.decoding.shards import Query, Shard, cut
from cookbook_lib.decoding.tree_attention import (
    Partial,
    combine,
    merge,
    nothing,
    packed,
    rescaled,
    unpacked,
)

Group = dist.ProcessGroup | None


def tree(query: Query, shard: Shard, group: Group = None) -> Tensor:
    """Three all-reduces: of the maximum, the numerator, the denominator. As published."""
    part = shared_maximum(shard.partial(query), group)
    n, d = part.n, part.d
    dist.all_reduce(n, group=group)
    dist.all_reduce(d, group=group)
    return Partial(n, d, part.m).output(query.q.dtype)


def tree_fused(query: Query, shard: Shard, group: Group = None) -> Tensor:
    """Two all-reduces: of the maximum, then numerator and denominator in one message."""
    part = shared_maximum(shard.partial(query), group)
    message = torch.cat([part.n, part.d[..., None]], -1)
    dist.all_reduce(message, group=group)
    return Partial(message[..., :-1], message[..., -1], part.m).output(query.q.dtype)


def shared_maximum(part: Partial, group: Group) -> Partial:
    """The part with the largest score of all ranks as its m."""
    m = part.m.clone()
    dist.all_reduce(m, dist.ReduceOp.MAX, group=group)
    return rescaled(part, m)


def tree_once(query: Query, shard: Shard, group: Group = None) -> Tensor:
    """One all-reduce whose operator is the merge itself, by recursive doubling.

    No library has that operator, so partial results are exchanged in pairs, lg p times. Ranks
    beyond a power of two hand theirs to a partner first and get the result at the end.
    """
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    part, whole = shard.partial(query), 1 << (ranks.bit_length() - 1)
    mine = packed(part)
    if rank >= whole:
        swap(group, send=(mine, rank - whole))
        swap(group, get=(mine, rank - whole))
        return unpacked(mine).output(query.q.dtype)
    other = torch.empty_like(mine)
    if rank + whole < ranks:
        swap(group, get=(other, rank + whole))
        part = merge(part, unpacked(other))
    for bit in range(whole.bit_length() - 1):
        mine, peer = packed(part), rank ^ (1 << bit)
        swap(group, send=(mine, peer), get=(other, peer))
        low, high = sorted([(rank, part), (peer, unpacked(other))], key=lambda pair: pair[0])
        part = merge(low[1], high[1])  # in the same order on both, so that all get the same bits
    if rank + whole < ranks:
        swap(group, send=(packed(part), rank + whole))
    return part.output(query.q.dtype)


def all_gather(query: Query, shard: Shard, group: Group = None) -> Tensor:
    """One message: every rank gets all partial results, and merges them itself."""
    mine = packed(shard.partial(query))
    every = mine.new_empty(dist.get_world_size(group), *mine.shape)
    dist.all_gather_into_tensor(every.flatten(0, 1), mine, group=group)
    return combine(unpacked(every)).output(query.q.dtype)


def ring_kv(query: Query, shard: Shard, group: Group = None) -> Tensor:
    """Keys and values go round, the next ones while these are used: the paper's baseline."""
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    found = nothing(query.q)
    for step in range(ranks):
        coming, works = None, []
        if step < ranks - 1:
            coming = empty(shard, shard.lengths[(rank - step - 1) % ranks])
            works = pass_on(tensors(shard), tensors(coming), group)
        found = merge(found, shard.partial(query))
        finish(works)
        shard = coming or shard
    return found.output(query.q.dtype)


def ring_q(query: Query, shard: Shard, group: Group = None) -> Tensor:
    """Queries and what they have found go round; keys and values stay.

    Sequences are dealt to the ranks, or the tokens of a single one. After p - 1 hops each part has
    seen all keys, and all ranks get all outputs. One token of one sequence goes from rank to rank.
    """
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    axis = 0 if query.q.shape[0] > 1 else 2
    lengths = cut(query.q.shape[axis], ranks)
    ends = list(accumulate(lengths))

    def of(part: int) -> tuple[Query, Shard]:
        here = slice(ends[part] - lengths[part], ends[part])
        return chosen(query, shard, axis, here)

    mine, keys = of(rank)
    found = nothing(mine.q)
    for step in range(ranks):
        found = merge(found, keys.partial(mine)) if mine.q.numel() else found
        if step < ranks - 1:
            message = torch.cat([mine.q.to(found.n.dtype), packed(found)], -1)
            following, keys = of((rank - step - 1) % ranks)
            got = message.new_empty(*following.q.shape[:-1], message.shape[-1])
            finish(pass_on([message], [got], group))
            width = following.q.shape[-1]
            mine = replace(following, q=got[..., :width].to(query.q.dtype))
            found = unpacked(got[..., width:])
    return joined(found.output(query.q.dtype), axis, lengths, rank, group)


def joined(out: Tensor, axis: int, lengths: tuple[int, ...], rank: int, group: Group) -> Tensor:
    """All parts of the output; rank r has the one of rank r + 1."""
    ranks, rows = len(lengths), out.movedim(axis, 0)
    mine = rows.new_zeros(max(lengths), *rows.shape[1:])
    mine[: len(rows)] = rows
    every = mine.new_empty(ranks, *mine.shape)
    dist.all_gather_into_tensor(every.flatten(0, 1), mine, group=group)
    parts = [every[(part - 1) % ranks, :length] for part, length in enumerate(lengths)]
    return torch.cat(parts).movedim(0, axis)


def chosen(query: Query, shard: Shard, axis: int, here: slice) -> tuple[Query, Shard]:
    """Some of the sequences with their keys, or some of the tokens with all keys."""
    at, rows = query.at, here
    if axis == 2:
        at = None if at is None else at[:, here]
        return replace(query, q=query.q[:, :, here], at=at), shard
    if at is not None and len(at) > 1:
        at = at[rows]
    keys = replace(shard, k=shard.k[:, rows], v=shard.v[:, rows])
    if shard.at is not None and len(shard.at) > 1:
        keys = replace(keys, at=shard.at[rows])
    return replace(query, q=query.q[rows], at=at), keys


def tensors(shard: Shard) -> list[Tensor]:
    return [shard.k, shard.v] + ([] if shard.at is None else [shard.at.contiguous()])


def empty(shard: Shard, length: int) -> Shard:
    k, v = (x.new_empty(length, *x.shape[1:]) for x in (shard.k, shard.v))
    at = None if shard.at is None else shard.at.new_empty(len(shard.at), length)
    return replace(shard, k=k, v=v, at=at)


def pass_on(outgoing: list[Tensor], incoming: list[Tensor], group: Group) -> list[dist.Work]:
    """Start to send to the next rank and to get from the one before; nothing goes for nothing."""
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    after, before = (rank + 1) % ranks, (rank - 1) % ranks
    works = [dist.irecv(x, group=group, group_src=before) for x in incoming if x.numel()]
    return works + [dist.isend(x, group=group, group_dst=after) for x in outgoing if x.numel()]


def swap(
    group: Group, send: tuple[Tensor, int] | None = None, get: tuple[Tensor, int] | None = None
) -> None:
    works = [dist.irecv(get[0], group=group, group_src=get[1])] if get else []
    works += [dist.isend(send[0], group=group, group_dst=send[1])] if send else []
    finish(works)


def finish(works: list[dist.Work]) -> None:
    """Wait for all, and let go of them: each holds the tensor that it has sent."""
    while works:
        works.pop().wait()


METHODS: Mapping[str, Callable[..., Tensor]] = {
    "tree": tree,
    "tree-fused": tree_fused,
    "tree-once": tree_once,
    "ring-kv": ring_kv,
    "ring-q": ring_q,
    "all-gather": all_gather,
}
