"""Two documents become one exactly as often as theory says, whatever else is in the batch; and who
survives follows from a rule."""

import re
import string
import unicodedata
from itertools import product
from math import comb

import networkx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from cookbook_lib.data import linking, ranking, survival
from cookbook_lib.data.banding import Banding, band_keys, candidates, choose, collision, errors
from cookbook_lib.data.clusters import (
    best_first,
    cluster,
    dropped,
    speakers,
    spread,
    stars,
    survivors,
)
from cookbook_lib.data.components import components, equal, forest
from cookbook_lib.data.gauge import Gauge
from cookbook_lib.data.greedy import nearest
from cookbook_lib.data.kept import Kept
from cookbook_lib.data.linking import Search
from cookbook_lib.data.minhash import jaccard, minhash, permutations, signatures, similarity
from cookbook_lib.data.planted import pair
from cookbook_lib.data.shingles import normalise, shingles
from cookbook_lib.data.stars import decide
from cookbook_lib.data.stars import stars as shared_stars
from cookbook_lib.data.steps import MinHash
from cookbook_lib.data.storage import Arrays
from cookbook_lib.data.verification import found_by_signature, least_rows, verifier

TEXTS = st.lists(st.text(st.sampled_from("aab  \n.é😀\xa0\u2028\x1c\ud800İ")), max_size=8)
ZYDA = Banding(32, 4)


def grams(text: str, n: int, kind: str) -> set[tuple[str, ...]]:
    """The definition: n-grams of what Zyda's utils/text.py leaves, a short text as one."""
    text = unicodedata.normalize("NFC", text).lower()
    text = text.translate(str.maketrans("", "", string.punctuation))
    text = re.sub(r"\s+", " ", text.strip()).strip()
    units = text.split(" ") if kind == "words" else list(text)
    if not text:
        return set()
    return {tuple(units[i : i + n]) for i in range(max(1, len(units) - n + 1))}


@given(TEXTS, st.integers(1, 5), st.sampled_from(["words", "characters"]))
def test_shingles_are_the_n_grams(texts, n, kind):
    ours = shingles([normalise(t) for t in texts], n, kind)
    theirs = [grams(t, n, kind) for t in texts]
    distinct = {}
    for mine, gram in zip(ours.sets() if texts else [], theirs, strict=True):
        assert len(mine) == len(gram)
        distinct[tuple(sorted(gram))] = mine
    pooled = np.unique(ours.hashes)
    assert len(pooled) == len(set().union(*theirs))  # equal n-grams, and only those, are equal
    for gram, mine in distinct.items():
        for other, its in distinct.items():
            both, either = set(gram) & set(other), set(gram) | set(other)
            assert jaccard(mine, its) == (len(both) / len(either) if either else 0)


def test_shingles_of_a_long_text_are_those_of_its_parts():
    words = [f"w{i * 7919 % 10007}" for i in range(30_000)]
    whole = shingles([" ".join(words).encode()], 13)
    parts = shingles([" ".join(words[i : i + 13]).encode() for i in range(30_000 - 12)], 13)
    assert np.array_equal(whole.hashes, parts.hashes)


@settings(max_examples=30)
@given(st.lists(st.text("ab ", max_size=30), max_size=12), st.integers(0, 12), st.integers(0, 9))
def test_a_signature_is_the_same_in_every_batch(texts, cut, seed):
    whole = signatures(texts, 2, "words", 16, seed)
    parts = [signatures(p, 2, "words", 16, seed) for p in (texts[:cut], texts[cut:])]
    assert np.array_equal(whole, np.concatenate(parts))
    assert np.array_equal(whole[:, :5], signatures(texts, 2, "words", 5, seed))


def mix(x: int) -> int:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x = (x ^ x >> 33) * factor % 2**64
    return x ^ x >> 33


