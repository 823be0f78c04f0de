"""Each shape is timed once, checked against float64, and counted as often as a model uses it."""

import json
import math
import subprocess
import sys

import pytest
import torch

from cookbook_lib import results
from cookbook_lib.benchmarks import gemm as bench
from cookbook_lib.benchmarks.gemm import Total, case, fastest, operands, swept, timed, total
from cookbook_lib.benchmarks.sweep import NO_MEMORY
from cookbook_lib.benchmarks.timing import Stop
from cookbook_lib.calculators import presets
from cookbook_lib.calculators.gemms import Gemm
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.varied import Use, uses, vary
from cookbook_lib.cli import main

FAST = Stop.after(2)
ONE, FOUR = Gemm("x", 1, 40, 24, 56, ("n",), ("k",)), Gemm("y", 4, 5, 7, 9, ("n",), ("k",))
SMALL = ["--model", "mamba-130m", "--tokens", "8", "--dtype", "fp32", "--budget", "0.01"]


@pytest.fixture(autouse=True)
def small_ceilings(monkeypatch):
    monkeypatch.setattr("cookbook_lib.benchmarks.ceilings.SIDES", {"cpu": (64,)})
    monkeypatch.setattr("cookbook_lib.benchmarks.ceilings.COPIED", {"cpu": 2**16})


@pytest.mark.parametrize("product", [ONE, FOUR])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("layout", ["nk", "kn"])
def test_a_row_counts_what_the_product_is(product, dtype, layout):
    what = case(product, dtype) | {"layout": layout}
    x, w, out = operands(what, "cpu")
    assert x.shape == (product.count, product.m, product.k)
    assert w.shape == (product.count, product.k, product.n)
    assert w.is_contiguous() == (layout == "kn") and out.shape[1:] == (product.m, product.n)
    row = timed(what, device="cpu", stop=FAST)
    assert row["flops"] == product.flops == 2 * x.numel() * product.n
    assert row["nbytes"] == x.nbytes + w.nbytes + out.nbytes
    assert row["flops_per_second"] == row["flops"] / row["seconds"]["median"]
    assert 0 < row["error"] < bench.WRONG[dtype] and row["seconds"]["count"] == 2


def test_work_that_did_not_run_is_caught(monkeypatch):
    monkeypatch.setattr(torch, "mm", lambda x, w, out: out.zero_())
    with pytest.raises(ValueError, match="the result is off by 1.0e\\+00 of its largest number"):
        timed(case(ONE, "fp32"), device="cpu", stop=FAST)


def test_a_shape_runs_once_whoever_asks_and_not_again(tmp_path, monkeypatch):
    out, ran = tmp_path / "rows.jsonl", []

    def once(what, **_):
        ran.append(what)
        return timed(what, device="cpu", stop=FAST)

    monkeypatch.setattr(bench, "timed", once)
    same = ONE._replace(op="another", outs=("other",))
    rows = swept([ONE, same, FOUR], "fp32", device="cpu", stop=FAST, out=out)
    assert len(rows) == len(ran) == 2 and results.read(out) == rows
    assert swept([FOUR, ONE], "fp32", device="cpu", stop=FAST, out=out) == rows[::-1]
    assert len(ran) == 2
    swept([ONE], "bf16", device="cpu", stop=FAST, out=out)
    assert len(ran) == 3


def test_a_total_is_each_use_of_each_shape():
    took = {"low": 1.0, "median": 2.0, "high": 4.0, "noisy": False}
    rows = [case(ONE, "fp32") | {"seconds": took}]
    rows.append(case(FOUR, "fp32") | {"seconds": {**took, "median": 3.0, "noisy": True}})
    whole = total([Use("a", 5, ONE), Use("b", 2, FOUR)], rows)
    assert whole == Total(5 * ONE.flops + 2 * FOUR.flops, 16.0, 7.0, 28.0, True)
    rows[1] = case(FOUR, "fp32") | {"outcome": NO_MEMORY}
    assert total([Use("a", 5, ONE), Use("b", 2, FOUR)], rows).seconds is None


def test_the_fastest_is_by_flop_and_says_what_it_cannot_be_told_from():
    totals = {
        1: Total(100, 10.0, 9.9, 10.1),
        2: Total(220, 20.0, 19.0, 21.0),  # the most for each second
        3: Total(420, 41.0, 40.0, 42.0),  # 10 to 10.5, and the last reaches 10.48
        4: Total(900, None),
    }
    assert fastest(totals) == (2, [3])
    with pytest.raises(ValueError, match="every size was too large"):
        fastest({4: totals[4]})


def test_the_command_adds_up_the_model(tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    argv = ["bench", "gemm", *SMALL, "--values", "256", "384", "--out", str(out)]
    main([*argv, "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["rows"] == results.read(out)
    for line in said["values"]:
        model = vary(presets.preset("mamba-130m"), "d_model", line["value"])
        took = {bench.shape_of(row): row["seconds"]["median"] for row in said["rows"]}
        every = uses(model, Run(l=8))
        assert line["flops"] == sum(use.flops for use in every)
        assert math.isclose(
            line["seconds"], sum(use.uses * took[tuple(use.product[1:5])] for use in every)
        )
        assert 0 < line["predicted"] < 1
    assert said["fastest"] in (256, 384)
    main(argv)
    table = capsys.readouterr().out
    assert results.read(out) == said["rows"]  # nothing was measured again
    assert "predicted, h100" in table and "384" in table
    main([*argv, "--by", "product", "--chip", "A100"])
    assert "mamba in_proj.weight" in (table := capsys.readouterr().out) and "waves, a100" in table


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--step", "0"], "step is 0, expected a whole number above 0"),
        (["--values", "64", "-1"], "values is -1, expected"),
        (["--span", "-1"], "span is -1, expected at least 0"),
        (["--chip", "m4max"], "chip is 'm4max', expected one of"),
        (["--vary", "nheads"], "vary is 'nheads', which no block of"),
        (["--vary", "hidden"], "vary"),
        (["--model", "mamba9"], "no preset is called 'mamba9'"),
        (["--budget", "0"], "seconds is 0.0, expected a number above 0"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(argv, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(["bench", "gemm", *SMALL, *argv])
    told = capsys.readouterr()
    assert end.value.code == 2 and words in told.err and told.err.count("\n") == 1
    assert told.out == ""


def test_a_gpu_that_is_not_there_is_said():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    run = [sys.executable, "-m", "cookbook_lib", "bench", "gemm", "--device", "cuda"]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 2 and "PyTorch finds no GPU" in done.stderr
