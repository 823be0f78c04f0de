"""What the ranks of tests/test_tree_attention.py run: each compares with full softmax."""

import os
import signal
from collections import Counter

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cookbook_lib.communication.member import Member
from cookbook_lib.communication.seen import seen
from cookbook_lib.communication.torch_ranks import joined
from cookbook_lib.communication.wire_count import SENT
from cookbook_lib.decoding.shards import Query, Shard, ShardedCache, cut
from cookbook_lib.decoding.tree_costs import Shape
from cookbook_lib.decoding.tree_methods import METHODS


def full(q, k, v, scale=None, q_at=None, k_at=None):
    """Softmax over all keys in float64, written with other operations: s b g k as the shards."""
    q, k, v = q.double(), k.double(), v.double()
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[2], 2) for x in (k, v))
    scores = torch.einsum("bhlk,sbhk->bhls", q, k) * (
        q.shape[-1] ** -0.5 if scale is None else scale
    )
    if k_at is not None:
        hidden = k_at[:, None, :] > q_at[:, :, None]
        scores = scores.masked_fill(hidden[:, None], -torch.inf)
    return torch.einsum("bhls,sbhk->bhlk", scores.softmax(-1), v)


def made(b, l, h, g, k, s, dtype=torch.float64, seed=0):
    random = torch.Generator().manual_seed(seed)
    q = torch.randn(b, h, l, k, generator=random, dtype=torch.float64)
    keys, values = (torch.randn(s, b, g, k, generator=random, dtype=torch.float64) for _ in "kv")
    return [x.to(dtype) for x in (q, keys, values)]


def of_rank(k, v, lengths, rank, at=None) -> Shard:
    start = sum(lengths[:rank])
    here = slice(start, start + lengths[rank])
    at = None if at is None else at[:, here].contiguous()
    return Shard(k=k[here].clone(), v=v[here].clone(), lengths=tuple(lengths), at=at)


def cases(p: int) -> dict[str, dict]:
    """Name -> sizes; lengths of the shards; positions, where there is a mask."""
    plain = dict(b=1, l=1, h=4, g=4, k=8, s=37)
    uneven = [3 * r + 1 for r in range(p)]
    return {
        "one token": plain,
        "grouped heads": plain | dict(h=8, g=2),
        "batch of three": plain | dict(b=3, h=4, g=2),
        "several queries": plain | dict(l=5, g=1, causal=True),
        "batch and queries": plain | dict(b=2, l=3, g=2, causal=True),
        "uneven": plain | dict(s=sum(uneven), lengths=uneven),
        "an empty shard": plain | dict(s=37, lengths=[37, *[0] * (p - 1)]),
        "empty first": plain | dict(s=37, lengths=[*[0] * (p - 1), 37], b=2, causal=True),
        "hidden shards": plain | dict(s=16 * p, l=2, b=2, causal=True, before=14 * p),
        "padding": plain | dict(b=2, s=24, causal=True, padding=13),
    }


def exact(member: Member) -> dict[str, float]:
    """The largest error of each method in each case."""
    p, found = member.place.size, {}
    with joined(member), member.doing("all cases"):
        for name, case in cases(p).items():
            case = dict(case)
            lengths = case.pop("lengths", None) or cut(case["s"], p)
            causal, before = case.pop("causal", False), case.pop("before", 0)
            padding = case.pop("padding", 0)
            q, k, v = made(**case)
            q_at = k_at = None
            if causal:
                first = case["s"] - case["l"] - before  # hidden are keys after the queries
                q_at = torch.arange(first, first + case["l"], dtype=torch.int32)[None]
                k_at = torch.arange(case["s"], dtype=torch.int32)[None]
            if padding:  # the second sequence is shorter
                k_at = k_at.repeat(case["b"], 1)
                k_at[1, -padding:] = 2**30
            due = full(q, k, v, None, q_at, k_at)
            shard = of_rank(k, v, lengths, member.place.rank, k_at)
            for method, attend in METHODS.items():
                out = attend(Query(q=q, at=q_at), shard)
                found[f"{method}, {name}"] = (out - due).abs().max().item()
    return found


def grown(member: Member, tokens: int = 9) -> dict[str, float]:
    """A cache that grows token by token: every token sees all before it and itself."""
    p, r, found = member.place.size, member.place.rank, {}
    q, k, v = made(2, tokens, 4, 2, 8, 11 + tokens)
    prompt = cut(11, p)
    with joined(member), member.doing("decoding"):
        for method, attend in METHODS.items():
            start = sum(prompt[:r])
            cache = ShardedCache(prompt, r, 11 + tokens, k)
            cache.fill(k[start : start + prompt[r]], v[start : start + prompt[r]])
            worst = 0.0
            for i in range(tokens):
                end = 12 + i
                cache.append(k[end - 1 : end], v[end - 1 : end])
                one = q[:, :, i : i + 1]
                at = torch.tensor([[end - 1]], dtype=torch.int32)
                out = attend(Query(q=one, at=at), cache.shard)
                worst = max(worst, (out - full(one, k[:end], v[:end])).abs().max().item())
            found[method] = worst
            assert max(cache.lengths) - min(cache.lengths) <= 2
    return found