def test_a_signature_is_the_same_on_every_machine():
    """Once more in Python's own numbers, which have no width and no order of bytes."""
    text, base = "the quick brown fox jumps over the lazy dog", 0x9E3779B97F4A7C15
    words = text.encode().split()
    start = mix(7)
    numbers = [mix((k * base + start) % 2**64) >> 32 for k in range(1, 9)]
    hashes = [
        mix(sum(mix((c + 1) * base % 2**64) * base**j for j, c in enumerate(gram)) % 2**64) >> 32
        for gram in (b" ".join(words[i : i + 3]) for i in range(len(words) - 2))
    ]
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    least = [min((h * (a | 1) + b) % 2**32 for h in hashes) for a, b in pairs]
    assert signatures([text], 3, "words", 4, seed=7).tolist() == [least]


def test_signatures_of_more_than_a_block_agree_with_the_definition():
    rng = np.random.default_rng(0)
    sizes = [3, 0, 70_000, 1, 0, 0, 90_000, 12, 0]
    texts = [" ".join(map(str, rng.integers(10**9, size=n))).encode() for n in sizes]
    sets = shingles(texts, 1)
    a, b = permutations(8)
    parts = np.split((sets.hashes >> np.uint64(32)).astype(np.uint32), np.cumsum(sets.counts)[:-1])
    for row, part in zip(minhash(sets, 8), parts, strict=True):
        expected = (part[:, None] * a + b).min(0) if len(part) else np.full(8, 0xFFFFFFFF)
        assert np.array_equal(row, expected)


def within(hits: int, tries: int, chance: float) -> bool:
    """Whether a count is no further out than one in 10,000 of binomial draws on either side."""
    chance = min(max(chance, 0.0), 1.0)
    mass = [comb(tries, k) * chance**k * (1 - chance) ** (tries - k) for k in range(tries + 1)]
    return sum(mass[: hits + 1]) > 1e-4 and sum(mass[hits:]) > 1e-4


