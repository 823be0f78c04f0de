"""A plan's rates, mixtures and counts are what its phases say, and published plans have the numbers
that their sources give."""

import json
from math import exp, isclose, log, pi, sin

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cookbook_lib.calculators.chips import chip
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.calculators.presets import preset
from cookbook_lib.calculators.step_time import train_report
from cookbook_lib.cli import main
from cookbook_lib.training import plans
from cookbook_lib.training.phase_report import curve, phase_report
from cookbook_lib.training.phases import Phase, Plan, replay
from cookbook_lib.training.plan_warnings import warnings
from cookbook_lib.training.schedules import SHAPES, e_folds, half_life, inverse_sqrt

STEADY = settings(max_examples=40, deadline=None, derandomize=True, database=None)
unit = st.floats(0, 1)
rates = st.floats(1e-8, 1)


@STEADY
@given(u=unit, start=rates, end=rates)
def test_every_shape_goes_from_its_start_to_its_end_and_stays_between(u, start, end):
    low, high = min(start, end), max(start, end)
    near = 1e-12 * high
    for name, shape in SHAPES.items():
        assert shape(0, start, end) == pytest.approx(start, abs=near)
        assert shape(1, start, end) == pytest.approx(start if name == "constant" else end, abs=near)
        assert low - near <= shape(u, start, end) <= high + near


@STEADY
@given(u=unit, start=rates, end=rates)
def test_shapes_by_other_formulas(u, start, end):
    assert isclose(SHAPES["linear"](u, start, end), (1 - u) * start + u * end, rel_tol=1e-9)
    by_sine = start + (end - start) * sin(pi * u / 2) ** 2
    assert isclose(SHAPES["cosine"](u, start, end), by_sine, rel_tol=1e-6)
    by_logs = exp((1 - u) * log(start) + u * log(end))
    assert isclose(SHAPES["exponential"](u, start, end), by_logs, rel_tol=1e-6)
    by_root = end + (start - end) * (1 - u**0.5)
    assert isclose(SHAPES["1-sqrt"](u, start, end), by_root, rel_tol=1e-6, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("decay", "other"),
    [
        ("linear", lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.1, 100)),
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 100, 0.1)),
        ("exponential", lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.1**0.01)),
    ],
)
def test_rates_are_those_of_pytorch(decay, other):
    phase = Phase(name="p", tokens=100, lr=1.0, end=0.1, decay=decay)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = other(optimizer)
    for step in range(101):
        assert isclose(phase.rate(step), scheduler.get_last_lr()[0], rel_tol=1e-6)
        optimizer.step()
        scheduler.step()


def test_a_warm_up_is_a_line():
    phase = Phase(name="p", tokens=100, lr=1.0, end=0.0, decay="linear", warmup=10)
    assert [phase.rate(t) for t in (0, 5, 10, 55, 100)] == [0, 0.5, 1, 0.5, 0]
    again = Phase(name="p", tokens=100, lr=1.0, warmup=10, warmup_from=0.4)
    assert isclose(again.rate(5), 0.7) and again.rate(50) == 1


def test_a_half_life_halves_and_ten_percent_take_as_long_as_minicpm_says():
    """10% of the peak after 16,610 steps at a half-life of 5000, arXiv:2404.06395."""
    assert half_life(5000, 5000) == 0.5
    assert half_life(16_609, 5000) > 0.1 > half_life(16_610, 5000)
    phase = Phase(name="p", tokens=1e5, lr=0.01, decay="half-life", half_life=5000)
    assert isclose(phase.rate(15_000), 0.01 / 8) and phase.last == phase.rate(1e5)


def test_an_inverse_square_root_is_the_transformers():
    """arXiv:1706.03762, section 5.3: min(step^-0.5, step * warmup^-1.5), over its peak."""
    phase = Phase(name="p", tokens=1e5, lr=1.0, decay="inverse-sqrt", warmup=4000)
    for step in (1, 2000, 4000, 16_000, 1e5):
        paper = min(step**-0.5, step * 4000**-1.5) / 4000**-0.5
        assert isclose(phase.rate(step), paper) and isclose(inverse_sqrt(step, 4000), paper)
    assert phase.rate(16_000) == 0.5


def test_a_cosine_that_is_cut_off_ends_on_its_way():
    whole = Phase(name="p", tokens=100, lr=1.0, end=0.0, decay="cosine")
    cut = Phase(name="p", tokens=50, lr=1.0, end=0.0, decay="cosine", decay_tokens=100)
    assert cut.last == whole.rate(50) == 0.5


