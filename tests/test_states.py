"""One cache serves every hybrid: what is read in pieces, forked, taken back, shared or put into a
row of another batch gives the logits of the whole sequence read at once, and takes the bytes that
the calculators say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CHECKPOINTS, one_thread, stir  # noqa: F401 (a fixture)

from cookbook_lib.blocks.cache import Cache
from cookbook_lib.blocks.models import LanguageModel, Options, Residual, build
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.calculators import presets, specs
from cookbook_lib.calculators.chips import chip
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.serving import Serving
from cookbook_lib.calculators.storage import Storage
from cookbook_lib.decoding.prefixes import Prefixes
from cookbook_lib.decoding.rows import clear, fork, longest, put, ragged
from cookbook_lib.decoding.snapshots import restore, rewind, snapshot
from cookbook_lib.decoding.steps import Steps

D, VOCAB, LENGTH = 16, 31, 40
heads = {"d_model": D, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8}
BLOCKS = {
    "a": specs.Attention(**heads),
    "w": specs.Attention(**heads, window=7),
    "c": specs.Attention(**heads, d_conv=3),
    "l": specs.MLA(
        d_model=D,
        n_heads=4,
        kv_lora_rank=12,
        q_lora_rank=10,
        qk_nope_head_dim=6,
        qk_rope_head_dim=4,
        v_head_dim=7,
    ),
    "1": specs.Mamba1(d_model=D, d_state=4),
    "m": specs.Mamba2(d_model=D, d_state=8, headdim=8, ngroups=2, chunk_size=8),
    "3": specs.Mamba3(d_model=D, d_state=8, headdim=8, chunk_size=8),
    "d": specs.GatedDeltaNet(d_model=D, n_k_heads=2, n_v_heads=4, head_k_dim=8, head_v_dim=8),
    "R": specs.RWKV7(d_model=D, headdim=8, first=True),
    "r": specs.RWKV7(d_model=D, headdim=8),
    "k": specs.RWKV7ChannelMix(d_model=D, d_ff=24),
    "-": specs.MLP(d_model=D, d_ff=24),
}
HYBRIDS = ("aw", "ma-", "1wa", "3ca", "dawd", "ml-", "Rkark", "Rwm1r3dlka")
GROWS_ONLY = "a-a"
BLOCKS = {k: b.but(ssm_dtype="") if hasattr(b, "ssm_dtype") else b for k, b in BLOCKS.items()}
STEADY = settings(max_examples=10, deadline=None, derandomize=True, database=None)


def hybrid(pattern: str) -> LanguageModel:
    """A model in float64 with a layer for each letter, whose every part has a say."""
    norm = specs.Norm(d_model=D)
    spec = Model(
        name=pattern,
        family="test",
        pattern=pattern,
        before=(("model.embed_tokens", specs.Embedding(vocab=VOCAB, d_model=D)),),
        layers=tuple(
            (k, (("model.layers.{i}.norm", norm), ("model.layers.{i}.mixer", block)))
            for k, block in BLOCKS.items()
            if k in pattern
        ),
        after=(("model.norm", norm), ("lm_head", specs.Head(d_model=D, vocab=VOCAB))),
    )
    torch.manual_seed(0)
    model = Residual(spec, Options(rope=RoPE(theta=100.0)))
    if "r" not in pattern:
        stir(model)
    return model.double().eval().requires_grad_(False)


MODELS = {pattern: hybrid(pattern) for pattern in (*HYBRIDS, GROWS_ONLY)}
every_hybrid = pytest.mark.parametrize("pattern", MODELS)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def draw(b: int = 1, l: int = LENGTH, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCAB, (b, l), generator=torch.Generator().manual_seed(seed))


def same(got: torch.Tensor, want: torch.Tensor) -> bool:
    return ((got - want).abs().max() / want.abs().max()).item() < 1e-11


def filled(model: LanguageModel, tokens: torch.Tensor, size: int = LENGTH) -> Cache:
    cache = model.new_cache(len(tokens), size)
    model(tokens, cache)
    return cache


@every_hybrid
def test_pieces_are_the_whole(pattern):
    model, tokens = MODELS[pattern], draw(2)
    want = model(tokens)
    assert want.std() > 0.01
    for cuts in ((1,) * LENGTH, (17, 1, 1, 8, 13), (8, 8, 8, 8, 8), (39, 1)):
        cache, at = model.new_cache(2, LENGTH), 0
        where = {key: t.data_ptr() for key, t in cache.tensors()}
        got = []
        for n in cuts:
            got.append(model(tokens[:, at : at + n], cache))
            at += n
        assert same(torch.cat(got, 1), want)
        assert where == {key: t.data_ptr() for key, t in cache.tensors()}


@pytest.mark.parametrize("name", presets.names())
def test_a_full_size_cache_has_the_bytes_of_the_calculators(name):
    spec = presets.preset(name)
    for b, s, dtype in ((1, 4096, torch.bfloat16), (3, 100, torch.float32)):
        cache = Cache.of(spec, b, s, dtype, "meta")
        assert cache.nbytes == spec.state_bytes(
            b=b, s=s, dtype={2: "bf16", 4: "fp32"}[dtype.itemsize]
        )
    served = Serving(model=spec, chip=chip("h100"), store=Storage())
    assert Cache.of(spec, 2, 5000, torch.bfloat16, "meta").nbytes == served.cache(2, 5000)


@every_hybrid
def test_a_real_cache_has_the_bytes_of_its_spec(pattern):
    model = MODELS[pattern]
    for b, s in ((1, 5), (3, LENGTH)):
        assert model.new_cache(b, s).nbytes == model.spec.state_bytes(b=b, s=s, dtype="fp64")


def test_latents_grow():
    cache = Cache.of(presets.preset("deepseek-v3"), 1, 64, torch.bfloat16, "meta")
    assert set(cache.slots.values()) == {1} and len(cache.slots) == 2 * 61


@every_hybrid
def test_going_back_to_a_snapshot_is_exact(pattern):
    model, tokens, other = MODELS[pattern], draw(2), draw(2, seed=1)
    cache = filled(model, tokens[:, :20])
    mark = snapshot(cache)
    for wrong in (other[:, 20:31], other[:, 20:21]):
        model(wrong, cache)
        restore(cache, mark)
    assert same(model(tokens[:, 20:], cache), model(tokens)[:, 20:])
    rewind(cache, 20)
    assert same(model(tokens[:, 20:], cache), model(tokens)[:, 20:])


@pytest.mark.parametrize("pattern", HYBRIDS)
def test_a_snapshot_copies_what_is_replaced_and_nothing_that_grows(pattern):
    model = MODELS[pattern]
    for size in (LENGTH, 4 * LENGTH):
        cache = model.new_cache(1, size)
        grown = sum(t.nbytes for key, t in cache.tensors() if key in cache.slots)
        assert snapshot(cache).nbytes == cache.nbytes - grown
        keys = 2 * 16 * (pattern.count("a") + pattern.count("c"))
        assert grown == (keys + (12 + 4) * pattern.count("l")) * size * 8


def test_keys_and_values_need_only_a_length():
    model, tokens = MODELS[GROWS_ONLY], draw()
    cache = filled(model, tokens)
    assert snapshot(cache).nbytes == 0
    rewind(cache, 33)
    assert cache.length == 7
    assert same(model(tokens[:, 7:], cache), model(tokens)[:, 7:])


def test_going_back_is_refused_where_it_would_be_wrong():
    model, tokens = MODELS["ma-"], draw()
    cache = filled(model, tokens[:, :10])
    with pytest.raises(
        ValueError, match="n is 3, expected a step back to a snapshot.*7 tokens; read"
    ):
        rewind(cache, 3)
    first = snapshot(cache)
    model(tokens[:, 10:15], cache)
    late = snapshot(cache)
    model(tokens[:, 15:18], cache)
    with pytest.raises(ValueError, match="none of 13 tokens; restore that of 10 and read on"):
        rewind(cache, 5)
    restore(cache, first)
    with pytest.raises(ValueError, match="snapshot of 15 tokens is not of this cache's past"):
        restore(cache, late)  # what it stood on is about to be overwritten
    with pytest.raises(ValueError, match="n is 11, expected 0 to the 10 tokens"):
        rewind(cache, 11)
    rewind(cache, 0)
    assert cache.length == 10


@every_hybrid
def test_a_fork_goes_on_as_the_whole_would(pattern):
    model, tokens = MODELS[pattern], draw(2)
    cache = filled(model, tokens[:, :23])
    forked = fork(cache, 3)
    ends = draw(6, LENGTH - 23, seed=2)
    want = model(torch.cat([tokens[:, :23].repeat_interleave(3, 0), ends], 1))[:, 23:]
    assert same(model(ends, forked), want)
    assert same(model(tokens[:, 23:], cache), model(tokens)[:, 23:])  # which it leaves alone


@every_hybrid
def test_left_padding_is_exact_for_each_row(pattern):
    model, tokens, pad = MODELS[pattern], draw(3), (0, 5, 11)
    mask = torch.arange(LENGTH) >= torch.tensor(pad)[:, None]
    cache = model.new_cache(3, LENGTH)
    got = [model(tokens[:, :20], cache, mask=mask[:, :20])]
    got += [model(tokens[:, i : i + 1], cache) for i in range(20, LENGTH)]
    got = torch.cat(got, 1)
    for row, n in enumerate(pad):
        assert same(got[row, n:], model(tokens[row : row + 1, n:])[0])


@every_hybrid
def test_rows_of_different_lengths_are_exact(pattern):
    """Three sequences of 3, 20 and 9 tokens in one batch; one ends and another takes its row."""
    model, tokens, starts = MODELS[pattern], draw(4), (3, 20, 9)
    batch, room = ragged(model.new_cache(3, LENGTH)), model.new_cache(1, LENGTH)
    step = Steps(model, batch)

    def enter(row: int, which: int, n: int) -> None:
        clear(room)
        model(tokens[which : which + 1, :n], room)
        put(batch, row, room)

    def go_on(which: list[int], at: list[int], steps: int) -> None:
        for _ in range(steps):
            logits = step(tokens[which, at])
            for row in range(3):
                want = model(tokens[which[row], : at[row] + 1][None])[0, -1]
                assert same(logits[row], want)
                at[row] += 1

    for row, n in enumerate(starts):
        enter(row, row, n)
    go_on([0, 1, 2], list(starts), 5)
    enter(1, 3, 6)
    longest(batch)
    assert batch.length == 14
    go_on([0, 3, 2], [8, 6, 14], 6)


def test_attention_of_ragged_rows_looks_at_few_slots(monkeypatch):
    monkeypatch.setattr("cookbook_lib.blocks.cache.STRIDE", 8)
    cache = ragged(MODELS["aw"].new_cache(1, LENGTH))
    cache.length = 9
    assert cache.of_use("0.mixer")["k"].shape[2] == 16
    assert cache.of_use("1.mixer")["k"].shape[2] == 6  # a ring is looked at whole
    cache.length = 39
    assert cache.of_use("0.mixer")["k"].shape[2] == LENGTH


def test_rows_say_what_is_wrong():
    model = MODELS["ma-"]
    cache, other = ragged(model.new_cache(2, 10)), model.new_cache(1, 9)
    with pytest.raises(ValueError, match="the row has room for 10 tokens, expected 9"):
        put(cache, 0, other)
    with pytest.raises(ValueError, match="put takes a ragged cache"):
        put(other, 0, other)
    with pytest.raises(
        ValueError, match="rows have different lengths, expected one length for a fork"
    ):
        fork(cache, 2)
    with pytest.raises(ValueError, match="n is 0, expected at least 1"):
        fork(other, 0)
    with pytest.raises(ValueError, match="mask is given, expected None"):
        model(draw(2, 3), cache, mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="the cache has one length, expected one for each row"):
        Steps(model, other)
    padded = model.new_cache(2, 10)
    model(draw(2, 3), padded, mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="the cache has padding"):
        ragged(padded)
    step = Steps(model, cache)
    for _ in range(10):
        step(torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="the cache has room for 10 tokens, expected 11"):
        step(torch.zeros(2, dtype=torch.long))


@every_hybrid
def test_a_known_prefix_changes_no_bit(pattern):
    model, tokens = MODELS[pattern], draw()
    fresh, known = Prefixes(every=8), Prefixes(every=8)
    known.read(
        model, torch.cat([tokens[:, :19], draw(1, 12, seed=3)], 1), model.new_cache(1, LENGTH)
    )
    caches = [model.new_cache(1, LENGTH) for _ in range(2)]
    (want, none), (got, some) = (
        p.read(model, tokens[:, :30], c) for p, c in zip((fresh, known), caches, strict=True)
    )
    assert (none, some) == (0, 16)
    assert torch.equal(got, want) and same(got, model(tokens[:, :30])[:, -1])
    for (_, a), (_, b) in zip(*(c.tensors() for c in caches), strict=True):
        assert torch.equal(a, b)
    assert same(model(tokens[:, 30:], caches[1]), model(tokens)[:, 30:])


@STEADY
@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12), min_size=1, max_size=6))
def test_prefixes_find_the_longest_that_was_read(prompts):
    model, store, seen = MODELS["ma-"], Prefixes(every=2), set()
    for ids in prompts:
        cache = model.new_cache(1, 12)
        logits, known = store.read(model, torch.tensor([ids]), cache)
        ends = range(2, len(ids), 2)
        assert known == max((end for end in ends if tuple(ids[:end]) in seen), default=0)
        seen |= {tuple(ids[:end]) for end in ends}
        assert cache.length == len(ids) and same(logits, model(torch.tensor([ids]))[:, -1])
    assert len(store.nodes()) == len(seen)


def test_prefixes_share_keys_and_forget_the_oldest():
    model, tokens = MODELS["ma-"], draw()
    store = Prefixes(every=8)
    for end in (8, 16, 24):  # keys and values once for each token, states once for each block
        store.read(model, tokens[:, : end + 1], model.new_cache(1, LENGTH))
    cache = filled(model, tokens[:, :24], 24)
    state = snapshot(cache).nbytes
    assert store.nbytes == cache.nbytes + 2 * state
    store.room = store.nbytes
    other = draw(1, 9, seed=5)
    store.read(model, other, model.new_cache(1, LENGTH))
    assert store.nbytes <= store.room
    assert store.read(model, tokens[:, :26], model.new_cache(1, LENGTH))[1] == 16
    with pytest.raises(ValueError, match="expected one prompt of at least one token and an empty"):
        store.read(model, tokens, filled(model, tokens[:, :2]))
    with pytest.raises(ValueError, match="every is 0, expected at least 1"):
        Prefixes(every=0)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ("zamba2 groups, rope, lora", "mamba2", "llama"))
def test_a_recorded_step_is_the_step(name):
    family = name.split()[0]
    with torch.device("cuda"):
        model = build(CHECKPOINTS[name] | {"model_type": family}).eval()
    tokens = draw(2).cuda()
    caches = [ragged(model.new_cache(2, LENGTH)) for _ in range(2)]
    step = Steps(model, caches[0])
    for i in range(LENGTH):
        got, before = step(tokens[:, i]).clone(), torch.cuda.memory_allocated()
        want = model(tokens[:, i : i + 1], caches[1])[:, -1]
        assert ((got - want).abs().max() / want.abs().max()).item() < 1e-4
        if i:
            assert torch.cuda.memory_allocated() == before
