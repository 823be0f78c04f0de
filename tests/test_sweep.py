"""A sweep loses nothing: stopped in any way and run again, it ends with the same rows."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from cookbook_lib import results
from cookbook_lib.benchmarks.sweep import NO_MEMORY, attempt, limited, sweep

CASES = [{"block": b, "tokens": n, "shape": (1, n)} for b in ("x", "y") for n in (8, 16, 32)]
KEYS = [(c["block"], c["tokens"]) for c in CASES]


def keys(rows):
    return [(r["block"], r["tokens"]) for r in rows]


def test_rows_come_in_the_order_of_the_cases_and_are_written_one_by_one(tmp_path):
    out, seen = tmp_path / "rows.jsonl", []

    def run(block, tokens, shape):
        seen.append(len(results.ready(out)))
        return {"flops": tokens**2, "shape": shape}

    rows = sweep(CASES, run, out)
    assert keys(rows) == KEYS and seen == list(range(6)) and results.read(out) == rows
    assert sweep(CASES, run, out) == rows and len(seen) == 6  # nothing is measured again
    rows = sweep(CASES, run, out, again={"device": "another"})
    assert len(seen) == 12 and {r["device"] for r in rows} == {"another"}


def test_ctrl_c_keeps_what_was_measured(tmp_path):
    out = tmp_path / "rows.jsonl"

    def interrupted(block, tokens, **_):
        if (block, tokens) == KEYS[4]:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        sweep(CASES, interrupted, out)
    assert keys(results.read(out)) == KEYS[:4]
    assert keys(sweep(CASES, lambda **_: {}, out)) == keys(results.read(out)) == KEYS


SLOW = """
import sys, time
from pathlib import Path
from cookbook_lib.benchmarks.sweep import sweep
sys.path.insert(0, "tests")
from test_sweep import CASES
sweep(CASES, lambda **_: time.sleep(0.2) or {"outcome": "measured"}, Path(sys.argv[1]))
"""


def test_a_sweep_that_was_killed_ends_with_the_rows_of_an_unbroken_one(tmp_path):
    """kill -9 after two rows, a line cut in half as if it was being written, and again."""
    out, whole = tmp_path / "broken.jsonl", tmp_path / "whole.jsonl"
    started = subprocess.Popen([sys.executable, "-c", SLOW, str(out)])
    try:
        end = time.monotonic() + 60
        while not (out.exists() and out.read_bytes().count(b"\n") >= 2):
            assert started.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        os.kill(started.pid, signal.SIGKILL)
    finally:
        started.kill()
        started.wait()
    assert 2 <= len(results.ready(out)) < 6
    with out.open("a") as file:
        file.write('{"block": "y", "tok')
    sweep(CASES, lambda **_: {"outcome": "measured"}, out)
    sweep(CASES, lambda **_: {"outcome": "measured"}, whole)
    assert results.read(out) == results.read(whole)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can limit memory")
def test_a_size_beyond_memory_is_recorded_and_the_sweep_goes_on(tmp_path):
    out = tmp_path / "rows.jsonl"

    def run(tokens):
        return {"outcome": "measured", "sum": torch.ones(tokens).sum().item()}

    sizes = [{"tokens": n} for n in (10, 2**45, 20)]
    rows = sweep(sizes, run, out)
    assert [r["outcome"] for r in rows] == ["measured", NO_MEMORY, "measured"]
    assert results.read(out) == rows and sweep(sizes, lambda **_: 1 / 0, out) == rows


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can limit memory")
def test_a_limit_on_memory_holds_inside_and_not_after():
    with pytest.raises(RuntimeError, match="can't allocate memory"), limited(2**20):
        torch.ones(2**26)
    assert torch.ones(2**26).nbytes == 2**28


def test_a_gpu_out_of_memory_is_recorded_and_other_errors_are_not_hidden():
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory")

    def wrong():
        raise RuntimeError("shapes do not fit")

    row = attempt(full)
    assert row["outcome"] == NO_MEMORY and row["device"] and row["date"]
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        attempt(wrong)
