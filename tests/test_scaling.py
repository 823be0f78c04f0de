"""The scaling law's best sizes are minima found by search, and those that were published."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookbook_lib.calculators.chips import CHIPS
from cookbook_lib.calculators.scaling import LAWS, budget, optimum, reference, with_inference
from cookbook_lib.cli import main

laws = st.sampled_from(list(LAWS.values()))
PUBLISHED = [  # arXiv:2401.00448: parameters, tokens at inference, then what the paper prints
    (30e9, 1e13, {"params": "13.6", "tokens": 2.84, "saved": "28"}),
    (7e9, 1e11, {"params": "6.0", "tokens": 1.18}),
    (13e9, 2e12, {"params": "7.0", "saved": "17", "flops": "1.7e+22"}),
    (70e9, 1e13, {"params": "41.6", "total": "7.92", "reference": "4.26", "saved": "12"}),
]


@pytest.mark.parametrize("params, inference, printed", PUBLISHED)
def test_the_published_cases_come_out_as_printed(params, inference, printed):
    law = LAWS["sardana"]
    before = reference(law, params)
    after = with_inference(law, before.loss, inference)
    ours = {
        "params": f"{after.params / 1e9:.1f}",
        "tokens": round(after.tokens / before.tokens, 2),
        "total": f"{after.tokens / 1e12:.2f}",
        "saved": f"{100 * (1 - after.flops(inference) / before.flops(inference)):.0f}",
        "flops": f"{before.flops(inference) - after.flops(inference):.1e}",
    }
    if "reference" in printed:  # its own rounding: 4.255
        assert abs(before.tokens / 1e12 - float(printed.pop("reference"))) < 0.01
    assert {k: ours[k] for k in printed} == printed


@given(laws, st.floats(18, 27), st.floats(-3, 3))
def test_no_other_size_of_the_same_training_flops_has_a_lower_loss(law, exponent, shift):
    best = optimum(law, 10**exponent)
    assert math.isclose(best.flops(), 10**exponent, rel_tol=1e-9)
    other = best.params * 10**shift
    assert law.loss(other, 10**exponent / 6 / other) >= best.loss - 1e-12


@given(laws, st.floats(7, 12), st.floats(6, 16), st.floats(-2, 2))
def test_no_other_size_of_the_same_loss_takes_fewer_flops_over_its_life(law, n, d, shift):
    loss, inference = reference(law, 10**n).loss, 10**d
    best = with_inference(law, loss, inference)
    assert math.isclose(law.loss(best.params, best.tokens), loss, rel_tol=1e-9)
    other = best.params * 10**shift
    life = other * (6 * law.tokens(other, loss) + 2 * inference)
    assert life >= best.flops(inference) * (1 - 1e-9)


@given(laws, st.floats(8, 12))
def test_without_inference_the_reference_is_the_best_use_of_its_own_flops(law, exponent):
    size = reference(law, 10**exponent)
    for same in (optimum(law, size.flops()), with_inference(law, size.loss, 0)):
        assert math.isclose(same.params, size.params, rel_tol=1e-6)
        assert math.isclose(same.tokens, size.tokens, rel_tol=1e-6)


def test_the_repeated_fit_gives_back_chinchilla_and_the_printed_digits_do_not():
    chinchilla = 6 * 70e9 * 1.4e12  # arXiv:2203.15556: 70 B parameters, 1.4 T tokens
    assert 15 < optimum(LAWS["besiroglu"], chinchilla).tokens_per_param < 25
    assert optimum(LAWS["hoffmann"], chinchilla).tokens_per_param > 80


def test_a_loss_that_a_small_model_cannot_reach_takes_infinitely_many_tokens():
    law = LAWS["besiroglu"]
    assert law.tokens(1e8, law.E + law.A / 1e8**law.alpha) == math.inf
    assert law.tokens(2e8, law.E + law.A / 1e8**law.alpha) < math.inf


def test_a_budget_is_chips_times_days_times_what_is_reached():
    assert budget(CHIPS["a100"], 2, 0.5, 0.25) == 2 * 312e12 * 0.25 * 43200


def test_the_command_prints_what_the_calculator_says(capsys):
    argv = "scaling --gpus 64 --days 60 --mfu 0.4 --inference-tokens 1e12 --json"
    main(argv.split())
    report = json.loads(capsys.readouterr().out)
    flops = budget(CHIPS["h100"], 64, 60, 0.4)
    assert report["flops"] == flops and len(report["laws"]) == len(LAWS)
    for row in report["laws"]:
        best = optimum(LAWS[row["law"]], flops)
        assert row["training"]["params"] == best.params
        assert row["life"]["params"] == with_inference(LAWS[row["law"]], best.loss, 1e12).params
    main(["scaling", "--reference-params", "30e9", "--inference-tokens", "1e13"])
    assert "13.61 G" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, words",
    [
        ("", "no budget: give flops, or gpus and days, or reference_params"),
        ("--flops -1", "flops is -1, expected a number above 0"),
        ("--flops nan", "flops is nan, expected a number above 0"),
        ("--gpus 64", "gpus is 64 and days is None, expected both or neither"),
        ("--gpus 0 --days 3", "gpus is 0, expected a number above 0"),
        ("--gpus 2 --days 3 --mfu 40", "mfu is 40, expected a share of the peak"),
        ("--flops 1e22 --gpus 2 --days 3", "flops and gpus are both given"),
        ("--flops 1e22 --inference-tokens -4", "inference_tokens is -4, expected 0 or more"),
        ("--flops 1e22 --chip h900", "chip is 'h900', expected one of b200, h200, h100"),
        ("--reference-params 0", "reference_params is 0, expected a number of parameters"),
    ],
)
def test_mistakes_get_one_line(options, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(["scaling", *options.split()])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
