"""A plan keeps its word: what it counts is what the model costs, its best candidate fits and no
fitting one is better, and each reason that it gives is true."""

import json
import math
import warnings
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import assert_same

from cookbook_lib.calculators.chips import CHIPS
from cookbook_lib.calculators.configs import read_config
from cookbook_lib.calculators.families import FAMILIES, Choice, attends, config
from cookbook_lib.calculators.hardware import roofline
from cookbook_lib.calculators.planning import (
    Budgets,
    Candidate,
    Use,
    dominates,
    front,
    measure,
    plan,
)
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.space import grid
from cookbook_lib.calculators.storage import Storage
from cookbook_lib.calculators.verdicts import STEPS, neighbours, verdict
from cookbook_lib.cli import main

ALL = list(grid())
SOME = [c for c in ALL if c.d_model in (1024, 2560)]
USE = Use(train_flops=1e22, context=32768, chip=CHIPS["phone"], store=Storage(weights="int4"))
PLAN = plan(SOME, USE, Budgets(params=3e9, memory=2.5e9))
ANY = Choice(family="mamba1", d_model=512, layers=12, d_state=16)


def test_there_are_ten_thousand_choices_each_once_and_their_labels_tell_them_apart():
    assert len(ALL) > 10_000 and len(set(ALL)) == len(ALL)
    assert len({c.label for c in ALL}) == len(ALL)
    assert {c.family for c in ALL} == set(FAMILIES)


@pytest.mark.parametrize("choice", Random(1).sample(SOME, 40), ids=lambda c: c.label)
def test_a_candidate_costs_what_its_model_costs(choice):
    c, model = measure(choice, USE), choice.model()
    step = model.step_flops(l=4096, attention="causal") / 4096
    assert math.isclose(c.tokens * step, 1e22) and c.train_flops == 1e22
    assert (c.params, c.params_active) == (model.params(), model.params_active())
    assert c.cache == model.state_bytes(s=32768)
    assert math.isclose(c.memory, USE.store.weights_nbytes(model) + c.cache)
    assert c.loss == USE.law.loss(model.params_active(), c.tokens)
    bound = roofline(model, USE.chip, Run(l=1, s=32768), USE.store)
    assert math.isclose(c.seconds, bound.fused)
    assert choice.share == len(attends(choice)) / choice.layers


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_one_that_transformers_builds(family, tmp_path):
    own = [c for c in ALL if c.family == family and c.d_model == 1024]
    attentive = [c for c in own if c.attention]  # transformers caches no Bamba without attention
    choice = Random(2).choice(attentive or own)
    fields = config(choice)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = assert_same(fields.pop("model_type"), fields, tmp_path, s=3)
    assert model.params() == measure(choice, USE).params


def candidate(numbers) -> Candidate:
    return Candidate(ANY, 0.0, 0, 0.0, *numbers)


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 5), max_size=40))
def test_the_front_is_what_nothing_dominates(points):
    points = [tuple(map(float, p)) for p in points]
    want = {
        p
        for p in points
        if not any(q != p and all(x <= y for x, y in zip(q, p, strict=True)) for q in points)
    }
    kept = front([candidate((p[0], int(p[1]), *p[2:])) for p in points])
    assert Counter(tuple(map(float, c[4:])) for c in kept) == Counter(want)
    assert [c.loss for c in kept] == sorted(c.loss for c in kept)


def test_the_best_fits_and_no_fitting_candidate_of_equal_quality_has_less_cache():
    best, budgets = PLAN.best, PLAN.budgets
    fitting = [
        c
        for c in PLAN.candidates
        if c.params <= 3e9 and c.memory <= 2.5e9 and c.choice.share >= budgets.min_attention
    ]
    least = min(c.loss for c in fitting)
    assert best in fitting and len(PLAN.fitting) == len(fitting)
    assert best.cache == min(c.cache for c in fitting if c.loss <= least + PLAN.margin)