@pytest.mark.parametrize("banding", [ZYDA, Banding(8, 16), Banding(9, 13)])
@pytest.mark.parametrize("wanted", [0.1, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_the_s_curve_is_as_theory_says(banding, wanted):
    rng = np.random.default_rng(round(100 * wanted))
    pairs = [pair(wanted, rng) for _ in range(300)]
    a = signatures([p.a for p in pairs], 13, "words", 128)
    b = signatures([p.b for p in pairs], 13, "words", 128)
    bands = zip(band_keys(a, banding), band_keys(b, banding), strict=True)
    meet = np.any([x == y for x, y in bands], axis=0)
    assert within(int(meet.sum()), len(pairs), collision(pairs[0].similarity, *banding))
    share = (a == b).mean()  # of 38,400 rows, which permutations make nearly independent
    assert abs(share - pairs[0].similarity) < 5 * (0.25 / a.size) ** 0.5


def test_planted_similarity_is_the_jaccard_of_the_n_grams():
    for wanted in (0.0, 0.05, 0.4, 0.83, 1.0):
        p = pair(wanted, np.random.default_rng(1))
        x, y = shingles([p.a.encode(), p.b.encode()], 13).sets()
        assert jaccard(x, y) == p.similarity == pytest.approx(wanted, abs=0.005)


@pytest.mark.parametrize("threshold", [0.1, 0.25, 0.4, 0.5, 0.7, 0.8, 0.85, 0.95])
@pytest.mark.parametrize("count", [16, 128])
def test_bands_and_rows_are_those_that_datasketch_chooses(threshold, count):
    lsh = pytest.importorskip("datasketch.lsh", reason="needs the extra `test`")
    ours = choose(threshold, count)
    assert ours == lsh._optimal_param(threshold, count, 0.5, 0.5)
    below, above = errors(threshold, ours)
    assert below == pytest.approx(lsh._false_positive_probability(threshold, *ours), rel=1e-6)
    assert above == pytest.approx(lsh._false_negative_probability(threshold, *ours), rel=1e-6)


def test_zyda_s_threshold_gives_zyda_s_bands():
    assert choose(0.4, 128) == (32, 4)  # github.com/Zyphra/Zyda_processing, lsh_minhash


@given(st.integers(1, 60), st.data())
def test_components_are_those_of_networkx(n, data):
    place = st.integers(0, n - 1)
    edges = data.draw(st.lists(st.tuples(place, place), max_size=80))
    graph = networkx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(edges)
    expected = np.empty(n, int)
    for part in networkx.connected_components(graph):
        expected[list(part)] = min(part)
    a, b = (np.array([e[k] for e in edges], int) for k in (0, 1))
    assert np.array_equal(components(n, a, b), expected)


@given(st.integers(1, 60), st.data())
def test_forests_merged_in_any_order_have_the_components_of_all_edges(n, data):
    place = st.integers(0, n - 1)
    parts = data.draw(st.lists(st.lists(st.tuples(place, place)), min_size=1, max_size=9))
    edges = [edge for part in parts for edge in part]
    left = [forest(n, columns(part)) for part in parts]
    while len(left) > 1:
        one = left.pop(data.draw(st.integers(0, len(left) - 1)))
        other = left.pop(data.draw(st.integers(0, len(left) - 1)))
        left.append(forest(n, one, other))
    a, b = columns(edges)
    count, theirs = connected_components(csr_array((np.ones(len(a)), (a, b)), (n, n)), False)
    assert len(left[0][0]) == n - count  # edges of a forest, and no more
    ours = components(n, *left[0])
    assert np.array_equal(ours, components(n, a, b))
    assert np.array_equal(ours == ours[:, None], theirs == theirs[:, None])


def columns(edges: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.array([edge[k] for edge in edges], int) for k in (0, 1))
    return a, b


@settings(
    max_examples=20,
    deadline=None,  # it writes files
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data(), st.integers(1, 30), st.sampled_from(["none", "signature"]), st.integers(1, 7))
def test_any_number_of_workers_finds_the_clusters_of_one(tmp_path, data, n, verify, workers):
    row = st.lists(st.integers(0, 2), min_size=6, max_size=6)
    signed = np.array(data.draw(st.lists(row, min_size=n, max_size=n)), np.uint32)
    valid = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    step = MinHash(threshold=0.6, permutations=6, bands=6, rows=1, verify=verify)
    search = Search(name="x", step=step, folder=tmp_path, documents=n, kept=())
    signed.astype("<u4").tofile(search.file("keys"))
    speaker, distinct = speakers(signed, valid)
    search.save("distinct", distinct)
    search.save("here", np.arange(n))

    def each(name, tasks):
        for task, arguments in data.draw(st.permutations(tasks)):
            task(*arguments)

    found = linking.clusters(search, each, workers, Gauge())
    check = verifier(step, signed, np.arange(n), Kept([]))
    assert np.array_equal(
        spread(found, speaker, distinct), cluster(signed, step.banding(), check, valid)
    )
    priority = np.array(data.draw(st.permutations(range(n))))
    speaker, distinct = speakers(signed, valid, priority)
    search.save("distinct", distinct)
    assert np.array_equal(
        shared_stars(search, priority, each, workers, Gauge())[speaker],
        stars(signed, step.banding(), priority, check, valid),
    )


@pytest.mark.parametrize("ordered", [True, False])
def test_stars_of_a_long_chain_take_no_more_rounds_than_workers(tmp_path, ordered):
    """Each document is like the next one; if it is also better, 500 wait for one another."""
    n, workers, rounds = 500, 7, 0
    signed = np.arange(n, dtype=np.uint32)[:, None] + np.array([0, 1], np.uint32)
    signed += signed % 2  # one column joins 1-2, 3-4, …, the other 0-1, 2-3, …
    step = MinHash(permutations=2, bands=2, rows=1, verify="none")
    search = Search(name="x", step=step, folder=tmp_path, documents=n, kept=())
    signed.astype("<u4").tofile(search.file("keys"))
    search.save("distinct", np.arange(n))
    priority = np.arange(n) if ordered else np.random.default_rng(0).permutation(n)

    def each(name, tasks):
        nonlocal rounds
        rounds += any(arguments[0] is decide for _, arguments in tasks)
        for task, arguments in tasks:
            task(*arguments)

    found = shared_stars(search, priority, each, workers, Gauge())
    if ordered:
        assert np.array_equal(found, np.arange(n) // 2 * 2)
    assert np.array_equal(found, stars(signed, step.banding(), priority))
    assert 1 < rounds <= workers


@given(st.integers(0, 8), st.integers(0, 1), st.sampled_from([(2, 3), (3, 2), (1, 4), (4, 1)]))
def test_the_chance_to_be_found_by_signature_is_that_of_all_outcomes(least, rest, shape):
    banding, n = Banding(*shape), shape[0] * shape[1] + rest
    exact = 0.0
    for outcome in product((0, 1), repeat=n):
        bands = np.array(outcome[: n - rest]).reshape(shape)
        if bands.all(1).any() and sum(outcome) >= least:
            exact += 0.3 ** sum(outcome) * 0.7 ** (n - sum(outcome))
    assert found_by_signature(0.3, banding, n, least) == pytest.approx(exact)


def test_without_a_bound_it_is_the_s_curve_and_a_margin_gives_back_what_the_bound_lost():
    for s in (0.1, 0.4, 0.8):
        assert found_by_signature(s, ZYDA, 128, 0) == pytest.approx(collision(s, *ZYDA))
    strict, loose = least_rows(0.4, 128, 0.0), least_rows(0.4, 128, 2.0)
    assert (strict, loose) == (52, 41)  # 51.2, and 51.2 - 2 sqrt(128 x 0.4 x 0.6)
    at = [found_by_signature(0.4, ZYDA, 128, least) for least in (0, loose, strict)]
    assert at[1] > 0.98 * at[0] and at[2] < 0.75 * at[0]


def test_components_of_a_long_chain():
    places = np.random.default_rng(0).permutation(100_000)
    assert not components(len(places), places[1:], places[:-1]).any()


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 40))
def test_every_pair_of_a_bucket_is_a_candidate_once_and_huge_buckets_stay_connected(keys, window):
    found = [
        pair
        for a, b in candidates(np.array(keys, np.uint64), window)
        for pair in zip(a, b, strict=True)
    ]
    assert len(found) == len(set(found))
    wanted = {(i, j) for j in range(len(keys)) for i in range(j) if keys[i] == keys[j]}
    assert set(found) <= wanted
    if window >= len(keys):
        assert set(found) == wanted
    a, b = (np.array([p[k] for p in found], int) for k in (0, 1))
    label = components(len(keys), a, b)
    assert all(label[i] == keys.index(keys[i]) for i in range(len(keys)))
    assert len(found) <= len(keys) * (window + 1)


def test_a_bridge_that_is_not_a_duplicate_joins_nothing_once_pairs_are_verified():
    a, c, loose = "x" * 100, "z" * 100, Banding(64, 2)
    half = "x" * 50 + "z" * 50

    def text(letters: str) -> str:
        return " ".join(f"{letter}{i}" for i, letter in enumerate(letters))

    signed = signatures([text(a), text(half), text(c)], 1, "words", 128)
    assert cluster(signed, loose).tolist() == [0, 0, 0]  # 0.33 each, and nothing in common at all
    verified = cluster(signed, loose, lambda i, j: similarity(signed, i, j) >= 0.6)
    assert verified.tolist() == [0, 1, 2]


@given(st.integers(1, 30), st.data())
def test_stars_are_those_of_the_greedy_rule(n, data):
    """Best first, each document that is left stays and drops those that are like it."""
    place = st.integers(0, n - 1)
    found = data.draw(st.lists(st.tuples(place, place).filter(lambda p: p[0] != p[1])))
    priority = np.array(data.draw(st.permutations(range(n))))
    like = {frozenset(p) for p in found}
    stays: list[int] = []
    expected = np.arange(n)
    for i in np.argsort(priority).tolist():
        better = [k for k in stays if frozenset((i, k)) in like]
        if better:
            expected[i] = better[0]
        else:
            stays.append(i)
    a, b = (np.array([p[k] for p in found], int) for k in (0, 1))
    assert np.array_equal(nearest(a, b, priority), expected)


def test_a_chain_drops_only_what_is_like_the_survivor():
    """Each of five texts is like the next one; the ends have nothing in common."""
    words = [f"w{i}" for i in range(300)]
    texts = [" ".join(words[i * 50 : i * 50 + 100]) for i in range(5)]
    sets = shingles([normalise(t) for t in [*texts, ""]], 1)
    signed, loose = minhash(sets, 128), Banding(128, 1)
    parts = sets.sets()

    def verify(a, b):
        return np.array([jaccard(parts[i], parts[j]) > 0.3 for i, j in zip(a, b, strict=True)])

    valid = sets.counts > 0
    assert cluster(signed, loose, verify, valid).tolist() == [0, 0, 0, 0, 0, 5]
    keeper = stars(signed, loose, np.arange(6), verify, valid)
    assert keeper.tolist() == [0, 0, 2, 2, 4, 5]
    last_first = np.arange(6)[::-1].copy()
    assert stars(signed, loose, last_first, verify, valid).tolist() == [0, 2, 2, 4, 4, 5]


def test_verification_sees_pairs_that_share_a_bucket_with_a_stranger_before_them():
    """A star from the first document of a bucket would lose the pair (1, 2)."""
    signed = np.array([[1, 2, 3, 4], [1, 7, 8, 9], [1, 7, 8, 10]], np.uint32)
    label = cluster(signed, Banding(4, 1), lambda i, j: similarity(signed, i, j) >= 0.75)
    assert label.tolist() == [0, 1, 1]


def test_short_and_empty_documents_do_not_collapse_into_one():
    """In Zyda_processing every text of fewer than 13 words gets the same signature."""
    texts = ["", "one short line", "another short line", "one short line", "", "—!?", "数据"]
    sets = shingles([normalise(t) for t in texts], 13)
    signed = minhash(sets, 128)
    label = cluster(signed, ZYDA, valid=sets.counts > 0)
    assert label.tolist() == [0, 1, 2, 1, 4, 5, 6]
    datasketch = pytest.importorskip("datasketch", reason="needs the extra `test`")
    theirs = [datasketch.MinHash(num_perm=128) for _ in range(2)]  # no n-grams to update with
    assert theirs[0].jaccard(theirs[1]) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2))), st.randoms())