@STEADY
@given(st.lists(st.floats(1, 1e12), min_size=1, max_size=4), unit)
def test_a_plan_is_its_phases_one_after_the_other(tokens, part):
    phases = tuple(
        Phase(name=str(i), tokens=n, lr=1 / (i + 1), mix={f"s{i}": 2, "all": 1})
        for i, n in enumerate(tokens)
    )
    plan = Plan(name="plan", phases=phases, available={"all": 10.0})
    start, phase = plan.at(part * plan.tokens)
    assert start <= part * plan.tokens <= (start + phase.tokens) * (1 + 1e-9)
    assert plan.lr(part * plan.tokens) == phase.lr
    assert isclose(sum(plan.mix(part * plan.tokens).values()), 1)
    assert isclose(sum(plan.drawn().values()), plan.tokens)
    assert isclose(plan.drawn()["all"], plan.tokens / 3)
    assert isclose(plan.epochs()["all"], plan.tokens / 30)


def test_replay_mixes_whole_mixtures():
    mixed = replay({"web": 3, "code": 1}, {"new": 10}, 0.6)
    assert mixed == pytest.approx({"web": 0.45, "code": 0.15, "new": 0.4})
    assert replay({"web": 1}, {"new": 1}, 0) == {"new": 1} and replay({"a": 1}, {"b": 1}, 1) == {
        "a": 1
    }
    with pytest.raises(ValueError, match="share is 1.5, expected a part of the mixture"):
        replay({"a": 1}, {"b": 1}, 1.5)


@pytest.mark.parametrize("name", plans.names())
def test_every_published_plan_is_read_and_names_a_source_for_each_number(name):
    plan = plans.resolve(name)
    assert plan.source and plan.phases[-1].anneal
    tokens, drawn = curve(plan, 10)
    assert drawn == pytest.approx([plan.lr(t) for t in tokens], abs=1.1 * plan.peak) and drawn
    for line in (plans.FOLDER / f"{name}.toml").read_text().splitlines():
        key = line.partition("=")[0].strip()
        if key in ("tokens", "lr", "half_life", "decay_tokens", "warmup", "batch"):
            assert "#" in line, f"{name}: {line} has no source"


def test_the_published_numbers():
    zamba = plans.resolve("zamba-7b")
    assert zamba.tokens == 1e12 and [p.last for p in zamba.phases] == [7.5e-5, 1e-7]
    report = phase_report(zamba)["phases"][1]
    assert f"{report['rate_on_entry']:.0%}" == "73%" and f"{report['share']:.1%}" == "5.0%"
    assert f"{report['e_folds']:.1f}" == "7.0" == f"{e_folds(1.1e-4, 1e-7):.1f}"
    advice = phase_report(plans.resolve("zcookbook"))["phases"][1]
    assert f"{advice['rate_on_entry']:.0%}" == "75%" and f"{advice['share']:.1%}" == "10.7%"
    assert f"{phase_report(plans.resolve('zamba2-2.7b'))['phases'][1]['share']:.1%}" == "3.2%"
    llama = plans.resolve("llama-3.1-405b")
    assert llama.tokens == pytest.approx(15.6e12, rel=1e-5) and llama.phases[1].last == 0


def test_the_cosine_of_olmo_2_ends_where_its_second_stage_begins():
    """Two configs, written apart: the one's cosine against the other's learning rate."""
    first, second = plans.resolve("olmo-2-7b").phases
    assert first.last == pytest.approx(second.lr, rel=0.003)
    assert first.tokens == pytest.approx(928_646 * 1024 * 4096, rel=1e-4)
    assert f"{first.rate(928_000 * 1024 * 4096):.4e}" == f"{second.lr:.4e}"  # the round step


def test_warnings():
    old = Phase(name="old", tokens=100, lr=1.0, end=0.5, decay="linear", mix={"web": 1})
    good = Phase(
        name="new",
        tokens=10,
        lr=0.75,
        end=0.0,
        decay="linear",
        warmup=1,
        mix={"web": 0.6, "new": 0.4},
        anneal=True,
    )
    assert warnings(Plan(name="p", phases=(old, good), available={"new": 2.0})) == []
    thrice = warnings(Plan(name="p", phases=(old, good), available={"new": 4 / 3, "web": 1.0}))
    assert thrice == [
        "new is read 3 times: more than 2 epochs of annealing data are reported to give little"
    ]
    bad = Phase(name="bad", tokens=10, lr=0.8, mix={"new": 1}, anneal=True)
    jump, alone, high = warnings(Plan(name="p", phases=(old, bad)))
    assert jump == "bad jumps from 0.5 to 0.8, without a warm-up"
    assert "replays nothing" in alone and "ends at 80% of its peak" in high


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tokens": 0}, "tokens of p is 0, expected a number above 0"),
        ({"lr": -1.0}, "lr of p is -1.0, expected a number above 0"),
        ({"warmup": 200}, "warmup of p is 200, expected at most 100"),
        ({"decay": "step"}, "decay of p is 'step', expected one of constant"),
        ({"decay": "linear"}, "end of p is missing: decay 'linear' goes there"),
        ({"end": 0.1}, "end of p is 0.1 with decay 'constant', which has its own end"),
        ({"decay": "exponential", "end": 0.0}, "end of p is 0, which 'exponential' never reaches"),
        ({"decay": "half-life"}, "half_life of p is None with decay 'half-life'"),
        ({"half_life": 1.0}, "half_life of p is 1.0 with decay 'constant'"),
        ({"decay": "inverse-sqrt"}, "warmup of p is 0, and 'inverse-sqrt' is counted from it"),
        ({"mix": {}}, "mix of p is {}, expected weights"),
        ({"mix": {"a": -1}}, "mix of p is {'a': -1}, expected weights"),
        ({"mix": {"a": 0}}, "mix of p is {'a': 0}, expected weights"),
        ({"decay": "cosine", "end": 0.0, "decay_tokens": 50}, "tokens of p is 100, expected at m"),
    ],
)
def test_mistakes_in_a_phase_get_one_line(fields, words):
    with pytest.raises(ValueError) as caught:
        Phase(**{"name": "p", "tokens": 100, "lr": 1.0} | fields)
    assert words in str(caught.value) and "\n" not in str(caught.value)


