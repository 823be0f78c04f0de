"""Attention over keys on several ranks is full attention, whatever way they take: in exactness,
in the bytes that they send, in the memory that they hold; and a rank that dies is named."""

import pytest
import torch
import tree_jax_tasks
import tree_tasks
from hypothesis import given, settings
from hypothesis import strategies as st
from tree_tasks import cases, cut, full, made

from cookbook_lib.communication.launch import launch
from cookbook_lib.communication.member import RankError
from cookbook_lib.decoding import tree_costs
from cookbook_lib.decoding.shards import Query, ShardedCache
from cookbook_lib.decoding.tree_attention import (
    Partial,
    combine,
    energy,
    merge,
    nothing,
    packed,
    partial,
    unpacked,
)
from cookbook_lib.decoding.tree_costs import Shape, held, messages, published, sent, steps
from cookbook_lib.decoding.tree_methods import METHODS

TIGHT = 1e-13  # float64


def shards(k, v, lengths):
    """Of s b g k, as `partial` wants them: b g s k."""
    cutting = (x.permute(1, 2, 0, 3).split(list(lengths), 2) for x in (k, v))
    return list(zip(*cutting, strict=True))


def stacked(parts):
    return Partial(*map(torch.stack, zip(*parts, strict=True)))


def by_parts(q, k, v, lengths, scale=None):
    return combine(stacked([partial(q, *pair, scale) for pair in shards(k, v, lengths)]))


def error(out, due):
    return (out.double() - due).abs().max().item()


# the derivation


def test_the_gradient_of_the_energy_at_zero_is_attention():
    q, k, v = made(2, 3, 4, 4, 8, 50)
    z = torch.zeros_like(q, requires_grad=True)
    keys, values = (x.permute(1, 2, 0, 3) for x in (k, v))
    (gradient,) = torch.autograd.grad(energy(q, keys, values, z, 8**-0.5).sum(), z)
    assert error(gradient, full(q, k, v)) < 1e-14


def test_the_energy_at_zero_is_the_logsumexp_of_a_partial_result():
    q, k, v = made(2, 3, 4, 4, 8, 50)
    keys, values = (x.permute(1, 2, 0, 3) for x in (k, v))
    due = energy(q, keys, values, torch.zeros_like(q), 8**-0.5)
    assert error(partial(q, keys, values).lse, due) < 1e-14


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=3, max_size=3), st.integers(0, 99))
def test_the_merge_is_associative_and_commutative_and_nothing_is_its_neutral(lengths, seed):
    q, k, v = made(1, 2, 4, 2, 8, sum(lengths), seed=seed)
    a, b, c = (partial(q, *pair) for pair in shards(k, v, lengths))
    for left, right in [
        (merge(merge(a, b), c), merge(a, merge(b, c))),
        (merge(a, b), merge(b, a)),
        (merge(a, nothing(q)), a),
        (merge(nothing(q), a), a),
    ]:
        assert torch.equal(left.m, right.m)
        assert error(left.d, right.d) < 1e-14
        assert error(left.n, right.n) < 1e-14


@given(st.lists(st.floats(-700, 700), min_size=3, max_size=3))
def test_logsumexp_is_associative(numbers):
    a, b, c = torch.tensor(numbers, dtype=torch.float64)
    left = torch.logaddexp(torch.logaddexp(a, b), c)
    right = torch.logaddexp(a, torch.logaddexp(b, c))
    assert abs(left - right) <= 1e-14 * max(1, abs(left))


# one process, any number of parts


@pytest.mark.parametrize("p", range(1, 9))
@pytest.mark.parametrize("name", cases(1))
def test_parts_make_up_full_attention(p, name):
    case = dict(cases(p)[name])
    lengths = case.pop("lengths", None) or cut(case["s"], p)
    for key in ("causal", "before", "padding"):
        case.pop(key, None)
    q, k, v = made(**case)
    assert error(by_parts(q, k, v, lengths).output(q.dtype), full(q, k, v)) < TIGHT