def test_who_survives_does_not_depend_on_the_order_of_the_documents(documents, shuffle):
    """Source rank, then length, then id."""
    documents = [(*d, f"id{i:03}") for i, d in enumerate(documents)]

    def kept(rows) -> dict[str, str]:
        if not rows:
            return {}
        group, rank, length, ids = (np.array(column) for column in zip(*rows, strict=True))
        first = {g: i for i, g in reversed(list(enumerate(group)))}
        label = np.array([first[g] for g in group])
        keeper = survivors(label, rank, length, lambda places: list(ids[places]))
        return {ids[i]: ids[k] for i, k in enumerate(keeper)}

    best = {g: min((r, -n, i) for h, r, n, i in documents if h == g)[2] for g, *_ in documents}
    expected = {d[3]: best[d[0]] for d in documents}
    again = documents.copy()
    shuffle.shuffle(again)
    assert kept(documents) == kept(again) == expected


@settings(
    max_examples=25,
    deadline=None,  # it writes files
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data(), st.integers(1, 24), st.integers(1, 5), st.integers(1, 7))
def test_any_number_of_workers_and_blocks_lets_the_same_documents_stay(
    tmp_path, monkeypatch, data, n, workers, block
):
    """Ids may be there twice: then the first place stays, as with one worker."""
    monkeypatch.setattr(survival, "BLOCK", block)
    numbers = st.lists(st.integers(0, 2), min_size=n, max_size=n)
    rank, length, group = (np.array(data.draw(numbers)) for _ in range(3))
    ids = [f"id{k}" for k in data.draw(numbers)]
    table = pa.table({"id": ids, "length": pa.array(length, pa.int64())})
    some = data.draw(st.integers(0, n))
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    pq.write_table(table[:some], paths[0], row_group_size=3)
    pq.write_table(table[some:], paths[1], row_group_size=2)
    here = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    label = equal(group[here])
    files = Arrays(name="x", folder=tmp_path, kept=tuple(paths))
    files.save("here", here)

    def each(name, tasks):
        for task, arguments in data.draw(st.permutations(tasks)):
            task(*arguments)

    found = survival.chosen(files, label, rank[here], each, workers, Gauge())
    one = survivors(label, rank[here], length[here], lambda k: [ids[i] for i in here[k]])
    assert np.array_equal(found, one)


