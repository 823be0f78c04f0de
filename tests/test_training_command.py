"""`cookbook train run` trains what its flags say, and says in one line what they cannot mean."""

import json

import numpy as np
import pytest
from looped import one_thread  # noqa: F401

from cookbook_lib import results
from cookbook_lib.cli import main
from cookbook_lib.commands.train import maker, simple
from cookbook_lib.data.shards import Shard

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    g = np.random.default_rng(0)
    shard = Shard(folder / "0", np.dtype(np.uint16), end=0)
    lengths = g.integers(1, 60, size=40)
    shard.append(g.integers(1, 64, size=int(lengths.sum())), lengths)
    shard.close()
    return folder


def train(out, shards, *more) -> None:
    sizes = [
        "--d-model",
        "32",
        "--vocab",
        "64",
        "--length",
        "16",
        "--batch",
        "4",
        "--device",
        "cpu",
    ]
    main(["train", "run", str(out), "--data", f"web={shards}", "--tokens", "512", *sizes, *more])


def test_shards_are_trained_on_and_a_run_goes_on(tmp_path, shards, capsys):
    out = tmp_path / "out"
    train(out, shards, "--json", "--every", "3")
    report = json.loads(capsys.readouterr().out)
    assert (report["steps"], report["done"], report["tokens"]) == (8, True, 512)
    with pytest.raises(SystemExit) as end:
        train(out, shards)
    assert end.value.code == 2
    assert capsys.readouterr().err == f"cookbook: {out} holds a run: resume it, or name another\n"
    train(out, shards, "--resume", "--tokens", "640")
    assert [row["step"] for row in results.read(out / "metrics.jsonl")] == list(range(1, 11))
    assert "10 steps, loss" in capsys.readouterr().err


def test_a_plan_in_a_file_sets_rates_and_mixture(tmp_path, shards, capsys):
    plan = tmp_path / "plan.toml"
    plan.write_text(
        "[[phases]]\ntokens = 256\nlr = 0.001\nmix = { web = 1 }\n"
        '[[phases]]\ntokens = 256\nlr = 0.002\nend = 0\ndecay = "linear"\nmix = { web = 1 }\n'
    )
    train(tmp_path / "out", shards, "--plan", str(plan), "--optimizer", "muon", "--model", "ma-8")
    rates = [row["lr"] for row in results.read(tmp_path / "out/metrics.jsonl")]
    want = [0.001] * 4 + [0.002 * (1 - (i + 0.5) / 4) for i in range(4)]
    assert rates == pytest.approx(want)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--model", "xyz"], "xyz"),
        (["--d-model", "40"], "d_model is 40, expected a multiple of 32"),
        (["--data", "web"], "data is 'web', expected NAME=FOLDER"),
        (["--data", "web=nowhere"], "data web is nowhere, which holds no .idx"),
        (["--plan", "none.toml"], "plan is 'none.toml'"),
        (["--batch", "0"], "batch is 0"),
        (["--device", "tpu"], "device is tpu"),
        (["--vocab", "32"], "is in the data, expected"),
        (["--optimizer", "sgd"], "invalid choice"),
        (["--length", "0"], "length is 0"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(tmp_path, shards, capsys, flags, line):
    with pytest.raises(SystemExit) as end:
        train(tmp_path / "out", shards, *flags)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1, said


def test_models_by_pattern_and_by_preset():
    assert maker("mhmh", 64, 32)().spec.family == "zamba2"
    assert maker("ma-8", 64, 32)().spec.pattern == "ma-8"
    assert maker("mm", 64, 32)().spec.pattern == "mm"
    import torch

    with torch.device("meta"):
        assert maker("mamba2-130m", 64, 32)().spec.family == "mamba2"


def test_without_a_plan_there_is_a_warm_up_and_a_cosine():
    plan = simple(["a", "b"], 1e6, 1e-3)
    assert plan.lr(1e4) == pytest.approx(5e-4)
    assert plan.lr(2e4) == pytest.approx(1e-3)
    assert plan.lr(1e6) == pytest.approx(1e-4)
    assert plan.mix(0) == {"a": 0.5, "b": 0.5}
