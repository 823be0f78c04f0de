"""Ranks that are started come back with their results or with one error that names the rank and the
operation; none of them hangs, and none outlives the run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rank_tasks

from cookbook_lib.communication import links, namespaces
from cookbook_lib.communication.launch import Seat, launch
from cookbook_lib.communication.member import RankError

PATIENCE = 60.0  # seconds after which a test gives up


@pytest.fixture(autouse=True)
def no_orphans():
    yield
    assert not children("cookbook_lib.communication.started")


def children(program: str) -> list[str]:
    """Processes of this one, or orphans, that run a program."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True).stdout
    mine = {"1", str(os.getpid())}
    lines = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return [args for _, ppid, args in lines if program in args and ppid in mine]


def test_results_come_back_in_order_and_rows_of_rank_0_at_once():
    rows = []
    results = launch(rank_tasks.where, 3, {"factor": 10}, on_row=rows.append)
    assert results == [[0, 3, 0, "launch"], [10, 3, 1, "launch"], [20, 3, 2, "launch"]]
    assert rows == [{"i": i, "from": 0} for i in range(3)]


@pytest.mark.parametrize("task", [rank_tasks.torch_sums, rank_tasks.jax_sums])
def test_a_rank_that_is_killed_in_a_collective_is_named_with_the_operation(task):
    with pytest.raises(RankError, match="rank 1 of 3, all_reduce of 4 KiB: died of SIGKILL") as e:
        launch(task, 3, {"victim": 1, "how": "SIGKILL"}, limit=PATIENCE)
    assert (e.value.rank, e.value.operation) == (1, "all_reduce of 4 KiB")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("task", [rank_tasks.torch_sums, rank_tasks.jax_sums])
def test_a_rank_that_is_stopped_in_a_collective_is_named_when_the_time_is_over(task):
    with pytest.raises(RankError, match="rank 0 of 2, all_reduce of 4 KiB: stopped; nothing for 1"):
        launch(task, 2, {"victim": 0, "how": "SIGSTOP", "limit": 1.0}, limit=PATIENCE)


def test_a_rank_that_does_not_come_is_named_and_not_the_one_that_waits():
    with pytest.raises(RankError, match="rank 1 of 2, all_reduce of 4 KiB: not begun, while rank"):
        launch(rank_tasks.late, 2, {"limit": 0.5}, limit=PATIENCE)


def test_the_rank_that_failed_is_named_and_not_those_that_fail_because_of_it():
    with pytest.raises(RankError, match="rank 1 of 3, a reduce: KeyError: 'x is 3, expected 4'"):
        launch(rank_tasks.wrong, 3, {"error": "KeyError"}, limit=PATIENCE)
    with pytest.raises(ValueError, match="^x is 3, expected 4$"):
        launch(rank_tasks.wrong, 3, {"error": "ValueError"}, limit=PATIENCE)


def test_ranks_end_with_a_parent_that_is_killed_also_if_they_are_stopped(tmp_path):
    program = f"""
import sys
sys.path[:0] = {sys.path!r}
import rank_tasks
from cookbook_lib.communication.launch import launch
launch(rank_tasks.sleeping, 2, {{"folder": {str(tmp_path)!r}}})
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    files = [tmp_path / f"{r}.pid" for r in range(2)]
    wait_until(lambda: all(file.exists() for file in files))
    ranks = [int(file.read_text()) for file in files]
    os.kill(ranks[1], signal.SIGSTOP)
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(running(pid) for pid in ranks))


def wait_until(true) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_cannot_be_launched_is_refused_in_one_line():
    with pytest.raises(ValueError, match="ranks is 0, expected 1 or more"):
        launch(rank_tasks.where, 0)
    with pytest.raises(ValueError, match="seats are 1, expected one for each of 2 ranks"):
        launch(rank_tasks.where, 2, seats=[Seat()])
    with pytest.raises(ValueError, match="limit is 0, expected seconds"):
        launch(rank_tasks.where, 2, limit=0.0)


def test_namespaces_of_a_process_that_is_gone_are_swept_and_others_stay(monkeypatch):
    removed = []
    gone = subprocess.Popen(["true"])
    gone.wait()
    names = [f"cookbook-{gone.pid}-rank0", f"cookbook-{os.getpid()}-rank0", "somebody"]
    listed = json.dumps([{"name": n} for n in names])
    monkeypatch.setattr(namespaces, "ip", lambda *_: listed)
    monkeypatch.setattr(namespaces, "remove", removed.append)
    namespaces.sweep()
    assert removed == [f"cookbook-{gone.pid}-rank0"]


@pytest.mark.skipif(bool(links.missing()), reason=f"no links of a known rate: {links.missing()}")
class TestLinks:
    def test_ranks_in_namespaces_meet_and_the_counters_see_what_they_send(self):
        with links.network(2, rate=1e8) as net:
            before = net.sent()
            with pytest.raises(RankError, match="died of SIGKILL"):
                launch(rank_tasks.torch_sums, 2, {"victim": 1, "how": "SIGKILL"}, seats=net.seats)
            assert all(b - a > 4096 for a, b in zip(before, net.sent(), strict=True))
            spaces = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
            assert all(space in spaces for space in net.spaces)
        left = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
        assert f"cookbook-{os.getpid()}" not in left
        assert not list(Path("/etc/netns").glob(f"cookbook-{os.getpid()}*"))

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
    def test_nothing_is_left_of_a_process_that_is_killed(self, how):
        program = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from cookbook_lib.communication.links import network
with network(2, rate=1e8, nodes=2) as net:
    print("ready", flush=True)
    time.sleep({PATIENCE})
"""
        parent = subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with parent.stdout as said:
            assert said.readline() == "ready\n"
        mine = f"cookbook-{parent.pid}-"
        assert mine in namespaces.ip("netns", "list") and list(Path("/etc/netns").glob(f"{mine}*"))
        os.killpg(parent.pid, how)  # its children too
        parent.wait()
        wait_until(lambda: mine not in namespaces.ip("netns", "list"))
        wait_until(lambda: not list(Path("/etc/netns").glob(f"{mine}*")))

    def test_what_cannot_be_built_is_refused_in_one_line(self):
        with pytest.raises(ValueError, match="ranks are 3 in 2 nodes, expected equal parts"):  # noqa: SIM117
            with links.network(3, rate=1e8, nodes=2):
                pass