@settings(
    max_examples=25,
    deadline=None,  # it writes files
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data(), st.integers(0, 24), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3))
def test_any_number_of_workers_and_blocks_puts_documents_into_the_same_order(
    tmp_path, monkeypatch, data, n, workers, block, sample
):
    """Also where many have one length, and where ids are there twice."""
    monkeypatch.setattr(ranking, "BLOCK", block)
    monkeypatch.setattr(ranking, "SAMPLE", sample)
    numbers = st.lists(st.integers(0, 2), min_size=n, max_size=n)
    rank, length, name = (np.array(data.draw(numbers), int) for _ in range(3))
    ids = [f"id{k}" for k in name]
    table = pa.table({"id": pa.array(ids, pa.string()), "length": pa.array(length, pa.int64())})
    some = data.draw(st.integers(0, n))
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    pq.write_table(table[:some], paths[0], row_group_size=3)
    pq.write_table(table[some:], paths[1], row_group_size=2)
    here = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    files = Arrays(name="x", folder=tmp_path, kept=tuple(paths))
    files.save("here", here)

    def each(name, tasks):
        for task, arguments in data.draw(st.permutations(tasks)):
            task(*arguments)

    found = ranking.ranked(files, rank[here], each, workers, Gauge())
    order = best_first(rank[here], length[here], [ids[i] for i in here])
    assert np.array_equal(found[order], np.arange(len(here)))


