"""Contenders are of one size and differ in what their names say; runs of a seed read the same text;
a stopped command goes on; and verdicts are what the intervals say."""

import argparse
import inspect
import textwrap
from statistics import mean

import numpy as np
import pytest
import torch

from cookbook_lib.calculators import specs
from cookbook_lib.cli import main
from cookbook_lib.data import python_corpus as corpora
from cookbook_lib.results import committed, read
from cookbook_lib.training import comparison_runs as runs
from cookbook_lib.training.comparison_claims import (
    LITTLE,
    ablation_claims,
    ablations,
    architecture_claims,
    architectures,
)
from cookbook_lib.training.comparisons import Case, Scale, best_rate, compared, swept_cases, trained
from cookbook_lib.training.contenders import (
    ABLATIONS,
    ARCHITECTURES,
    CLOSE,
    CONTENDERS,
    LENGTH,
    hybrid,
    sized,
    transformer,
    width,
)
from cookbook_lib.training.exam import Exam
from cookbook_lib.training.paired import FAILS, HOLDS, UNSEEN

SMALL = Scale(steps=2, batch=2, every=1, seen=2, asked=3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two modules of this Python, as all there is of each source."""
    texts = [(module.__name__, inspect.getsource(module)) for module in (argparse, textwrap)]
    names = ("prose", "code", "prose-held-out", "code-held-out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpora, "documents", lambda: dict.fromkeys(names, texts))
        return corpora.python_corpus(tmp_path_factory.mktemp("corpus"), 1024)


def case(name: str, equal: str = "tokens", seed: int = 0) -> Case:
    return Case(experiment="a test", contender=CONTENDERS[name], equal=equal, seed=seed, rate=0.01)


@pytest.mark.parametrize("contender", CONTENDERS.values(), ids=lambda c: c.name)
def test_a_model_holds_what_its_spec_says_and_as_much_as_mamba2(contender):
    model, params = contender.make(), CONTENDERS["Mamba-2"].spec.params()
    assert sum(p.numel() for p in model.parameters()) == contender.spec.params()
    if contender.level:
        assert abs(contender.spec.params() - params) <= CLOSE * params
    else:
        assert contender.spec.params() > (1 + CLOSE) * params


def test_a_width_is_the_best_of_all():
    for shape, params in ((transformer, 300_000), (hybrid(), 333_333)):
        found = width(sized(shape, params))
        apart = {w: abs(shape(w).params() - params) for w in range(found - 3, found + 4)}
        assert found == min(apart, key=lambda w: apart[w])
    with pytest.raises(ValueError, match="params is 1000, expected about"):
        sized(transformer, 1000)


def test_ablations_change_what_they_name():
    spec = {name: c.spec for name, c in CONTENDERS.items()}
    whole = spec["hybrid"]

    def kinds(name: str, kind: type) -> list:
        return [block for _, block in spec[name].layout if isinstance(block, kind)]

    shares = {
        "attention in 1 of 6": 1,
        "hybrid": 2,
        "attention in 1 of 2": 3,
        "attention in all": 6,
    }
    for name, uses in shares.items():
        assert len(kinds(name, specs.Attention)) == uses and len(spec[name].pattern) == 6
        assert len(kinds(name, specs.Mamba2)) == 6
    assert spec["two blocks"].flops(l=LENGTH) == whole.flops(l=LENGTH)
    attention = {name for name in whole.weights() if "self_attn" in name}
    own = {name for name in spec["two blocks"].weights() if "self_attn" in name}
    assert len(own) == 2 * len(attention)
    assert {a.n_heads for a in kinds("two half blocks", specs.Attention)} == {2}
    assert {a.d_x for a in kinds("no concatenation", specs.Attention)} == {64}
    assert {a.d_x for a in kinds("hybrid", specs.Attention)} == {128}
    assert kinds("hybrid", specs.LoRA) and not kinds("no LoRA", specs.LoRA)
    assert not kinds("Mamba-2", specs.Attention) and not kinds("transformer", specs.Mamba2)


def test_without_concatenation_the_block_reads_the_stream_alone():
    blind, whole = (CONTENDERS[name].make() for name in ("no concatenation", "hybrid"))
    x, x0 = torch.ones(1, 2, 64), torch.zeros(1, 2, 64)
    assert torch.equal(blind.read(x, x0), x)
    assert torch.equal(whole.read(x, x0), torch.cat([x, x0], -1))


def test_equal_flops_are_equal_to_half_a_step():
    scale = Scale()
    budget = scale.steps * CONTENDERS["hybrid"].flops_per_token
    for contender in ARCHITECTURES:
        steps = case(contender.name, "FLOPs").steps(scale)
        assert abs(steps * contender.flops_per_token - budget) <= contender.flops_per_token / 2
        assert case(contender.name).steps(scale) == scale.steps


def test_runs_of_a_seed_read_the_same_text(corpus):
    drawn = {
        (name, seed): case(name, seed=seed).run(SMALL, corpus).sampler.draw(4).tokens
        for name in ("transformer", "Mamba-2")
        for seed in (0, 1)
    }
    assert np.array_equal(drawn["transformer", 0], drawn["Mamba-2", 0])
    assert not np.array_equal(drawn["transformer", 0], drawn["transformer", 1])


def test_a_row_tells_the_run(corpus):
    torch.set_num_threads(1)
    row = trained(case("transformer", "FLOPs"), SMALL, corpus)
    again = case("transformer", "FLOPs").run(SMALL, corpus)
    losses = [again.advance()["loss"] for _ in range(again.steps)]
    assert row["losses"] == pytest.approx(losses, abs=1e-4) and len(losses) == 3
    assert row["tokens"] == 3 * 2 * LENGTH and [p["tokens"] for p in row["curve"]] == [256, 512]
    whole = Exam(corpus, LENGTH, SMALL.asked).losses(again.model)
    assert {source: row[source] for source in whole} == pytest.approx(whole, rel=1e-5)


def test_a_stopped_command_goes_on_where_it_was(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs, "python_corpus", lambda folder, vocab: corpus)
    monkeypatch.setattr(runs, "Scale", lambda: SMALL)
    monkeypatch.setattr("cookbook_lib.training.comparisons.RATES", (0.001, 0.01))
    out = tmp_path / "rows.jsonl"
    asked = ["train", "compare", "--out", str(out), "--only", "transformer", "--seeds", "1"]
    main([*asked, "--steps", "2"])
    first = read(out)
    assert [(r["experiment"], r["equal"], r["seed"]) for r in first] == [
        ("rates", "tokens", 1000),
        ("rates", "tokens", 1000),
        ("architectures", "tokens", 0),
        ("architectures", "FLOPs", 0),
    ]
    assert first[2]["rate"] == best_rate(first, CONTENDERS["transformer"])
    assert "architectures ('transformer', 'tokens', 0, None): prose" in capsys.readouterr().err
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:2]) + lines[3] + lines[2][:40])  # killed while it wrote a line
    main([*asked, "--steps", "2"])
    other = ("date", "tokens_per_cpu_second")
    for a, b in zip((*first[:2], first[3], first[2]), read(out), strict=True):
        assert {k: v for k, v in a.items() if k not in other}.items() <= b.items()
    with pytest.raises(SystemExit):
        main([*asked, "--sweep", "LSTM"])
    assert "sweep is 'LSTM', expected one of hybrid, transformer" in capsys.readouterr().err
    with pytest.raises(ValueError, match="seeds is -1, expected at least 0"):
        runs.train_compare(out, seeds=-1)


def invented(losses: dict[tuple[str, str], float]) -> list[dict]:
    """Rows of three seeds that differ by as much as the models, but equally in all of them."""
    sweep = [{"experiment": "rates", "model": "hybrid", "equal": "tokens", "seed": 1000}]
    cases = [c for seed in range(3) for c in compared(list(CONTENDERS.values()), seed, RATED)]
    return sweep + [
        {
            "experiment": c.experiment,
            "model": c.contender.name,
            "equal": c.equal,
            "seed": c.seed,
            "prose": losses.get((c.contender.name, c.equal), 4.0) + c.seed + noise,
            "code": losses.get((c.contender.name, c.equal), 4.0) + c.seed - noise,
        }
        for i, c in enumerate(cases)
        for noise in [1e-3 * ((5 * i) % 7)]
    ]


RATED = [
    {"experiment": "rates", "model": c.name, "rate": rate, "prose": loss, "code": loss}
    for c in ARCHITECTURES
    for rate, loss in ((0.1, 2.0), (0.2, 1.0), (0.3, 3.0))
]


def test_claims_say_what_the_rows_say():
    rows = invented(
        {
            ("transformer", "tokens"): 4.2,
            ("Mamba-2", "tokens"): 4.1,
            ("transformer", "FLOPs"): 3.9,
            ("two blocks", "tokens"): 4.0 * (1 - 3 * LITTLE),
            ("attention in all", "tokens"): 4.0 * (1 + LITTLE),
            ("no LoRA", "tokens"): 3.9,
        }
    )
    said = architecture_claims(architectures(rows))
    assert [claim.verdict for claim in said] == [HOLDS, HOLDS, HOLDS, FAILS, UNSEEN, FAILS]
    assert said[0].parts[0].difference.mean == pytest.approx(-0.2)
    said = ablation_claims(ablations(rows))
    assert [claim.verdict for claim in said] == [HOLDS, HOLDS, UNSEEN, FAILS, UNSEEN, FAILS]


def test_seeds_without_all_runs_do_not_count():
    rows = invented({})
    cut = [row for row in rows if (row["model"], row["seed"]) != ("no LoRA", 1)]
    none = [row for row in rows if row["model"] != "no LoRA"]
    assert len(ablation_claims(ablations(none))) == len(ablation_claims(ablations(rows))) - 1
    assert ablations(cut).seeds == [0, 2] and architectures(cut).seeds == [0, 1, 2]
    assert {p.difference.n for claim in ablation_claims(ablations(cut)) for p in claim.parts} == {2}


def test_the_best_rate_is_that_of_the_sweep_and_the_ablations_take_the_hybrids():
    assert {best_rate(RATED, c) for c in (*ARCHITECTURES, *ABLATIONS)} == {0.2}
    lower = {"prose": 0.0, "code": 0.0}
    apart = [r | lower if (r["model"], r["rate"]) == ("hybrid", 0.3) else r for r in RATED]
    assert best_rate(apart, CONTENDERS["no LoRA"]) == 0.3
    assert best_rate(apart, CONTENDERS["transformer"]) == 0.2
    own = [{"experiment": "rates", "model": "no LoRA", "rate": 0.1, "prose": 0.0, "code": 0.0}]
    assert best_rate([*apart, *own], CONTENDERS["no LoRA"]) == 0.1
    assert {c.seed for c in swept_cases(ARCHITECTURES)} == {1000}


def test_the_committed_rows_are_of_these_contenders():
    rows = committed("training")
    assert rows
    for row in rows:
        spec = CONTENDERS[row["model"]].spec
        assert row["spec"] == {
            "pattern": spec.pattern,
            "d_ff": width(spec),
            "params": spec.params(),
        }
        assert row["flops_per_token"] == CONTENDERS[row["model"]].flops_per_token
        assert mean(row["losses"][-10:]) < mean(row["losses"][:10])
        assert row["scale"] == vars(Scale()) and not row["commit"].endswith("dirty")
        steps = case(row["model"], row["equal"], row["seed"]).steps(Scale())
        assert row["tokens"] == steps * Scale().step_tokens and len(row["losses"]) == steps