@pytest.mark.parametrize("p", range(1, 9))
def test_scores_of_ten_thousand_are_as_exact(p):
    """Whole numbers, so that the scores themselves are exact; the top ones tie and differ by 1."""
    random = torch.Generator().manual_seed(p)
    q, k, v = made(1, 1, 2, 2, 4, 64)
    q = torch.full_like(q, 50.0)
    k = torch.randint(-50, 51, k.shape, generator=random).double()
    k[::7] = torch.tensor([50.0, 50, 50, 50])
    k[3::7] = torch.tensor([50.0, 50, 50, 50 - 1 / 50])  # a score of 9999
    assert (q[0, 0] @ k[:, 0, 0].T).max() == 10_000
    assert error(by_parts(q, k, v, cut(64, p), 1.0).output(q.dtype), full(q, k, v, 1.0)) < TIGHT


def test_a_logsumexp_in_fp32_loses_what_the_maximum_keeps():
    """The same shards with (output, lse), as flash kernels return them, at scores of 10,000."""
    q, k, v = (x.float() for x in made(1, 1, 1, 1, 4, 64))
    q, k = torch.full_like(q, 50.0), torch.full_like(k, 50.0)
    v[:7] += 10  # what the first shard holds counts
    due, parts = full(q, k, v, 1.0), [partial(q, *x, 1.0) for x in shards(k, v, (7, 57))]
    rounded = [Partial(x.output(torch.float32), torch.ones_like(x.d), x.lse) for x in parts]
    ours, theirs = (error(combine(stacked(x)).output(q.dtype), due) for x in (parts, rounded))
    assert ours < 1e-6 < 1e-5 < theirs


def test_one_sum_without_the_maximum_is_not_safe():
    """A bound that needs no message, |q| max |k|, is no maximum: all weights vanish below it."""
    q, k, v = made(1, 1, 1, 1, 64, 32)
    q, k = 100 * q, 100 * k
    q = q * (k[0, 0, 0] @ q[0, 0, 0]).sign()
    scores = (k[:, 0, 0] @ q[0, 0, 0]) / 8
    bound = q.norm() * k.norm(dim=-1).max() / 8
    assert (scores - bound).exp().sum() == 0  # 0 / 0
    assert error(by_parts(q, k, v, cut(32, 4)).output(q.dtype), full(q, k, v)) < TIGHT


def test_a_query_that_sees_nothing_gets_zeros_and_no_nan():
    q, k, v = made(1, 2, 4, 2, 8, 5)
    keys, values = (x.permute(1, 2, 0, 3) for x in (k, v))
    at = torch.tensor([[3, 9]]), torch.arange(5)[None] + 4
    found = partial(q, keys, values, None, *at)
    assert torch.equal(found.output(q.dtype)[:, :, 0], torch.zeros(1, 4, 8).double())
    assert found.lse[:, :, 0].eq(-torch.inf).all()
    assert error(found.output(q.dtype)[:, :, 1:], full(q, k, v)[:, :, 1:]) < TIGHT
    hidden = merge(partial(q, keys, values, None, at[0] - 9, at[1]), nothing(q))
    assert not torch.isnan(packed(hidden)).any()


def test_blocks_of_keys_change_nothing():
    q, k, v = made(2, 3, 4, 2, 8, 50)
    keys, values = (x.permute(1, 2, 0, 3) for x in (k, v))
    at = torch.arange(47, 50)[None], torch.arange(50)[None]
    for block in (1, 7, 50):
        out = partial(q, keys, values, None, *at, block=block).output(q.dtype)
        assert error(out, full(q, k, v, None, *at)) < TIGHT


def test_query_heads_that_no_group_shares_are_refused():
    q, k, v = made(1, 1, 4, 3, 8, 5)
    with pytest.raises(ValueError, match="query heads are 4, expected a multiple of the 3 key"):
        partial(q, *(x.permute(1, 2, 0, 3) for x in (k, v)))


def test_a_full_shard_says_so():
    cache = ShardedCache((1, 1), 0, 1, torch.zeros(1, 1, 1, 4))
    cache.fill(torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 1, 4))
    with pytest.raises(ValueError, match="rank 0 has room for 1 tokens, expected 2"):
        cache.append(torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 1, 4))


# the published defects, each in a few lines: ours passes where the port fails


