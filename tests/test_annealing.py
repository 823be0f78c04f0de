"""A variant that goes on from a shared phase is, to the bit, the run that had its plan all along;
and verdicts are what the intervals say."""

from math import gamma, pi, sqrt
from statistics import mean, stdev

import pytest
import torch

from cookbook_lib.cli import main
from cookbook_lib.data import python_corpus as corpora
from cookbook_lib.results import read
from cookbook_lib.training.annealing import VARIANTS, Scale, Variant
from cookbook_lib.training.annealing_runs import begun, train_anneal, variants
from cookbook_lib.training.claims import claims
from cookbook_lib.training.exam import Exam
from cookbook_lib.training.paired import FAILS, HOLDS, UNSEEN, T, every, paired

SMALL = Scale(steps=10, batch=2, length=16, every=4, asked=4, kept=2, vocab=300, d_model=32)
NAMED = {variant.name: variant for variant in VARIANTS}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A few documents of this Python."""
    found = {name: texts[:20] for name, texts in corpora.documents().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpora, "documents", lambda: found)
        return corpora.python_corpus(tmp_path_factory.mktemp("corpus"), SMALL.vocab)


@pytest.mark.parametrize("name", ["constant", "decay 20%", "cosine", "re-warm", "replay 30%"])
def test_a_branch_is_the_run_that_had_its_plan_all_along(name, corpus):
    torch.set_num_threads(1)
    others = (Variant(name="early", share=0.6), NAMED[name], Variant(name="late"))
    rows = {r["variant"]: r for r in variants(3, SMALL, corpus, others) if "average" in r}
    run = begun(corpus, SMALL, NAMED[name].plan(SMALL), 3)
    rates = [run.advance()["lr"] for _ in range(SMALL.steps)]
    exam = Exam(corpus, SMALL.length, SMALL.asked).losses(run.model)
    assert {source: rows[name][source] for source in exam} == exam
    assert max(rates) <= SMALL.peak * (1 + 1e-9) and min(rates) > 0


def test_a_plan_is_a_shared_part_and_an_end():
    for variant in VARIANTS:
        plan = variant.plan(Scale())
        assert plan.tokens == Scale().steps * Scale().step_tokens
        assert plan.phases[-1].tokens == variant.share * plan.tokens
    late, early = (NAMED[f"decay {share}%"].plan(Scale()) for share in (10, 20))
    assert all(late.lr(t) == early.lr(t) for t in range(0, int(0.8 * late.tokens), 9999))
    assert late.lr(late.tokens) == 0 and NAMED["constant"].plan(Scale()).lr(late.tokens) == 3e-3


def test_a_stopped_command_goes_on_where_it_was(corpus, tmp_path, capsys, monkeypatch):
    import cookbook_lib.training.annealing_runs as runs

    monkeypatch.setattr(runs, "python_corpus", lambda folder, vocab: corpus)
    monkeypatch.setattr(runs, "Scale", lambda: SMALL)
    monkeypatch.setattr(runs, "VARIANTS", VARIANTS[:3])
    out = tmp_path / "rows.jsonl"
    main(["train", "anneal", "--out", str(out), "--seeds", "1", "--steps", "10"])
    first = read(out)
    assert [r["variant"] for r in first if "average" in r] == ["cosine", "cosine 2x", "constant"]
    assert "seed 0 cosine: code" in capsys.readouterr().err
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(line for line in lines if '"constant"' not in line))
    train_anneal(out, seeds=1, steps=10)
    again = {row["variant"]: row for row in read(out)}
    for row in first:
        same = {k: v for k, v in row.items() if k not in ("seconds", "date", "curve")}
        assert same.items() <= again[row["variant"]].items()
    train_anneal(out, seeds=1, steps=10)
    assert len(read(out)) == len(first)
    with pytest.raises(ValueError, match="seeds is 0, expected at least 1"):
        train_anneal(out, seeds=0)


def test_the_table_of_t_is_the_integral_of_its_density():
    for n, bound in enumerate(T, 1):
        scale = gamma((n + 1) / 2) / (sqrt(n * pi) * gamma(n / 2))
        width = bound / 20_000
        inside = sum(
            scale * (1 + ((i + 0.5) * width) ** 2 / n) ** (-(n + 1) / 2) for i in range(20_000)
        )
        assert 2 * inside * width == pytest.approx(0.95, abs=1e-4)


def test_an_interval_covers_the_truth_as_often_as_it_says():
    random = torch.Generator().manual_seed(0)
    draws = torch.randn(2000, 5, generator=random).tolist()
    hits = [d.low < 0 < d.high for d in (paired(x, [0.0] * 5) for x in draws)]
    assert mean(hits) == pytest.approx(0.95, abs=0.015)


def test_a_verdict_is_where_the_interval_lies():
    found = paired([1.0, 1.1, 1.2], [2.0, 2.2, 2.1])
    apart = [-1.0, -1.1, -0.9]
    half = T[1] * stdev(apart) / sqrt(3)
    assert found == pytest.approx((mean(apart), mean(apart) - half, mean(apart) + half, 3))
    assert found.below() == HOLDS and found.below(-2.0) == FAILS and found.below(-1.05) == UNSEEN
    assert found.within(1.5) == HOLDS and found.within(0.5) == FAILS and found.within(1.0) == UNSEEN
    assert every([HOLDS, HOLDS]) == HOLDS and every([HOLDS, FAILS, UNSEEN]) == FAILS
    assert every([HOLDS, UNSEEN]) == UNSEEN
    with pytest.raises(ValueError, match="there are 1 and 1 values, expected pairs, 2 to 13"):
        paired([1.0], [1.0])


def invented(code: dict[str, float], prose: dict[str, float]) -> list[dict]:
    """Rows of three seeds that differ by as much as the variants, but equally in all of them."""
    return [
        {
            "variant": name,
            "seed": seed,
            "code": code.get(name, 3.0) + seed + 1e-4 * ((3 * i + seed) % 5),
            "prose": prose.get(name, 4.0) + seed + 1e-4 * ((2 * i + seed) % 5),
            "average": {"code": code.get(name, 3.0) + seed + 0.01, "prose": 0.0},
        }
        for i, name in enumerate(NAMED)
        for seed in range(3)
    ]


def test_claims_say_what_the_rows_say():
    code = {"constant": 3.2, "decay 2.5%": 3.1, "shape 1-sqrt": 3.1, "replay 0%": 3.5}
    prose = {"replay 0%": 3.0, "replay 60%": 3.2}
    said = {claim.text: claim.verdict for claim in claims(invented(code, prose))}
    assert list(said.values()) == [
        HOLDS,  # a decay gains 0.2
        HOLDS,  # as a cosine
        HOLDS,  # 2.5% gain half of it
        HOLDS,  # 20% gain as much as 10%
        FAILS,  # one shape gains half of it
        UNSEEN,  # re-warm and go on are the same
        HOLDS,  # a fifth of the gain is given up
        HOLDS,  # nothing is forgotten
        FAILS,  # the average is worse
        FAILS,  # and that of a constant rate by far
    ]


def test_seeds_without_all_variants_do_not_count():
    rows = invented({"constant": 3.2, "replay 0%": 3.5}, {"replay 0%": 3.0})
    cut = [row for row in rows if (row["variant"], row["seed"]) != ("cosine", 2)]
    assert {part.difference.n for claim in claims(cut) for part in claim.parts} == {2}