def test_without_a_margin_the_best_has_the_least_loss():
    strict = plan(SOME, USE, PLAN.budgets, margin=0)
    assert strict.best.loss == min(c.loss for c in strict.fitting)


def test_every_reason_is_true():
    reasons = Counter()
    for c in PLAN.candidates:
        said = verdict(PLAN, c)
        kind = said.partition(":")[0] if ":" in said else " ".join(said.split()[:2])
        reasons[kind] += 1
        if said.startswith("over budget"):
            assert c.params > 3e9 or c.memory > 2.5e9
        elif said.startswith("in nothing better"):
            by = [a for a in PLAN.front if said.endswith(a.choice.label)]
            assert len(by) == 1 and dominates(by[0], c)
        elif "attend" in said:
            assert c.choice.share < PLAN.budgets.min_attention
        elif said.startswith("loss"):
            assert c.loss > min(x.loss for x in PLAN.front) + PLAN.margin
        elif said.startswith("as good"):
            assert c.cache >= PLAN.best.cache and c in PLAN.front
        else:
            assert c == PLAN.best if said == "the best" else c[4:] == PLAN.best[4:]
    assert len(reasons) >= 5, reasons


def test_neighbours_differ_in_one_choice_or_in_the_family():
    best = PLAN.best.choice
    found = neighbours(PLAN)
    for change, c, _ in found:
        if change in FAMILIES:
            assert c.choice.family == change != best.family
        else:
            fields = [k for k in vars(best) if getattr(best, k) != getattr(c.choice, k)]
            assert fields == [change.split()[0]] and fields[0] in STEPS
    assert {n.change for n in found} >= set(FAMILIES) - {best.family}


def test_attention_can_be_left_out_or_asked_for_everywhere():
    free = plan(SOME, USE, Budgets(params=3e9, min_attention=0))
    assert not free.best.choice.attention and free.best.cache < PLAN.best.cache
    full = plan(SOME, USE, Budgets(params=3e9, min_attention=1))
    assert full.best.choice.family in ("dense", "moe")


def test_any_budget_can_be_left_open():
    open_plan = plan(SOME, Use(train_tokens=1e11))
    assert len(open_plan.fitting) == len(open_plan.allowed)
    assert all(c.tokens == 1e11 for c in open_plan.candidates)


def test_when_nothing_fits_the_binding_budget_and_the_nearest_candidate_are_named():
    hopeless = Budgets(params=3e9, memory=1e8, seconds=1.0)
    with pytest.raises(ValueError, match="memory is the binding budget") as error:
        plan(SOME, USE, hopeless).best  # noqa: B018
    allowed = [measure(c, USE) for c in SOME if c.share >= 0.1]
    misses = {c.choice.label: max(c.params / 3e9, c.memory / 1e8, c.seconds) for c in allowed}
    name = min(misses, key=misses.__getitem__)
    assert name in str(error.value) and f"{misses[name]:.3g} times" in str(error.value)


def test_the_command_prints_a_plan_and_saves_the_best_as_a_config(tmp_path, capsys):
    argv = "plan --max-params 3e9 --memory 8e9 --context 32768 --train-flops 1e22 --chip phone"
    argv = [*argv.split(), "--weights", "int4", "--save", str(tmp_path)]
    argv += ["--families", "mamba2-shared", "mamba2-mlp"]
    main([*argv, "--json"])
    report = json.loads(capsys.readouterr().out)
    model = read_config(tmp_path)
    assert model.params() == report["best"]["params"] <= 3e9
    assert report["best"]["memory"] <= 8e9 and report["candidates"] > 1000
    assert report["best"]["config"] == json.loads((tmp_path / "config.json").read_text())
    main(["plan", "--families", "mamba2", "dense", "--min-attention", "0"])
    shown = capsys.readouterr().out
    assert "next to the best" in shown and "mamba2 " in shown and "moe" not in shown
    main(["cost", str(tmp_path)])
    assert f"{model.params():,}" in capsys.readouterr().out


