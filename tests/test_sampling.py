"""The sequences of a run follow its mixture to within one, come again from any place, are the same
on any number of ranks, and read every token of a source once an epoch."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cookbook_lib.data.shards import Shard
from cookbook_lib.data.streams import Stream
from cookbook_lib.training.phases import Phase, Plan
from cookbook_lib.training.sampling import IGNORE, Sampler, due, whole

STEADY = settings(max_examples=60, deadline=None, derandomize=True, database=None)
weights = st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(any)


def shard(folder, name, documents):
    """A shard of these documents, and its path without an ending."""
    path = folder / name
    made = Shard(path, np.dtype(np.uint16))
    made.append(np.concatenate(documents), np.array([len(d) for d in documents]))
    made.close()
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two sources: documents of 1 to 40 tokens, each with an id of its own; b has two shards."""
    folder = tmp_path_factory.mktemp("shards")
    random = np.random.default_rng(0)

    def documents(first, count):
        return [np.full(random.integers(1, 41), first + i) for i in range(count)]

    return {
        "a": [shard(folder, "a", documents(1000, 30))],
        "b": [shard(folder, "b0", documents(2000, 20)), shard(folder, "b1", documents(3000, 9))],
    }


def plan(tokens=(640, 320), mixes=({"a": 1}, {"a": 0.6, "b": 0.4})):
    phases = zip(tokens, mixes, strict=True)
    made = [Phase(name=f"p{i}", tokens=n, lr=1.0, mix=mix) for i, (n, mix) in enumerate(phases)]
    return Plan(name="plan", phases=tuple(made))


@STEADY
@given(weights, st.integers(1, 400))
def test_the_mixture_is_right_to_within_one_sequence_at_any_time(parts, length):
    mix = {str(i): w / 7 for i, w in enumerate(parts)}
    wanted, total = whole(mix)
    counts = Counter()
    for n in range(length):
        counts[due(wanted, total, counts, n)] += 1
        for source, weight in wanted.items():
            assert abs(counts[source] - Fraction(weight, total) * (n + 1)) < 1
    assert all(counts[s] == 0 for s in mix if s not in wanted)


def test_weights_keep_their_proportions():
    assert whole({"a": 0.6, "b": 0.4, "c": 0}) == ({"a": 3, "b": 2}, 5)
    assert whole({"a": 2, "b": 1e-3}) == ({"a": 2000, "b": 1}, 2001)


def test_an_epoch_reads_every_token_once_and_the_next_one_in_another_order(sources):
    """But for the very first, which nothing comes before that could predict it."""
    stream = Stream("b", sources["b"], 1, seed=3)
    held = Counter(np.concatenate([stream.document(i) for i in range(29)]).tolist())
    epochs = []
    for epoch in (0, 1):
        numbers = range(epoch * stream.each, (epoch + 1) * stream.each)
        epochs.append([stream[n][0].tolist() for n in numbers])
        first = stream.document(int(stream.order(epoch)[0][0]))[0]
        assert Counter(ids[1] for ids in epochs[-1]) + Counter([int(first)]) == held
    assert epochs[0] != epochs[1] and stream.epochs(stream.each) == 1


