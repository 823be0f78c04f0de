"""Each sizing rule fires on the size it is about and on no good one, and names a source."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookbook_lib.calculators import presets, specs
from cookbook_lib.calculators.gemms import SMS, TILES, gemms
from cookbook_lib.calculators.lint import RULES, Setting, efficiency, lint
from cookbook_lib.calculators.runs import Run
from cookbook_lib.cli import main

ATTENTION = specs.Attention(d_model=4096, n_heads=32, n_kv_heads=8, head_dim=128)
MAMBA2 = specs.Mamba2(d_model=4096, ngroups=8)
CASES = {  # rule -> a block that it dislikes, the field, the value beside it that it likes
    "aligned": (specs.MLP(d_model=4096, d_ff=10922), "d_ff", 10944),
    "full lines": (specs.MLP(d_model=4096, d_ff=1000), "d_ff", 1024),
    "vocabulary": (specs.Head(d_model=4096, vocab=50257), "vocab", 50304),
    "head size": (ATTENTION.but(head_dim=80), "head_dim", 96),
    "convolution": (specs.ShortConv(d_model=100, d_conv=4), "d_model", 104),
    "scan": (MAMBA2.but(d_state=96), "d_state", 128),
    "strides": (specs.Mamba2(d_model=320, headdim=64), "nheads", 16),
    "copied heads": (ATTENTION.but(n_kv_heads=2), "n_kv_heads", 4),
    "groups": (MAMBA2.but(ngroups=1), "ngroups", 4),
    "tiles and waves": (specs.Linear(d_in=4096, d_out=2304), "d_out", 2560),
    "expert tokens": (specs.MoE(d_model=512, d_ff=512, n_experts=512, topk=8), "tokens", 8192),
}
SPLIT = ("copied heads", "groups")  # rules about tensor parallelism


def fired(rule, block, tokens=4096):
    tp = 4 if rule in SPLIT else 1
    return list(RULES[rule].check(block, Setting(tokens=tokens, tp=tp)))


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_fires_and_its_advice_silences_it(rule):
    block, field, better = CASES[rule]
    waste = next(w for w in fired(rule, block) if w.field == field)
    assert better in (waste.down, waste.up)
    assert waste.efficiency is None or 0 <= waste.efficiency < 1
    if rule == "expert tokens":
        assert not fired(rule, block, tokens=better)
    elif rule == "strides":
        assert not fired(rule, block.but(d_ssm=better * block.headdim))
    else:
        assert not [w for w in fired(rule, block.but(**{field: better})) if w.field == field]


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_fires_on_good_blocks_and_each_has_a_reason_and_a_source(rule):
    good = (
        specs.MLP(d_model=4096, d_ff=11008),
        specs.Head(d_model=4096, vocab=128256),
        ATTENTION.but(n_kv_heads=16),
        MAMBA2.but(d_model=4096),
        specs.MoE(d_model=4096, d_ff=14336, n_experts=8, topk=2),
    )
    assert not [w for block in good for w in fired(rule, block, tokens=16384)]
    assert len(RULES[rule].why) > 20 and len(RULES[rule].source) > 20


def test_an_unaligned_mlp_loses_what_was_measured():
    (waste,) = fired("aligned", specs.MLP(d_model=4096, d_ff=10922))
    assert round(waste.efficiency, 3) == round(272.73 / 398.38, 3)
    assert (waste.down, waste.up) == (10880, 10944)
    assert waste.flops == specs.MLP(d_model=4096, d_ff=10922, gated=False).flops(l=4096) * 3 // 2


def test_a_kernel_refuses_heads_beyond_256_states_beyond_256_and_five_taps():
    assert fired("head size", ATTENTION.but(head_dim=464))[0].efficiency == 0
    assert fired("scan", specs.Mamba1(d_model=64, d_state=300))[0].efficiency == 0
    assert fired("convolution", specs.Mamba1(d_model=64, d_conv=5))[0].efficiency == 0


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(1, 200))
def test_efficiency_is_the_best_tiles_share_of_the_time_that_all_sms_have(m, n, sms):
    (product,) = gemms(specs.Linear(d_in=64, d_out=n), Run(l=m))
    best = 0.0
    for rows, columns in TILES:
        left = math.ceil(m / rows) * math.ceil(n / columns)
        waves = 0
        while left > 0:
            left, waves = left - sms, waves + 1
        best = max(best, m * n / (waves * sms * rows * columns))
    assert 0 < product.efficiency(sms) <= 1
    assert math.isclose(product.efficiency(sms), best)


def test_the_guides_example_of_a_wave_comes_out():
    """DU-09799-001, section 3.2: one tile more than the 108 SMs of an A100 needs a second wave."""
    whole = gemms(specs.Linear(d_in=4096, d_out=128 * 12), Run(l=256 * 9))[0]
    one_more = gemms(specs.Linear(d_in=4096, d_out=128 * 109), Run(l=128))[0]
    assert SMS["a100"] == 108 and whole.efficiency(108) == 1
    assert math.isclose(one_more.efficiency(108), 109 / 216)


@pytest.mark.parametrize("name", presets.names())
def test_the_products_of_a_model_are_its_matmuls_with_weights(name):
    for _, block in dict(presets.preset(name).layout).items():
        rows = [r for r in block.costs(l=1024) if r.params and r.kind == "matmul"]
        rows = [r for r in rows if r.component != "gate"]  # one number for each token: no matrix
        found = gemms(block, Run(l=1024))
        assert [g.op for g in found] == [r.op for r in rows]
        assert sum(g.flops for g in found) == sum(r.flops for r in rows)


def test_more_ranks_than_anyone_has_are_refused_at_once():
    found = lint(presets.preset("llama-2-7b"), Setting(tokens=8192, tp=10**18))
    assert {(f.rule, f.down) for f in found if f.efficiency == 0} == {
        ("tensor parallel", 32),  # heads
        ("tensor parallel", 688),  # 11008 / 16
    }


def test_published_models_have_the_wastes_that_they_are_known_for():
    def rules(name, **where):
        return {(f.rule, f.field) for f in lint(presets.preset(name), Setting(**where))}

    assert rules("llama-2-7b", tokens=8192) == set()
    assert ("head size", "head_dim") in rules("zamba-7b-v1", tokens=8192)  # 464
    assert ("vocabulary", "vocab") in rules("mamba-130m", tokens=8192)  # 50280
    assert ("groups", "ngroups") in rules("zamba2-1.2b", tokens=8192, tp=8)
    assert ("copied heads", "kv_lora_rank") in rules("deepseek-v3", tokens=8192, tp=8)
    assert ("copied heads", "kv_lora_rank") not in rules("deepseek-v3", tokens=8192)
    assert ("tensor parallel", "tp") in rules("zamba-7b-v1", tokens=8192, tp=8)  # 2 heads
    assert ("copied heads", "n_kv_heads") not in rules("llama-3.1-8b", tokens=8192, tp=8)


def test_values_are_those_of_the_whole_model_also_where_it_is_split():
    found = lint(presets.preset("blackmamba-2.8b"), Setting(tokens=8192, tp=8))
    (mlp,) = [f for f in found if f.rule == "aligned" and f.field == "d_ff"]
    assert (mlp.value, mlp.down, mlp.up) == (3872, 3584, 4096)


@pytest.mark.parametrize("name", presets.names())
def test_no_model_is_better_than_perfect(name):
    assert 0.5 < efficiency(presets.preset(name), Setting(tokens=8192)) <= 1


def test_the_command_prints_findings_and_says_when_there_are_none(capsys):
    main(["lint", "zamba2-7b", "--tp", "8", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["findings"][0]["efficiency"] == 0 and 0 < report["efficiency"] < 1
    assert all(f["source"] and f["why"] for f in report["findings"])
    main(["lint", "zamba2-7b"])
    shown = capsys.readouterr().out
    assert "head_dim" in shown and "flash_api.cpp" in shown
    main(["lint", "llama-2-7b"])
    assert "nothing found" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, words",
    [
        ("llama-2-7b --chip phone", "chip is 'phone', expected one of h200, h100, a100"),
        ("llama-2-7b --tp 0", "tp is 0, expected a whole number above 0"),
        ("llama-2-7b --tokens -1", "tokens is -1"),
        ("llama-9", "no preset is called 'llama-9'"),
    ],
)
def test_mistakes_get_one_line(options, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(["lint", *options.split()])
    error = capsys.readouterr().err
    assert end.value.code == 2 and words in error and error.count("\n") == 1