GOOD = "[[phases]]\ntokens = 100\nlr = 1.0\nmix = { a = 1 }\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tokens = ", "is not TOML"),
        ("", "phases of plan is empty"),
        ("phases = 3", "phases of plan is no list of tables"),
        ("[[phases]]\nlr = 1.0", "phase 1 of plan has no tokens"),
        (GOOD + "rate = 1", "phase 1 of plan has 'rate', expected one of name, tokens"),
        (GOOD + "anneal = 1", "anneal of phase 1 of plan is 1, expected true or false"),
        (GOOD + "warmup = true", "warmup of phase 1 of plan is True, expected a number"),
        (
            '[[phases]]\ntokens = "1e9"\nlr = 1.0',
            "tokens of phase 1 of plan is '1e9', expected a nu",
        ),
        ("[[phases]]\ntokens = 1\nlr = 1\nmix = { a = 'x' }", "expected a table of numbers"),
        ("color = 1\n" + GOOD, "plan has 'color', expected one of name"),
        ("[available]\na = 0\n" + GOOD, "available of a is 0, expected a number above 0"),
    ],
)
def test_mistakes_in_a_file_get_one_line(text, words, tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        plans.resolve(str(path))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_plan_in_a_file_is_the_plan(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + "\n[available]\na = 50\n")
    plan = plans.resolve(str(path))
    assert plan.name == "mine" and plan.epochs() == {"a": 2} and plan.lr(50) == 1


def test_the_command_for_programs_and_for_people(capsys, tmp_path):
    run = ["phases", "zamba-7b", "--model", "zamba-7b-v1", "--chip", "h100", "--gpus", "128"]
    picture = tmp_path / "plan.svg"
    main([*run, "--mfu", "0.2", "--json", "--plot", str(picture)])
    report = json.loads(capsys.readouterr().out)
    model, how = preset("zamba-7b-v1"), Parallel(gpus=128, zero=1)
    flops = model.step_flops(l=4096, attention="causal") / 4096 * 1e12
    assert report["flops"] == pytest.approx(flops)
    assert report["seconds"] == pytest.approx(flops / (128 * 0.2 * chip("h100").flops))
    whole = train_report(model, chip("h100"), how, 4096, 10**12, mfu=0.2)
    assert report["days"] == pytest.approx(whole["days"])
    assert sum(p["days"] for p in report["phases"]) == pytest.approx(report["days"])
    assert picture.read_text().startswith("<?xml")
    main(run)
    said = capsys.readouterr().out
    assert "73%" in said and "annealing jumps from 7.5e-05 to 0.00011" in said
    main(["phases", "zcookbook"])
    assert "560,000 iterations" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("nope",), "plan is 'nope', expected a TOML file or one of"),
        (("zamba-7b", "--mfu", "0.3"), "mfu is 0.3, which needs --model"),
        (("zamba-7b", "--chip", "h100"), "chip is h100, which needs --model"),
        (("zamba-7b", "--model", "zamba-7b-v1", "--mfu", "0.3"), "which needs --chip"),
        (("zcookbook", "--model", "zamba-7b-v1"), "counts iterations, of which FLOPs cannot"),
        (
            ("zamba-7b", "--plot", "x.doc"),
            "plot is x.doc, expected a name that ends in .avif, .eps",
        ),
        (("zamba-7b", "--plot", "/nowhere/x.png"), "cannot be written: No such file"),
        (("zamba-7b", "--length", "0"), "length is 0, expected at least 1"),
        (("zamba-7b", "--model", "zamba-7b-v1", "--chip", "h99"), "h99"),
    ],
)
def test_mistakes_on_the_command_line_get_one_line_and_exit_code_2(argv, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(["phases", *argv])
    said = capsys.readouterr().err
    assert end.value.code == 2 and words in said and said.count("\n") == 1