@STEADY
@given(st.integers(1, 60), st.integers(0, 40))
def test_sequences_are_an_epoch_in_pieces(sources, length, n):
    """By definition: the documents of the epoch in their order, behind one another, cut."""
    stream = Stream("a", sources["a"], length, seed=1)
    assert stream.tokens - length <= stream.each * length < stream.tokens
    ids, documents = stream[n]
    order, _, sequences = stream.order(n // stream.each)
    assert sorted(sequences.tolist()) == list(range(stream.each))
    texts = [stream.document(int(i)).tolist() for i in order]
    whole_epoch = [t for text in texts for t in text]
    which = [i for i, text in enumerate(texts) for _ in text]
    start = int(sequences[n % stream.each]) * length
    here = slice(start, start + length + 1)
    assert ids.tolist() == whole_epoch[here] and len(ids) == length + 1
    changes = [a != b for a, b in zip(which[here], which[here][1:], strict=False)]
    assert (np.diff(documents) == 1).tolist() == changes and documents[0] == 0


def test_a_batch_is_not_of_one_document(sources):
    """Documents of 20 tokens, sequences of 1: in their order, eight in a row would be of one."""
    stream = Stream("a", sources["a"], 1)
    rows = [len({int(stream[8 * i + j][0][0]) for j in range(8)}) for i in range(40)]
    assert sum(rows) / len(rows) > 5


def test_another_seed_and_another_source_are_other_orders(sources):
    orders = [
        Stream(name, sources["a"], 8, seed).order(0)[0].tolist()
        for name, seed in (("a", 0), ("a", 0), ("a", 1), ("other", 0))
    ]
    assert orders[0] == orders[1] and orders[0] != orders[2] != orders[3] != orders[0]


def test_targets_are_the_next_tokens_of_the_same_document(sources):
    batch = Sampler(plan(), sources, 16).draw(30)
    assert batch.tokens.shape == batch.targets.shape == batch.documents.shape == (30, 16)
    same = batch.documents[:, 1:] == batch.documents[:, :-1]
    assert (batch.targets[:, :-1][same] == batch.tokens[:, 1:][same]).all()
    assert (batch.targets[:, :-1][~same] == IGNORE).all() and not same.all()


def drawn(sampler, batches, sequences=8, rank=0, ranks=1):
    parts = [sampler.draw(sequences, rank, ranks) for _ in range(batches)]
    return np.concatenate([p.tokens for p in parts]), np.concatenate([p.sources for p in parts])


@STEADY
@given(st.integers(0, 11), st.sampled_from([1, 2, 4]))
def test_a_run_goes_on_from_any_place_on_any_number_of_ranks(sources, stop, ranks):
    whole_run, _ = drawn(Sampler(plan(), sources, 8, seed=5), 12)
    first = Sampler(plan(), sources, 8, seed=5)
    if stop:
        drawn(first, stop)
    state = first.state()
    rest = []
    for rank in range(ranks):
        sampler = Sampler(plan(), sources, 8, seed=5)
        sampler.load(state)
        rest.append(drawn(sampler, 12 - stop, rank=rank, ranks=ranks)[0] if stop < 12 else None)
    joined = np.stack(rest, 1).reshape(-1, 8)  # each batch: one of each rank in turn
    assert (joined == whole_run[stop * 8 :]).all()


def test_the_state_is_plain_numbers(sources):
    import json

    sampler = Sampler(plan(), sources, 8)
    sampler.draw(100)
    assert json.loads(json.dumps(sampler.state())) == sampler.state()


def test_phases_change_the_mixture_where_they_begin(sources):
    sampler = Sampler(plan(), sources, 8)
    _, which = drawn(sampler, 15)
    names = [sampler.names[i] for i in which]
    assert set(names[:80]) == {"a"} and Counter(names[80:]) == {"a": 24, "b": 16}
    assert sampler.counts == {"a": 104, "b": 16}
    assert sampler.epochs()["b"] == 16 / sampler.streams["b"].each


def test_a_phase_may_come_twice(sources):
    """Each time its mixture begins anew: three of a for each b, from the first sequence on."""
    phase = Phase(name="p", tokens=56, lr=1.0, mix={"a": 3, "b": 1})
    sampler = Sampler(Plan(name="plan", phases=(phase, phase)), sources, 8)
    _, which = drawn(sampler, 1, sequences=14)
    assert which[:7].tolist() == which[7:].tolist() and sampler.phase == 1


def test_a_plan_may_be_changed_on_the_way(sources):
    """A branch: the stable phase goes on as another plan says, from the same place in the data."""
    trunk = Sampler(plan((960,), ({"a": 1},)), sources, 8)
    drawn(trunk, 10)
    branch = Sampler(plan(), sources, 8)
    branch.load(trunk.state())
    assert (drawn(branch, 5)[0] == drawn(Sampler(plan(), sources, 8), 15)[0][80:]).all()


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda s: Stream("a", s["a"], 0), "length is 0, expected at least 1 token"),
        (lambda s: Stream("a", [], 8), "source a holds 0 tokens in 0 shards, expected more"),
        (lambda s: Sampler(plan(), {"a": s["a"]}, 8), "source b of plan has no shards"),
        (lambda s: Sampler(plan(), s, 8).draw(5, 0, 2), "sequences is 5, expected a multiple"),
        (
            lambda s: Sampler(plan(), s, 8).load(Sampler(plan(), s, 8, seed=1).state()),
            "seed of the sampler's state is 1, expected 0",
        ),
        (
            lambda s: Sampler(plan(), s, 8).load(Sampler(plan(), s, 4).state()),
            "length of the sampler's state is 4, expected 8",
        ),
    ],
)
def test_mistakes_get_one_line(act, words, sources):
    with pytest.raises(ValueError, match=words):
        act(sources)
