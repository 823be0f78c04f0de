"""`cookbook bench train` lets three ways of training take the same number of steps, in turn."""

import json
import statistics
from collections import Counter

import pytest
import torch
from tiny import one_thread  # noqa: F401 (a fixture)

from cookbook_lib.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")
ARGV = ["bench", "train", "--model", "m", "--d-model", "32", "--vocab", "64", "--length", "16"]
ARGV += ["--batch", "2", "--steps", "2", "--repeats", "3"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_each_way_takes_the_same_steps_on_the_same_tokens(monkeypatch, capsys):
    taken, seen, step = Counter(), Counter(), torch.optim.AdamW.step

    def counted(self, *args, **kwargs):
        taken[id(self)] += 1
        return step(self, *args, **kwargs)

    def looked_up(input, weight, *args, **kwargs):
        seen[input.shape] += input.shape == (2, 16) and weight.shape[0] == 64
        return embedding(input, weight, *args, **kwargs)

    embedding = torch.nn.functional.embedding
    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    monkeypatch.setattr(torch.nn.functional, "embedding", looked_up)
    main([*ARGV, "--json"])
    report = json.loads(capsys.readouterr().out)
    steps = 2 * (3 + 1)  # of a way: each round, and the one that does not count
    assert sum(taken.values()) == 3 * steps and seen[(2, 16)] == 3 * steps
    assert set(report["tokens_per_second"]) == {"bare", "loop", "Trainer"}
    rounds = report["rounds"]
    for name, rate in report["tokens_per_second"].items():
        middle = statistics.median(row[name] for row in rounds)
        assert rate == pytest.approx(2 * 2 * 16 / middle)
    assert len(rounds) == 3 and report["against_bare"]["bare"] == 1


def test_the_table_names_the_ways_and_a_wrong_number_is_refused(capsys):
    main([*ARGV[:-1], "1"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("bare", "loop", "Trainer", "of bare"))
    with pytest.raises(SystemExit) as ended:
        main([*ARGV[:-1], "0"])
    assert ended.value.code == 2
    assert "repeats is 0, expected at least 1" in capsys.readouterr().err
