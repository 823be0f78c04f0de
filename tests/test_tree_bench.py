"""`cookbook bench decode` prints only what is full attention, says in one line what is wrong; and
what it has measured over links of two tiers is what the model says, within its stated error."""

import json
import os

import numpy as np
import pytest
import torch
import tree_tasks

from cookbook_lib.cli import main
from cookbook_lib.communication import links, namespaces
from cookbook_lib.communication.launch import launch
from cookbook_lib.decoding import tree_methods
from cookbook_lib.decoding.tree_costs import METHODS, Shape, sent
from cookbook_lib.decoding.tree_fit import (
    Rates,
    ahead,
    fitted,
    halves,
    judged,
    predictions,
    ratio,
    terms,
)
from cookbook_lib.decoding.tree_rows import WrongResult, numbers, prove, query, reference
from cookbook_lib.results import committed, read

SMALL = ["bench", "decode", "--context", "1Ki", "--seconds", "1e-6", "--json"]


def test_all_methods_of_torch_are_timed_and_checked(capsys, tmp_path):
    out = tmp_path / "rows.jsonl"
    main([*SMALL, "--devices", "3", "--batch", "2", "--out", str(out)])
    rows = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in rows] == list(METHODS)
    assert rows == read(out)
    for row in rows:
        assert row["checked"] and row["error"] < 1e-5 and row["seconds"]["count"] >= 6
        x = Shape(**{name: row[name] for name in "spbhgkl"}, width=row["width"])
        assert row["sent"] == sent(row["method"], x)


def test_jax_is_timed_over_devices_of_one_process(capsys):
    main([*SMALL, "--backend", "jax", "--dtype", "fp64"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in rows] == list(METHODS)
    assert {row["backend"] for row in rows} == {"jax cpu"}
    assert max(row["error"] for row in rows) < 1e-13


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--method", "star"], "method is 'star', expected one of tree, tree-fused"),
        (["--heads", "3"], "heads is 3, expected a multiple of kv_heads, 2"),
        (["--devices", "0"], "devices is 0, expected 1 or more"),
        (["--context", "x"], "context is 'x', expected whole"),
        (["--nodes", "2"], "nodes is 2 without a rate, expected --rate"),
        (["--backend", "jax", "--rate", "1M"], "backend is jax, expected torch"),
        (
            ["--backend", "jax", "--context", "1001"],
            "context is 1001, expected a multiple of the 4",
        ),
        (["--timeout", "0"], "timeout is 0, expected seconds"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(flags, said, capsys):
    with pytest.raises(SystemExit) as end:
        main([*SMALL, *flags])
    assert end.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--devices", "3"], "devices is 3, but torchrun started 2"),
        (["--backend", "jax"], "backend is jax, expected torch under torchrun"),
        (["--rate", "1M"], "rate is given, but torchrun has started the ranks"),
    ],
)
def test_what_a_launcher_has_settled_is_not_to_be_asked_for(flags, said, capsys, monkeypatch):
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(SystemExit) as end:
        main([*SMALL, *flags])
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_a_rank_that_takes_too_long_is_named_and_the_exit_code_is_one(capsys):
    with pytest.raises(SystemExit) as end:
        main([*SMALL, "--devices", "2", "--timeout", "0.001"])
    assert end.value.code == 1
    assert "of 2, " in capsys.readouterr().err


def test_a_result_that_is_not_full_attention_is_refused():
    x = Shape(s=100, p=1, h=4, g=2, k=8, width=4)
    due = reference(x, "fp32", (100,))
    (k, v), q = numbers(x, "fp32", 0, 100), query(x, "fp32")
    out = torch.nn.functional.scaled_dot_product_attention(
        q, *(y.permute(1, 2, 0, 3) for y in (k, v)), enable_gqa=True
    )
    assert prove(out, due, "fp32", "tree") < 1e-6
    with pytest.raises(WrongResult, match="tree is off full attention by"):
        prove(out * 1.001, due, "fp32", "tree")
    with pytest.raises(WrongResult):
        prove(out * torch.nan, due, "fp32", "tree")


