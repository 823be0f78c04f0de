"""Each command that sweeps, killed half-way and then stopped by Ctrl-C, ends with the rows of an
unbroken run once it is called again; nothing that was measured is lost, and no rank is left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cookbook_lib import results
from cookbook_lib.cli import main

PATIENCE = 300.0
ONE = ["--threads", "1"]
SWEEPS = {  # command -> its flags, and what tells a row from the others
    "block": (
        ["mlp", "--d-model", "64", "--tokens", "8", "16", "32", "--context", "8", *ONE]
        + ["--seconds", "0.2"],
        ("block", "pass", "tokens", "context", "dtype", "threads"),
    ),
    "gemm": (
        ["--model", "mamba2-130m", "--vary", "d_state", "--values", "32", "48", "64", *ONE]
        + ["--tokens", "64", "--budget", "0.2", "--dtype", "fp32"],
        ("count", "m", "n", "k", "dtype", "threads"),
    ),
    "comm": (
        ["--op", "all_reduce,permute", "--max-bytes", "512", "--factor", "8", "--seconds", "0.3"],
        ("op", "ranks", "nbytes", "dtype", "backend"),
    ),
    "decode": (
        ["--devices", "2", "--method", "tree,ring-q,all-gather", "--context", "512,1Ki"]
        + ["--seconds", "0.3"],
        ("method", "s", "p", "dtype", "backend", "nodes"),
    ),
}


def keys(path: Path, names: tuple[str, ...]) -> list[tuple]:
    return [tuple(row[name] for name in names) for row in results.read(path)]


def broken(command: list[str], out: Path, lines: int, number: signal.Signals) -> int:
    """Start a sweep, send a signal once its file has so many lines; its exit code."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(
        [sys.executable, "-m", "cookbook_lib", *command], stdout=subprocess.DEVNULL, env=env
    )
    try:
        end = time.monotonic() + PATIENCE
        while not (out.exists() and out.read_bytes().count(b"\n") >= lines):
            assert started.poll() is None and time.monotonic() < end
            time.sleep(0.002)
        started.send_signal(number)
        return started.wait(PATIENCE)
    finally:
        started.kill()
        started.wait()


@pytest.mark.parametrize("name", SWEEPS)
def test_a_broken_sweep_ends_with_the_rows_of_an_unbroken_one(name, tmp_path, capsys):
    flags, names = SWEEPS[name]
    out, whole = tmp_path / "broken.jsonl", tmp_path / "whole.jsonl"
    command = ["bench", name, *flags, "--json", "--out"]
    main([*command, str(whole)])
    expected = keys(whole, names)
    assert len(set(expected)) == len(expected) >= 4
    assert broken([*command, str(out)], out, 1, signal.SIGKILL) == -signal.SIGKILL
    first = out.read_bytes()
    assert broken([*command, str(out)], out, len(results.ready(out)) + 1, signal.SIGINT) == 130
    second = out.read_bytes()
    assert second.startswith(first[: first.rfind(b"\n") + 1])
    assert 2 <= len(results.ready(out)) < len(expected)
    capsys.readouterr()
    main([*command, str(out)])
    assert sorted(keys(out, names)) == sorted(expected)
    assert out.read_bytes().startswith(second[: second.rfind(b"\n") + 1])
    if name in ("comm", "decode"):
        assert json.loads(capsys.readouterr().out) == results.read(out)
        listed = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True).stdout
        orphans = [line.split(None, 1) for line in listed.splitlines()]
        assert not [a for p, a in orphans if p == "1" and "cookbook_lib.communication.started" in a]
