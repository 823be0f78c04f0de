"""A real training step holds what is predicted, and `cookbook memory` says whether it fits."""

import json
import subprocess
import sys

import pytest
import torch
from reference import saved as save_config
from tiny import CHECKPOINTS, one_thread  # noqa: F401 (a fixture)
from transformers import AutoConfig

from cookbook_lib.benchmarks.tracked import Tracked
from cookbook_lib.blocks import kernels
from cookbook_lib.calculators import presets
from cookbook_lib.calculators.chips import chip
from cookbook_lib.calculators.memory import Training, memory
from cookbook_lib.calculators.memory_plan import PARTS, changes, cheapest, memory_report
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.cli import main
from cookbook_lib.results import committed, read

ZAMBA = presets.preset("zamba2-7b")
H100 = chip("h100")


def printed(*argv: str, capsys) -> dict:
    main([*argv, "--json"])
    return json.loads(capsys.readouterr().out)


STEPS = [("llama", "fp32", "adamw"), ("mixtral", "fp32", "sgd"), ("zamba2", "fp32", "adamw")]
STEPS += [("zamba2", "bf16", "adamw"), ("jamba", "fp32", "adamw")]


@pytest.mark.parametrize("name, dtype, optimizer", STEPS)
def test_a_step_holds_what_is_predicted(name, dtype, optimizer, tmp_path, capsys):
    save_config(AutoConfig.for_model(name, **CHECKPOINTS[name]), tmp_path, full=True)
    argv = ["--tokens", "160", "--batch", "2", "--dtype", dtype, "--optimizer", optimizer]
    row = printed("bench", "memory", str(tmp_path), *argv, capsys=capsys)
    assert row["measured"]["weights"] == row["predicted"]["weights"]
    assert 0.97 < row["predicted"]["activations"] / row["measured"]["activations"] < 1.03
    assert 0.9 < row["ratio"] < 1.1  # in models so small what an operation makes counts too


def test_committed_steps_are_within_two_percent():
    rows = committed("memory")
    assert len(rows) == 5 and all(0.98 < row["ratio"] < 1.02 for row in rows)


def test_a_result_is_appended_and_a_model_cut_to_its_first_layers(tmp_path, capsys):
    save_config(AutoConfig.for_model("zamba2", **CHECKPOINTS["zamba2"]), tmp_path, full=True)
    out = tmp_path / "rows.jsonl"
    argv = ["--tokens", "32", "--layers", "2", "--out", str(out)]
    main(["bench", "memory", str(tmp_path / "config.json"), *argv])
    shown = capsys.readouterr().out
    (row,) = read(out)
    assert row["layers"] == 2 and row["versions"]["torch"] == torch.__version__
    assert "predicted / measured" in shown and "total, plain PyTorch" in shown


def test_tensors_are_tracked_while_they_live():
    there = torch.zeros(100)
    with Tracked() as tracked:
        a = torch.ones(1000)
        b = a[:10] + there[:10]  # a view is nothing new, and `there` was there before
        assert tracked.live == 4000 + 40
        del a
        assert tracked.live == 40 and tracked.peak == 4040
        b.add_(1)
    assert tracked.peak == 4040


def test_kernels_can_be_left_out():
    assert not kernels.LEFT_OUT.get()
    with kernels.left_out():
        assert kernels.LEFT_OUT.get() and kernels.found("math", "sqrt", torch.zeros(1)) is None
    assert not kernels.LEFT_OUT.get()


def test_the_command_prints_the_library_s_numbers(capsys):
    argv = ["--gpus", "8", "--zero", "1", "--recompute", "full", "--optimizer", "muon"]
    report = printed("memory", "zamba2-7b", *argv, capsys=capsys)
    how = Training(optimizer="muon", recompute="full", parallel=Parallel(gpus=8, zero=1))
    found = memory(ZAMBA, how)
    assert {part: report[part] for part in PARTS} == {part: getattr(found, part) for part in PARTS}
    assert report["total"] == sum(report[part] for part in PARTS) == found.total
    assert report["fits"] and report["change"] is None and report["recompute"] == "full"
    assert (report["dp"], report["zero"], report["tokens"]) == (8, 1, 4096)


def test_every_stage_is_shown_and_the_fullest_named(capsys):
    argv = ["memory", "zamba2-7b", "--gpus", "4", "--pp", "4"]
    report = printed(*argv, capsys=capsys)
    assert len(report["stages"]) == 4
    assert report["total"] == max(s["total"] for s in report["stages"])
    main([*argv, "--by", "stage"])
    shown = capsys.readouterr().out
    assert all(f"{s['total'] / 1e9:.2f}" in shown for s in report["stages"])


def test_what_does_not_fit_gets_the_first_change_that_makes_it_fit():
    how = Training(parallel=Parallel(gpus=8))
    assert memory_report(ZAMBA, how, H100)["change"] == "--zero 1"
    words, changed, found = cheapest(ZAMBA, how, H100.memory)
    assert memory(ZAMBA, changed) == found and found.total <= H100.memory
    for tried, before in changes(how):
        if tried == words:
            break
        assert memory(ZAMBA, before).total > H100.memory
    assert cheapest(ZAMBA, how, 1e9) is None  # no number of GPUs brings a layer below this


@pytest.mark.parametrize("model", ["llama-3.1-8b", "jamba-v0.1", "zamba2-7b", "mixtral-8x7b-v0.1"])
@pytest.mark.parametrize("gpus", [1, 8])
def test_a_change_is_what_one_can_type(model, gpus, capsys):
    report = printed("memory", model, "--gpus", str(gpus), "--tokens", "8192", capsys=capsys)
    assert not report["fits"]
    base = ["--gpus", str(gpus)] if "--gpus" not in report["change"] else []
    argv = [model, *base, "--tokens", "8192", *report["change"].split()]
    again = printed("memory", *argv, capsys=capsys)
    assert again["fits"] and again["total"] == report["change_total"]


@pytest.mark.parametrize(
    "argv, words",
    [
        (["memory", "zamba2-7b", "--chip", "h10"], "chip is 'h10', expected one of"),
        (["memory", "zamba2-7b", "--gpus", "6", "--tp", "4"], "gpus is 6, expected a multiple of"),
        (["memory", "zamba2-7b", "--gpus", "3", "--tp", "3"], "tp is 3, expected a divisor of"),
        (["memory", "zamba2-7b", "--ep", "2"], "ep is 2, expected 1: Zamba2-7B has no experts"),
        (["memory", "zamba2-7b", "--tokens", "0"], "tokens is 0, expected a whole number above 0"),
        (["memory", "zamba2-7b", "--micro-batch", "0"], "micro_batch is 0, expected a whole"),
        (["memory", "zamba2-7b", "--recompute", "half"], "--recompute"),
        (["bench", "memory", "zamba2-1.2b", "--layers", "0"], "layers is 0, expected a whole"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(argv, words):
    run = subprocess.run(
        [sys.executable, "-m", "cookbook_lib", *argv], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert words in run.stderr and run.stderr.count("\n") == 1