def test_documents_of_one_length_are_shared_out_all_the_same(tmp_path):
    """Their ids alone tell the ranges apart."""
    n, workers, sizes = 2000, 5, []
    ids = [f"id{k:04}" for k in np.random.default_rng(0).permutation(n)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ids, "length": [7] * n}), path, row_group_size=100)
    files = Arrays(name="x", folder=tmp_path, kept=(path,))
    files.save("here", np.arange(n))

    def each(name, tasks):
        for task, arguments in tasks:
            task(*arguments)
            sizes.append(len(files.load(arguments[1][-1])))

    found = ranking.ranked(files, np.zeros(n, int), each, workers, Gauge())
    assert np.array_equal(found, np.argsort(np.argsort(ids)))
    assert len(sizes) == workers and max(sizes) < 1.5 * n / workers


def test_zyda_2_drops_duplicates_across_sources_only():
    rank, keeper = np.array([1, 1, 2, 0]), np.array([0, 0, 0, 3])
    assert dropped(keeper, rank).tolist() == [False, True, True, False]
    assert dropped(keeper, rank, across=True).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    "mistake, words",
    [
        (lambda: choose(1.5, 128), "threshold is 1.5, expected a number between 0 and 1"),
        (lambda: next(band_keys(np.zeros((1, 8), np.uint32), ZYDA)), "bands x rows is 32 x 4"),
        (lambda: shingles([b"a"], 0), "ngram is 0, expected"),
        (lambda: permutations(0), "permutations is 0, expected"),
        (lambda: pair(2.0, np.random.default_rng()), "similarity is 2.0, expected"),
    ],
)
def test_mistakes_are_named(mistake, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        mistake()
