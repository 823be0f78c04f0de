"""Trials are what they say: equal sizes, fixed by their seed, learning; and a bulk run resumes."""

import json

import pytest
import torch

from cookbook_lib.training import experiments
from cookbook_lib.training.tasks import Induction
from cookbook_lib.training.tiny import ablations, level, mixers
from cookbook_lib.training.trial import trial

TASK = Induction(span=7, alphabet=4)


@pytest.fixture(autouse=True)
def one_thread():
    """The models are too small for two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_mixers_have_equally_many_parameters():
    for vocab in (8, 64):
        models = [make() for make in mixers(vocab).values()]
        sizes = [sum(p.numel() for p in m.parameters()) for m in models]
        assert sizes == [m.spec.params() for m in models]
        assert max(sizes) / min(sizes) < 1.01
    with pytest.raises(ValueError, match="pattern is 'mm', expected one with an MLP"):
        level(["mm"], 8)


def test_ablations_differ_in_what_they_name():
    models = {name: make() for name, make in ablations(8).items()}
    sizes = {name: m.spec.params() for name, m in models.items()}
    assert sizes["no LoRA"] < sizes["shared block"] == sizes["no concatenation"]
    assert sizes["Mamba-2 only"] < sizes["shared block"] < sizes["a block for each use"]
    tokens = torch.tensor([[1, 2, 3]])
    blind = models["no concatenation"]
    whole = ablations(8)["shared block"]()
    whole.load_state_dict(blind.state_dict())
    assert not torch.equal(whole(tokens), blind(tokens))


def test_a_trial_learns_and_its_seed_fixes_it():
    make = mixers(TASK.vocab)["hybrid"]
    first, again = (trial("hybrid", make, TASK, seed=1, steps=150, batch=32) for _ in range(2))
    assert first.accuracy == again.accuracy
    assert first.accuracy[-1] > 0.9  # chance is 1 in 4
    assert (first.pattern, first.params) == ("m-a-", make().spec.params())


def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments, "TASKS", {"recall": TASK})
    kept = {"attention": mixers(TASK.vocab)["attention"]}
    one = experiments.Experiment("mixers", "recall", 200, kept)
    monkeypatch.setattr(experiments, "cases", lambda: [one])
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    experiments.train_tasks(whole, seeds=2, scale=0.1, threads=1)
    lines = whole.read_text().splitlines()
    cut.write_text(lines[0] + "\n" + lines[1][:30])  # killed while it wrote the second line
    experiments.train_tasks(cut, seeds=2, scale=0.1, threads=1)

    def results(path):
        rows = map(json.loads, path.read_text().splitlines())
        return [{k: row[k] for k in row.keys() - {"seconds", "date"}} for row in rows]

    assert results(cut) == results(whole)
    assert capsys.readouterr().err.count("recall attention") == 3