def test_batch_two_keeps_its_shape_where_the_published_broadcast_does_not():
    """tree_decode multiplies an output (b, 1, h, k) by a denominator (b, h): right for b = 1."""
    for b in (1, 2):
        q, k, v = made(b, 1, 16, 16, 128, 20)
        due, parts = full(q, k, v), [partial(q, *x) for x in shards(k, v, (9, 11))]
        m = torch.maximum(parts[0].lse, parts[1].lse)
        n, d = 0.0, 0.0
        for part in parts:
            den = (part.lse - m).exp()[..., 0]  # b h
            n = n + part.output(q.dtype).transpose(1, 2) * den[..., None]
            d = d + den
        out = n / d[..., None]
        assert (b == 1) == (out.shape == (b, 1, 16, 128))
        if b == 1:
            assert error(out.transpose(1, 2), due) < TIGHT
        assert error(combine(stacked(parts)).output(q.dtype), due) < TIGHT


def test_keys_of_zeros_are_attended_to_unless_they_are_no_keys():
    """The ring pads the last shard with zeros: a score of 0 has the weight exp(0)."""
    q, k, v = made(1, 1, 4, 4, 8, 37)
    due, lengths = full(q, k, v), (10, 10, 10, 10)
    padded = [torch.cat([x, torch.zeros_like(x[:3])]) for x in (k, v)]
    assert error(by_parts(q, *padded, lengths).output(q.dtype), due) > 0.01
    assert error(by_parts(q, k, v, (10, 10, 10, 7)).output(q.dtype), due) < TIGHT


def test_the_scale_of_the_scores_is_that_of_the_head():
    """The JAX demo has 1 where softmax attention has 1 / sqrt(k)."""
    q, k, v = made(1, 1, 4, 4, 64, 37)
    due = torch.nn.functional.scaled_dot_product_attention(
        q, *(x.permute(1, 2, 0, 3) for x in (k, v))
    )
    assert error(by_parts(q, k, v, cut(37, 4)).output(q.dtype), due) < TIGHT
    assert error(by_parts(q, k, v, cut(37, 4), 1.0).output(q.dtype), due) > 0.1


# real processes


@pytest.fixture(scope="module", params=[2, 4])
def errors(request):
    return launch(tree_tasks.exact, request.param)


def test_every_method_is_exact_on_every_rank(errors):
    for found in errors:
        assert len(found) == len(METHODS) * len(cases(2))
        assert {name: x for name, x in found.items() if not x < TIGHT} == {}


def test_a_cache_that_grows_forgets_nothing():
    """Published: the distributed cache holds the prompt alone, so new tokens are forgotten."""
    for found in launch(tree_tasks.grown, 3):
        assert set(found) == set(METHODS) and max(found.values()) < TIGHT
    q, k, v = made(2, 9, 4, 2, 8, 20)
    last = q[:, :, -1:]
    assert error(by_parts(last, k[:11], v[:11], cut(11, 3)).output(q.dtype), full(last, k, v)) > 0.1


def test_heads_shared_with_tensor_parallelism():
    for found in launch(tree_tasks.grid, 4):
        assert set(found) == set(METHODS) and max(found.values()) < TIGHT


def test_bf16_is_no_worse_than_attention_on_one_device():
    for found in launch(tree_tasks.half, 2):
        for method, (ours, single) in found.items():
            assert ours <= single, method


JAX = [
    (4, 1, ["uneven", "empty first", "padding"]),
    (3, 1, ["uneven"]),  # no power of two
    (2, 2, ["batch and queries"]),
]