@pytest.mark.skipif(bool(links.missing()), reason=f"no links of a known rate: {links.missing()}")
@pytest.mark.parametrize("p", [2, 4])
def test_interfaces_send_the_bytes_of_the_formulas_and_headers(p):
    x = Shape(s=256, p=p, b=16, h=16, g=16, k=128, width=4)
    with links.network(p, rate=1e9) as net:
        found = launch(tree_tasks.on_the_wire, p, {"sizes": vars(x)}, seats=net.seats)
    for method in tree_methods.METHODS:
        due = sent(method, x)
        got = [rank[method] for rank in found]
        assert 1 <= max(got) / due < 1.1, (method, max(got), due)


@pytest.mark.skipif(bool(links.missing()), reason=f"no links of a known rate: {links.missing()}")
def test_all_methods_are_timed_over_two_tiers_and_leave_nothing_behind(capsys):
    main([*SMALL, "--devices", "2", "--nodes", "2", "--rate", "100M", "--uplink", "25M"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in rows] == list(METHODS)
    for row in rows:
        assert (row["nodes"], row["rate"], row["uplink"]) == (2, 1e8, 2.5e7) and row["checked"]
    assert f"cookbook-{os.getpid()}-" not in namespaces.ip("netns", "list")


# measured over two tiers


@pytest.fixture(scope="module")
def rows():
    return committed("tree_attention")


def test_the_data_hold_every_method_for_each_context_and_number_of_ranks(rows):
    points = {(r["method"], r["p"], r["s"]) for r in rows}
    assert len(points) == len(rows) == len(METHODS) * 3 * 4
    assert all(r["checked"] and r["nodes"] == 2 and r["uplink"] < r["rate"] for r in rows)
    assert {p for _, p, _ in points} == {2, 4, 8} and 2**20 in {s for *_, s in points}


def test_a_tree_leads_everywhere_and_most_with_the_longest_context(rows):
    for p in (2, 4, 8):
        lead = [ratio(rows, p, s) for s in (2**14, 2**16, 2**18, 2**20)]
        assert min(lead) > 1 and max(lead) in lead[2:], p
        assert {ahead(rows, p, s) for s in (2**14, 2**16, 2**18, 2**20)} == {"holds"}


def test_the_half_that_the_fit_has_not_seen_is_predicted(rows):
    fits, found = predictions(rows)
    assert len(found) == len(rows) / 2
    off = np.array([abs(t / r["seconds"]["median"] - 1) for r, t in found])
    assert np.median(off) < 0.1 and np.mean(off < 0.25) > 0.95
    assert {judged(r, t) for r, t in found} <= {"holds", "fails"}
    for p, rates in fits.items():
        assert 0.5 < rates.beta / 25e6 < 1, p  # of the slower tier, which every ring crosses


def test_a_ring_of_keys_hides_its_reading_behind_the_wire(rows):
    """What the model takes for granted: a shard is read sooner than the next one comes."""
    fits, _ = predictions(rows)
    for r in rows:
        if r["method"] == "ring-kv":
            reading = terms(r)[3] / fits[r["p"]].read
            assert reading < r["sent"] / (r["p"] - 1) / fits[r["p"]].beta


def test_exact_rows_give_their_rates_back(rows):
    true = Rates(start=1e-3, alpha=2e-4, beta=3e7, read=2e9, alone=3e9)
    exact = [r | {"seconds": {"median": true.seconds(r)}} for r in rows if r["p"] == 4]
    known, asked = halves(exact)
    assert {id(r) for r in known} & {id(r) for r in asked} == set()
    found = fitted(known)
    for name in ("start", "alpha", "beta", "read", "alone"):
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=1e-6)
    with pytest.raises(ValueError, match="cannot tell the rates apart"):
        fitted([r for r in known if r["method"] == "tree"])


def test_a_prediction_fails_only_beyond_what_the_median_may_be():
    row = {"seconds": {"median": 1.0, "low": 0.8, "high": 1.6}}
    due = {1.2: "holds", 0.76: "holds", 0.7: "too noisy to tell", 1.9: "too noisy to tell"}
    for t, said in (due | {0.5: "fails", 2.1: "fails"}).items():
        assert judged(row, t) == said


def test_a_lead_is_claimed_only_if_the_intervals_are_apart():
    def point(method, low, high):
        seconds = {"median": (low + high) / 2, "low": low, "high": high}
        return {"p": 2, "s": 1, "method": method, "seconds": seconds}

    fast = point("tree-fused", 1.0, 2.0)
    for ring, said in [((3, 4), "holds"), ((1.5, 4), "too noisy to tell"), ((0.2, 0.9), "fails")]:
        assert ahead([fast, point("ring-kv", *ring)], 2, 1) == said
