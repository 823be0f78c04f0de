"""The command line prints what the calculators say, and one line for what the user got wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cookbook_lib.calculators import presets
from cookbook_lib.calculators.chips import CHIPS
from cookbook_lib.calculators.storage import FORMATS
from cookbook_lib.cli import main
from cookbook_lib.commands.output import seconds
from cookbook_lib.commands.serve_cost import serve_cost
from cookbook_lib.commands.train_time import train_time

CONFIG = Path(__file__).parent / "data/configs/Zamba2-2.7B/diff.json"
KEYS = (
    "model params params_active params_embedding params_used_per_token flops flops_per_token "
    "kv_bytes conv_state_bytes ssm_state_bytes cache_bytes rows"
)


def cookbook(*argv: str, capsys) -> dict:
    main([*argv, "--json"])
    return json.loads(capsys.readouterr().out)


def test_cost_of_a_preset(capsys):
    report = cookbook("cost", "zamba2-2.7b", "--batch", "2", "--context", "131072", capsys=capsys)
    model = presets.preset("zamba2-2.7b")
    assert set(KEYS.split()) <= set(report)
    assert report["params"] == 2_662_214_560
    assert report["params_used_per_token"] == model.params_used()
    assert report["flops"] == model.flops(b=2, l=4096)
    assert report["flops_per_token"] == report["flops"] / (2 * 4096)
    assert report["decode_flops"] == model.flops(b=2, l=1, s=131072)
    assert report["kv_bytes"] == 2 * 131072 * 184_320  # nine uses of the shared blocks
    kinds = ("kv_bytes", "conv_state_bytes", "ssm_state_bytes")
    assert report["cache_bytes"] == sum(report[k] for k in kinds)


@pytest.mark.parametrize("by", ["component", "block", "op"])
@pytest.mark.parametrize("model", ["zamba2-1.2b", "blackmamba-2.8b", "llama-3.1-8b", "gpt"])
def test_rows_add_up_to_the_model(by, model, capsys, tmp_path):
    if model == "gpt":  # learned positions
        model = str(tmp_path / "config.json")
        Path(model).write_text('{"model_type": "gpt2"}')
    report = cookbook("cost", model, "--by", by, "--tokens", "64", capsys=capsys)
    sums = {k: sum(row[k] for row in report["rows"]) for k in ("params", "params_used", "flops")}
    assert sums["params"] == report["params"]
    assert sums["params_used"] == report["params_used_per_token"]
    assert sums["flops"] == report["flops"]
    names = [(row.get("block"), row.get("component"), row.get("op")) for row in report["rows"]]
    assert by == "op" or len(set(names)) == len(names)


def test_conventions_change_what_they_name(capsys):
    def flops(*argv):
        return cookbook("cost", "zamba2-1.2b", *argv, capsys=capsys)["flops"]

    assert flops("--attention", "causal") < flops()
    assert flops("--logits", "last") < flops()
    assert flops("--scan", "recurrent") != flops()


def test_a_file_and_its_folder_are_one_model(capsys, tmp_path):
    (tmp_path / "config.json").write_text(CONFIG.read_text())
    of_file = cookbook("cost", str(tmp_path / "config.json"), capsys=capsys)
    of_folder = cookbook("cost", str(tmp_path), capsys=capsys)
    preset = cookbook("cost", "Zamba2-2.7B", capsys=capsys)
    for report in (of_file, of_folder, preset):
        report.pop("model"), report.pop("source")
    assert of_file == of_folder == preset


def test_models_lists_every_preset(capsys):
    listed = cookbook("models", capsys=capsys)
    assert [m["model"] for m in listed] == list(presets.names())
    assert all(m["params"] >= m["params_active"] > 0 and m["source"] for m in listed)


def test_tables_for_people(capsys):
    main(["cost", "mamba2-130m", "--by", "op"])
    shown = capsys.readouterr().out
    assert "in_proj.weight" in shown and "128,989,632" in shown
    main(["models"])
    assert "zamba2-2.7b" in capsys.readouterr().out


def test_serving_for_people_and_for_programs(capsys):
    argv = ("serve-cost", "zamba2-1.2b", "--chip", "phone", "--weights", "int4", "--output", "8")
    report = cookbook(*argv, capsys=capsys)
    assert report["weights"] == "int4" and report["decode"]["bound_by"] == "memory"
    assert report["memory_bytes"] == report["weight_bytes"] + report["cache_bytes"]
    main(list(argv))
    shown = capsys.readouterr().out
    assert "Snapdragon" in shown and "first token (TTFT)" in shown and "longest context" in shown


def test_training_time_for_people_and_for_programs(capsys):
    argv = ("train-time", "zamba2-1.2b", "--gpus", "16", "--tp", "2", "--price", "2")
    report = cookbook(*argv, capsys=capsys)
    keys = "seconds_per_step tokens_per_second days gpu_hours bound_by cost collectives"
    assert set(keys.split()) <= set(report) and report["dp"] == 8
    assert {c["why"] for c in report["collectives"]} == {"dp", "tp"}
    l40s = ("train-time", "zamba2-1.2b", "--chip", "l40s", "--gpus", "16", "--network", "25e9")
    assert cookbook(*l40s, capsys=capsys)["communication_seconds"] > 0
    main([*argv, "--mfu", "0.4"])
    shown = capsys.readouterr().out
    assert "40.0%, as given" in shown and "all-reduce" in shown and "GPU hours" in shown
    assert all(name in train_time.__doc__ for name in CHIPS)


def test_a_time_is_shown_in_a_unit_that_suits_it():
    shown = [seconds(t) for t in (2e-6, 0.5, 3, 600, 7200, 3 * 86400)]
    assert shown == ["2.00 µs", "500.00 ms", "3.00 s", "10.00 min", "2.00 h", "3.0 d"]
    assert [seconds(-t) for t in (0.0075, 90)] == ["-7.50 ms", "-90.00 s"]


def test_the_help_of_serving_names_every_chip_and_format():
    shown = serve_cost.__doc__
    assert all(name in shown for name in (*CHIPS, *FORMATS))


@pytest.mark.parametrize(
    "argv, words",
    [
        (["cost"], "Missing"),
        (["serve-cost", "zamba2-1.2b", "--chip", "h10"], "chip is 'h10', expected one of b200,"),
        (["serve-cost", "zamba2-1.2b", "--prompt", "0"], "prompt is 0, expected a whole number"),
        (["train-time", "zamba2-7b", "--gpus", "128", "--pp", "3"], "gpus is 128, expected a mult"),
        (["train-time", "zamba2-7b", "--train-tokens", "0"], "train_tokens is 0, expected a numb"),
        (["train-time", "zamba2-7b", "--mfu", "1.2"], "mfu is 1.2, expected a part of the peak"),
        (["train-time", "zamba2-7b", "--chip", "l40s", "--gpus", "16"], "give --network, or take"),
        (
            ["train-time", "zamba2-7b", "--network", "-1"],
            "network is -1, expected a number of bytes/s",
        ),
        (["train-time", "zamba2-7b", "--mfu", "1e-300", "--json"], "not JSON compliant: inf"),
        (["scaling", "--flops", "1e21", "--mfu", "nan"], "mfu is nan, expected a share"),
        (["serve-cost", "zamba2-7b", "--chip", "phone"], "GB more than the 90% of 12 GB"),
        (["cost", "zamba2-2.8b"], "no preset is called 'zamba2-2.8b'; near to it: zamba2-2.7b"),
        (["cost", "nowhere/config.json"], "nowhere/config.json: no such file"),
        (["cost", "zamba2-1.2b", "--tokens", "many"], "--tokens"),
        (["cost", "zamba2-1.2b", "--tokens", "0"], "tokens is 0, expected a whole number above 0"),
        (["cost", "zamba2-1.2b", "--context", "-5"], "context is -5"),
        (["cost", "zamba2-1.2b", "--dtype", "bf17"], "dtype is 'bf17', expected one of fp64"),
        (["cost", "zamba2-1.2b", "--by", "layer"], "layer"),
        (["cost", "zamba2-1.2b", "--contexts", "5"], "--contexts"),
        (["bench", "block", "--sizes", "x"], "see `cookbook bench block --help`"),
        (["lint", "zamba2-1.2b", "--tp", "x"], "see `cookbook lint --help`"),
        (["costs"], "costs"),
        ([], "Expected one of"),
        (["bench"], "Expected one of"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(argv, words):
    run = subprocess.run(
        [sys.executable, "-m", "cookbook_lib", *argv], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert words in run.stderr and run.stderr.count("\n") == 1 and "Traceback" not in run.stderr


@pytest.mark.parametrize("argument", ["--tp=many", "--ranks=2", "--tp"])
def test_an_error_is_the_same_line_where_only_ascii_can_be_printed(argument):
    run = [sys.executable, "-m", "cookbook_lib", "lint", "llama-2-7b", argument]
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    said = [
        subprocess.run(run, capture_output=True, text=True, env=os.environ | env).stderr
        for env in ({"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}, ascii_only)
    ]
    assert said[0] == said[1] and "--" in said[0] and "---" not in said[0]


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m cookbook_lib cost zamba2-7b --by op --json | head -1"
    run = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("{\n", "")


def test_help_names_every_option():
    run = [sys.executable, "-m", "cookbook_lib", "cost", "--help"]
    shown = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert all(option in shown for option in ("--batch", "--context", "--scan", "--json"))


def test_bench_calculators_measures_three_things(capsys):
    result = cookbook("bench", "calculators", "--repeats", "1", capsys=capsys)
    assert len(result["seconds"]) == 3
    assert all(0 < r["min"] <= r["median"] <= r["max"] for r in result["seconds"])