@pytest.mark.parametrize(("devices", "processes", "few"), JAX)
def test_jax_is_exact_over_devices_and_over_processes(devices, processes, few):
    arguments = {"devices": devices // processes, "only": few}
    for found in launch(tree_jax_tasks.exact, processes, arguments):
        assert len(found) == len(METHODS) * len(few)
        assert {name: x for name, x in found.items() if not x < TIGHT} == {}


# volume, memory


SIZES = [
    dict(zip("blhgks", sizes, strict=True))
    for sizes in [
        (1, 1, 4, 2, 8, 64),
        (5, 1, 4, 2, 8, 64),
        (1, 6, 4, 4, 8, 64),
        (3, 2, 4, 1, 8, 64),
    ]
]


@pytest.fixture(scope="module")
def counted():
    return launch(tree_tasks.volume, 4, {"todo": SIZES})


@pytest.mark.parametrize("case", range(len(SIZES)))
def test_gloo_gets_as_many_numbers_in_as_many_calls_as_the_formulas_say(case, counted):
    p, ranks = 4, [rank[case] for rank in counted]
    x = Shape(**SIZES[case], p=p, width=4)
    for method in METHODS:
        due = messages(method, x)
        for op in ("all_reduce", "all_gather"):
            calls = [m for m in due if m.op == op]
            share = p if op == "all_gather" else 1  # gloo is handed a rank's own part
            numbers = sum(m.nbytes * m.times for m in calls) // share // 4
            for rank in ranks:
                name = next((n for n in rank[method] if op in n), None)
                got = rank[method].get(name, [0, 0])
                assert got == [len(calls), numbers], (method, op)
        hops = [m for m in due if m.op == "permute" and m.nbytes]
        got = [rank[method].get("send", [0, 0]) for rank in ranks]
        assert max(n for _, n in got) == sum(m.nbytes * m.times * m.beside for m in hops) // 4
        assert max(n for n, _ in got) == sum(m.times * m.beside for m in hops), method
    assert sent("tree", x) > sent("tree-fused", x) - 1e-9
    assert [len(messages(m, x)) for m in ("tree", "tree-fused", "all-gather")] == [3, 2, 1]


@pytest.mark.parametrize("p", [2, 4])
def test_the_peak_of_memory_grows_with_the_context_as_the_formula_says(p):
    contexts = [2**14, 2**15, 2**16]
    for found in launch(tree_tasks.memory, p, {"lengths": contexts}):
        for method, peaks in found.items():
            due = [held(method, Shape(s=s, p=p, h=2, g=2, k=16, width=4)) for s in contexts]
            assert peaks[1] - peaks[0] == due[1] - due[0], method
            assert peaks[2] - peaks[1] == due[2] - due[1], method
            assert 0 <= peaks[0] - due[0] < 64 * 2**10, method  # scores of one block, messages


def test_the_published_gap_of_memory_is_that_of_two_shards():
    """Figure 4: 524 MB and 1040 MB at 64,000 tokens a device for d = 2048 and 4096, in bf16."""
    for d, reported in [(2048, 524e6), (4096, 1040e6)]:
        t, heads = 64_000, d // 128
        gap = 2 * (published("ring-kv", t, d, 1, heads) - published("tree", t, d, 1, heads))
        assert gap == pytest.approx(reported, rel=0.01)
        x = Shape(s=2 * t, p=2, h=heads, g=heads, k=128)
        assert held("ring-kv", x) - held("tree", x) == pytest.approx(gap, rel=1e-6)


def test_steps_of_a_tree_grow_with_the_logarithm_and_of_a_ring_with_the_ranks():
    x = [Shape(s=2**20, p=p, h=16, g=16, k=128) for p in (2, 4, 8, 16)]
    assert [steps("tree-once", y) for y in x] == [1, 2, 3, 4]
    assert [steps("tree", y, "recursive doubling") for y in x] == [3, 6, 9, 12]
    assert [steps("ring-kv", y) for y in x] == [1, 3, 7, 15]


def test_a_method_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="method is 'star', expected one of tree, tree-fused"):
        messages("star", Shape(s=8, p=2, h=1, g=1, k=1))
    assert set(tree_costs.METHODS) == set(METHODS)


@pytest.mark.parametrize("method", ["tree", "ring-kv"])
def test_a_rank_that_dies_while_decoding_is_named(method):
    with pytest.raises(RankError, match="rank 1 of 3, decoding by .*: died of SIGKILL") as caught:
        launch(tree_tasks.endless, 3, {"method": method, "victim": 1}, limit=20.0)
    assert caught.value.rank == 1


def test_what_is_packed_comes_out_again():
    part = partial(
        *[x.permute(1, 2, 0, 3) if i else x for i, x in enumerate(made(2, 3, 4, 2, 8, 9))]
    )
    for one, other in zip(unpacked(packed(part)), part, strict=True):
        assert torch.equal(one, other)
    assert Query(q=part.n).at is None
