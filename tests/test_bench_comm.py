"""`cookbook bench comm` is one command under every launcher; what it measured is kept whatever ends
it, and what is wrong is said in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cookbook_lib import results
from cookbook_lib.cli import main
from cookbook_lib.communication.sizes import parse, sizes

BIN = Path(sys.executable).parent
BENCH = ["-m", "cookbook_lib", "bench", "comm", "--seconds", "1e-6"]
SMALL = [*BENCH, "--min-bytes", "1Ki", "--max-bytes", "4Ki", "--json"]
PATIENCE = 300
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1"} | {
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"
}


def run(*command: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=ENV | env,
    )


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("8", 8), ("64Mi", 2**26), ("1e6", 10**6), ("64KiB", 2**16), ("1.5G", 1_500_000_000)],
)
def test_sizes_are_read_as_people_write_them(text, nbytes):
    assert parse("max_bytes", text) == nbytes


@pytest.mark.parametrize("text", ["", "x", "0", "-8", "1.5", "64Q", "8i", "1e400"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="max_bytes is .*, expected whole bytes such as 8, 64Ki"):
        parse("max_bytes", text)


def test_sizes_grow_by_the_factor_up_to_the_largest():
    assert sizes(8, 64, 2.0) == [8, 16, 32, 64]
    assert sizes(8, 20, 1.5) == [8, 12, 18]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--op", "allreduce"], "op is 'allreduce', expected one of all_reduce, all_gather"),
        (["--min-bytes", "8", "--max-bytes", "4"], "max_bytes is 4, expected at least min_bytes"),
        (["--max-bytes", "64Q"], "max_bytes is '64Q', expected whole bytes such as 8, 64Ki"),
        (["--factor", "1"], "factor is 1, expected more than 1"),
        (["--devices", "1"], "devices is 1, expected 2 or more"),
        (["--devices", "4", "--processes", "2"], "processes is 2 for 4 devices, expected the same"),
        (["--backend", "jax", "--devices", "4", "--processes", "3"], "expected one that divides"),
        (["--timeout", "0"], "timeout is 0, expected seconds, above 0"),
        (
            ["--op", "all_gather", "--max-bytes", "8", "--devices", "3"],
            "max_bytes is 8, too little",
        ),
        (["--backend", "mpi"], "invalid choice"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(flags, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(["bench", "comm", *flags])
    error = capsys.readouterr().err
    assert end.value.code == 2 and said in error.lower() + error and error.count("\n") == 1


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_missing_gpu_is_said_in_one_line(backend, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        main(["bench", "comm", "--backend", backend, "--device", "cuda"])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    assert "device is 'cuda', but nvidia-smi finds no GPU here" in error


def test_fewer_gpus_than_ranks_are_said_in_one_line(capsys, monkeypatch, tmp_path):
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho NVIDIA A GPU\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SystemExit):
        main(["bench", "comm", "--device", "cuda", "--devices", "4"])
    assert "devices is 4, but this host has 1 GPUs for 4 of them" in capsys.readouterr().err


def test_a_table_shows_times_and_both_bandwidths(capsys):
    main(["bench", "comm", "--max-bytes", "16", "--seconds", "1e-6"])
    shown = capsys.readouterr().out
    for word in (
        "all_reduce: every rank gets the sum",
        "algbw",
        "busbw",
        "16 B",
        "gloo:all_reduce",
    ):
        assert word in shown


def launched(launcher: str, flags: list[str]) -> list[dict]:
    """What rank 0 of two prints."""
    if launcher == "torchrun":
        done = run(BIN / "torchrun", "--standalone", "--nproc-per-node=2", *flags)
    elif launcher == "mpirun":
        done = run(BIN / "mpirun", "--oversubscribe", "-n", "2", sys.executable, *flags)
    else:  # what srun sets for two tasks on one node
        job = {
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_TASKS_PER_NODE": "2",
            "SLURM_STEP_NODELIST": "localhost",
        }
        tasks = [
            subprocess.Popen(
                [sys.executable, *flags],
                env=ENV | job | {"SLURM_PROCID": str(r), "SLURM_LOCALID": str(r)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for r in range(2)
        ]
        try:
            outs = [task.communicate(timeout=PATIENCE)[0] for task in tasks]
        finally:
            for task in tasks:
                task.kill()
        assert [task.returncode for task in tasks] == [0, 0] and not outs[1]
        return json.loads(outs[0])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("launcher", "backend"),
    [("torchrun", "torch"), ("mpirun", "torch"), ("srun", "torch"), ("mpirun", "jax")],
)
def test_the_same_command_runs_under_every_launcher(launcher, backend):
    rows = launched(launcher, [*SMALL, "--backend", backend])
    assert [row["nbytes"] for row in rows] == [1024, 2048, 4096]
    assert all(row["ranks"] == 2 and row["checked"] and row["nodes"] == 1 for row in rows)


@pytest.mark.parametrize("launcher", ["torchrun", "mpirun", "srun"])
def test_decoding_is_timed_under_every_launcher_and_rank_0_goes_on_where_it_was(launcher, tmp_path):
    out = tmp_path / "rows.jsonl"
    flags = ["-m", "cookbook_lib", "bench", "decode", "--seconds", "1e-6", "--context", "256"]
    flags += ["--method", "tree,ring-q", "--out", str(out), "--json"]
    rows = launched(launcher, flags)
    assert [row["method"] for row in rows] == ["tree", "ring-q"] and rows == results.read(out)
    assert all(row["p"] == 2 and row["checked"] and row["nodes"] == 1 for row in rows)
    assert launched(launcher, flags) == rows == results.read(out)