def test_training_sends_the_weights_twice_round_the_slower_links(tmp_path, capsys):
    """By hand: 64 GPUs add up gradients and gather weights, two bytes each, by a ring.

    It crosses nodes of 8 H100, whose cards for the network, 50 GB/s each, are slower than NVLink.
    """
    argv = "plan --gpus 64 --days 30 --mfu 0.4 --families dense moe --top 3 --json"
    main(argv.split())
    report = json.loads(capsys.readouterr().out)
    tiers = {"near": {"alpha": 2e-6, "beta": 3e11}, "far": {"alpha": 1e-5, "beta": 2e10}}
    (links := tmp_path / "links.json").write_text(json.dumps({"tiers": tiers}))
    main([*argv.split(), "--links", str(links), "--sequences", "256"])
    slower = json.loads(capsys.readouterr().out)
    assert len(report["top"]) == 3 and report["best"]["training"] == report["top"][0]["training"]
    for one, other in zip(report["top"], slower["top"], strict=True):
        assert one["architecture"] == other["architecture"]
        sent, budget = 2 * 63 / 64 * 2 * one["params"], 64 * 989.4e12 * 0.4 * 30 * 86400
        fast, slow = sent / (8 * 50e9), sent / (8 * 2e10) + 2 * 63 * 1e-5
        math_seconds = budget * 64 * 4096 / one["tokens"] / (64 * 989.4e12 * 0.4)
        for run, wire, sequences in (
            (one["training"], fast, 64),
            (other["training"], slow, 256),
        ):
            assert math.isclose(run["steps"], one["tokens"] / (sequences * 4096))
            assert math.isclose(run["math"], math_seconds * sequences / 64)
            assert math.isclose(run["communication"], wire)
            assert math.isclose(run["hidden_days"], 30 * max(1, wire / run["math"]))
            assert math.isclose(run["waiting_days"], 30 * (1 + wire / run["math"]))
    main(argv.split()[:-1])
    assert "days, hidden" in capsys.readouterr().out


def test_what_links_a_chip_has_must_be_known_and_one_gpu_needs_none(capsys):
    argv = [
        "plan",
        "--families",
        "dense",
        "--top",
        "1",
        "--days",
        "9",
        "--train-chip",
        "m4max",
        "--gpus",
    ]
    main([*argv, "8"])
    shown = capsys.readouterr().out
    assert "no rate of m4max's links is on record; give --links" in shown
    assert "days, hidden" not in shown
    main([*argv, "1", "--json"])
    run = json.loads(capsys.readouterr().out)["best"]["training"]
    assert run["communication"] == 0 and math.isclose(run["waiting_days"], 9)


@pytest.mark.parametrize(
    "options, words",
    [
        ("--links x.json", "links is given without gpus, expected --gpus and --days too"),
        ("--gpus 8 --days 1 --links /none", "links is /none, which cannot be read"),
        ("--gpus 8 --days 1 --sequences 9", "global_batch is 9, expected a multiple of dp"),
        ("--families dense --memory 1e6", "no candidate fits: memory is the binding budget"),
        ("--min-attention 2", "min_attention is 2, expected a share, 0 to 1"),
        ("--families mamba3", "families has 'mamba3', expected only dense, moe"),
        ("--chip h900", "chip is 'h900', expected one of"),
        ("--gpus 8", "gpus is 8 and days is None, expected both or neither"),
        ("--train-flops 1e22 --train-tokens 1e9", "expected only one of them"),
        ("--train-flops -1", "train_flops is -1, expected a number above 0"),
        ("--context 0", "context is 0, expected a number above 0"),
        ("--weights int3", "weights is 'int3', expected one of"),
        ("--max-params 0", "params is 0, expected a number above 0"),
        ("--margin -1", "margin is -1, expected 0 or more"),
        ("--top 0", "top is 0, expected a whole number above 0"),
        ("--families dense --save /dev/null/x", "/dev/null/x: cannot be written"),
    ],
)
def test_mistakes_get_one_line(options, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(["plan", *options.split()])
    error = capsys.readouterr().err
    assert end.value.code == 2 and words in error and error.count("\n") == 1
