"""The benchmark of blocks runs both sides on the same weights and says what, where and when."""

import json

import pytest
import torch

from cookbook_lib.benchmarks.blocks import bench_block
from cookbook_lib.benchmarks.peak import in_a_fresh_process

SMALL = {"d_model": 32, "d_state": 8, "tokens": 24, "repeats": 2, "json": True}


@pytest.mark.parametrize("block", ["mamba1", "mamba2"])
def test_both_sides_compute_the_same(block, capsys, tmp_path):
    out = tmp_path / "results.jsonl"
    bench_block(block, **SMALL, against="transformers", out=out)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["pass"] for line in lines] == ["forward", "forward and backward"]
    for line in lines:
        assert line["largest_relative_difference"] < 1e-5
        for side in "ours", "theirs":
            assert len(line["seconds"][side]) == 2 and min(line["seconds"][side]) > 0
            assert line["peak_bytes"][side] >= 0
        pairs = zip(line["seconds"]["ours"], line["seconds"]["theirs"], strict=True)
        assert line["ratios"] == [ours / theirs for ours, theirs in pairs]
        assert line["device"] and line["date"] and line["versions"]["torch"] == torch.__version__
    assert lines[1]["flops"] == 3 * lines[0]["flops"]


def test_a_block_alone_prints_a_table(capsys):
    bench_block("mamba3", **SMALL | {"json": False}, passes="forward")
    table = capsys.readouterr().out
    assert "mamba3, d_model 32, d_state 8, 1 x 24 tokens, fp32" in table
    assert "cookbook_lib" in table and "transformers" not in table and "backward" not in table


PEAK = """
import torch
from cookbook_lib.benchmarks.peak import peak_of

def hold():
    for _ in range(3):
        torch.ones(2**24).sum()

torch.ones(2**10).sum()
print(peak_of(hold))
"""


def test_peak_memory_is_what_a_call_holds_at_most():
    """Three times 64 MiB, one after the other."""
    assert 0.9 * 2**26 < int(in_a_fresh_process(PEAK)) < 1.5 * 2**26


def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        in_a_fresh_process("1 / 0")


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"block": "mamba3", "against": "transformers"}, "it has no mamba3"),
        ({"block": "mamba1", "repeats": 0}, "repeats is 0, expected at least 1"),
        ({"block": "mamba2", "d_model": 0}, "d_model is 0"),
    ],
)
def test_says_what_is_wrong(wrong, message):
    with pytest.raises(ValueError, match=message):
        bench_block(**SMALL | wrong)