def grid(member: Member) -> dict[str, float]:
    """Four ranks: two share the heads, two the tokens."""
    r, found = member.place.rank, {}
    q, k, v = made(2, 1, 8, 4, 8, 30)
    with joined(member), member.doing("a grid"):
        groups = [dist.new_group(pair) for pair in ([0, 1], [2, 3])]
        heads, rank = divmod(r, 2)
        g, h = slice(2 * heads, 2 * heads + 2), slice(4 * heads, 4 * heads + 4)
        shard = of_rank(k[:, :, g], v[:, :, g], (15, 15), rank)
        for method, attend in METHODS.items():
            out = attend(Query(q=q[:, h]), shard, groups[heads])
            found[method] = (out - full(q, k, v)[:, h]).abs().max().item()
    return found


def half(member: Member) -> dict[str, list[float]]:
    """bf16: the error of each method, and of attention on one device, against float64."""
    q, k, v = made(1, 1, 8, 2, 64, 4096, torch.bfloat16)
    due, found = full(q, k, v), {}
    whole = [x.permute(1, 2, 0, 3).contiguous() for x in (k, v)]
    single = torch.nn.functional.scaled_dot_product_attention(q, *whole, enable_gqa=True)
    with joined(member), member.doing("bf16"):
        shard = of_rank(k, v, cut(4096, member.place.size), member.place.rank)
        for method, attend in METHODS.items():
            out = attend(Query(q=q), shard)
            assert out.dtype == torch.bfloat16
            found[method] = [(x.double() - due).pow(2).mean().sqrt().item() for x in (out, single)]
    return found


def volume(member: Member, todo: list[dict[str, int]]) -> list[dict[str, dict]]:
    """What each method hands to gloo: operation -> calls, numbers; torch's profiler counts."""
    with joined(member), member.doing("counting"):
        return [count(member, sizes) for sizes in todo]


def count(member: Member, sizes: dict[str, int]) -> dict[str, dict]:
    q, k, v = made(**sizes, dtype=torch.float32)
    found = {}
    shard = of_rank(k, v, cut(sizes["s"], member.place.size), member.place.rank)
    for method, attend in METHODS.items():
        attend(Query(q=q), shard)
        numbers, times = Counter(), Counter()
        for event in seen(lambda attend=attend: attend(Query(q=q), shard)):
            numbers[event.kind] += event.elements
            times[event.kind] += 1
        found[method] = {name: [times[name], numbers[name]] for name in times}
    return found


class Live(TorchDispatchMode):
    """Bytes of the tensors that exist at once, at most: of those made while this is on."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.seen = set()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        import weakref

        out = op(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor):
                storage = x.untyped_storage()
                key = storage._cdata
                if key not in self.seen and storage.nbytes():
                    self.seen.add(key)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self.gone, key, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def gone(self, key, nbytes):
        self.seen.discard(key)
        self.now -= nbytes


def memory(member: Member, lengths: list[int]) -> dict[str, list[int]]:
    """The peak of each method for each context, less what the rank held before."""
    found = {}
    with joined(member), member.doing("memory"):
        for method, attend in METHODS.items():
            found[method] = []
            for s in lengths:
                q, k, v = made(1, 1, 2, 2, 16, s, torch.float32)
                shard = of_rank(k, v, cut(s, member.place.size), member.place.rank)
                with Live() as live:
                    attend(Query(q=q), shard)
                found[method].append(live.peak)
    return found


def endless(member: Member, method: str, victim: int) -> None:
    """Decoding without end; the victim is killed in the middle of it."""
    q, k, v = made(1, 1, 4, 2, 8, 64)
    with joined(member):
        shard = of_rank(k, v, cut(64, member.place.size), member.place.rank)
        with member.doing("a first token"):
            METHODS[method](Query(q=q), shard)
        with member.doing(f"decoding by {method}"):
            for i in range(10**9):
                if member.place.rank == victim and i == 20:
                    os.kill(os.getpid(), signal.SIGKILL)
                METHODS[method](Query(q=q), shard)


def on_the_wire(member: Member, sizes: dict[str, int], calls: int = 3) -> dict[str, float]:
    """Bytes that this rank's interface sends for one call of each method, without its barriers."""
    x, place = Shape(**sizes), member.place
    q, k, v = made(x.b, x.l, x.h, x.g, x.k, x.s, torch.float32)
    found = {}
    with joined(member), member.doing("counting"):
        shard = of_rank(k, v, cut(x.s, x.p), place.rank)

        def sent(attend, calls=calls) -> int:
            dist.barrier()
            before = int(SENT.read_text())
            for _ in range(calls):
                attend()
                dist.barrier()
            return int(SENT.read_text()) - before

        for method, attend in METHODS.items():
            sent(lambda attend=attend: attend(Query(q=q), shard), 1)  # makes the connections
            barriers = sent(lambda: None)
            all_in = sent(lambda attend=attend: attend(Query(q=q), shard))
            found[method] = (all_in - barriers) / calls
    return found
