"""A message that one rank has no memory for becomes a row that says so: all ranks skip it together,
and the sweep goes on."""

import errno
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rank_tasks

from cookbook_lib.cli import main
from cookbook_lib.communication.launch import launch
from cookbook_lib.communication.room import together
from cookbook_lib.free_memory import NO_MEMORY, available, limited
from cookbook_lib.results import read

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can limit memory")
MIB = 2**20


@linux
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_all_ranks_skip_what_one_of_them_has_no_memory_for(backend):
    """Rank 1 alone may take 320 MiB more: the first size is too much at once, the second later."""
    sizes = {"torch": (256, 48, 0), "jax": (256, 0)}[backend]  # MiB
    todo = [("all_reduce", max(4096, n * MIB)) for n in (0, *sizes)]
    given = {"backend": backend, "victim": 1, "spare": 320 * MIB, "todo": todo, "dtype": "fp32"}
    rows, more = [], {"devices": 1} if backend == "jax" else {}
    launch(rank_tasks.short_of_memory, 2, given | more, limit=120.0, on_row=rows.append)
    assert [(row["op"], row["nbytes"]) for row in rows] == todo
    due = [NO_MEMORY if n else None for n in (0, *sizes)]
    assert [row.get("outcome") for row in rows] == due
    assert [row.get("checked", False) for row in rows] == [not outcome for outcome in due]


@linux
def test_a_size_beyond_memory_is_a_row_which_is_not_run_again(tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    flags = ["--min-bytes", "1Ki", "--max-bytes", "64Ti", "--factor", str(2**36)]
    command = ["bench", "comm", *flags, "--seconds", "1e-6", "--out", str(out)]
    main(command)
    shown = capsys.readouterr().out
    assert shown.count("│ out of memory │") == 1 and shown.count("gloo:all_reduce") == 1
    first, second = read(out)
    assert first["checked"] and second["outcome"] == NO_MEMORY and second["nbytes"] == 2**46
    main([*command, "--json"])
    assert json.loads(capsys.readouterr().out) == read(out) == [first, second]


def test_each_step_is_made_if_the_one_before_had_room_on_all_ranks():
    def asked(*answers):
        told = iter(answers)
        return lambda mine: [max(mine[0], next(told))]

    calls = []

    def make(what, error=None):
        def run():
            calls.append(what)
            if error:
                raise error
            return what

        return run

    assert together(asked(0.0, 0.0), make("a"), make("b")) == "b"
    assert together(asked(1.0, 0.0), make("c"), make("d")) is None  # another rank has no room
    full = MemoryError("no")
    assert together(asked(0.0, 0.0), make("e", full), make("f")) is None
    assert calls == ["a", "b", "c", "e"]
    with pytest.raises(RuntimeError, match="shapes differ"):
        together(asked(0.0), make("g", RuntimeError("shapes differ")))


@linux
def test_a_limit_that_the_process_has_is_not_raised():
    import resource

    with limited(64 * MIB):
        before = resource.getrlimit(resource.RLIMIT_AS)
        with limited(2**40):
            assert resource.getrlimit(resource.RLIMIT_AS) == before
            with pytest.raises(MemoryError):
                np.empty(256 * MIB, np.int8)


GROUPS = {  # version -> /proc/self/cgroup, folder, files of the limit and the use, key of the cache
    "2": ("0::/job/step", "", ("memory.max", "memory.current"), "inactive_file"),
    "1": (
        "4:cpu,memory:/job/step",
        "memory",
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        "total_inactive_file",
    ),
}


@pytest.mark.parametrize("version", GROUPS)
def test_a_control_group_leaves_less_than_the_host_has(version, tmp_path):
    """The job may take 1,000 bytes and has 700, of which 50 can be freed; the step has no limit."""
    line, folder, files, cached = GROUPS[version]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   4 kB\n")
    assert available(tmp_path) == 4096
    (tmp_path / "proc/self/cgroup").write_text(line + "\n")
    for name, limit, use in (("job", "1000", "700"), ("job/step", str(2**60), "600")):
        place = tmp_path / "sys/fs/cgroup" / folder / name
        place.mkdir(parents=True)
        for file, text in zip((*files, "memory.stat"), (limit, use, f"{cached} 50"), strict=True):
            (place / file).write_text(text + "\n")
    if version == "2":
        (tmp_path / "sys/fs/cgroup/job/step/memory.max").write_text("max\n")
    assert available(tmp_path) == 350


def test_a_long_sweep_shows_a_bar_on_a_terminal_alone():
    command = [sys.executable, "-m", "cookbook_lib", "bench", "comm", "--seconds", "1e-6"]
    command += ["--min-bytes", "8", "--max-bytes", "16", "--json"]
    master, slave = pty.openpty()
    env = os.environ | {"TERM": "xterm", "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, env=env)
    os.close(slave)
    shown = b"".join(iter(lambda: piece(master), b"")).decode()
    printed = done.communicate(timeout=120)[0]
    os.close(master)
    assert done.returncode == 0 and len(json.loads(printed)) == 2
    assert "all_reduce of 8 B" in shown and "0/2" in shown and "━" in shown
    quiet = subprocess.run(command, capture_output=True, env=env, timeout=120)
    assert quiet.stderr == b"" and json.loads(quiet.stdout)


def piece(master: int) -> bytes:
    """What was written to a terminal; nothing at its end."""
    try:
        return os.read(master, 4096)
    except OSError as error:
        assert error.errno == errno.EIO  # Linux' way to say that all have closed it
        return b""


def test_what_a_message_holds_is_the_pattern_as_often_as_needed():
    from cookbook_lib.communication.collectives import collective
    from cookbook_lib.communication.messages import PERIOD, inputs

    for count in (1, PERIOD - 1, PERIOD, 3 * PERIOD + 5):
        of = inputs(collective("all_gather"), 2, count, "fp32")
        first = inputs(collective("all_gather"), 2, PERIOD, "fp32")
        for rank in (0, 1):
            assert (of(rank) == np.resize(first(rank), count)).all()


def test_rows_name_the_commit_and_the_machine():
    from cookbook_lib.results import commit, origin

    found = origin(["torch", "no-such-package"])
    assert found["commit"] == commit() and set(found["versions"]) == {"python", "torch"}
    assert (Path(__file__).parents[1] / ".git").exists() == bool(found["commit"])
