"""A nursery of runs that are killed: forked from one process that has imported everything.

    killed_runs.py FOLDER at      SIGKILL as a file is first changed, then at the second change, …:
                                  each time a copy of a run of two steps is to do one more
    killed_runs.py FOLDER after   SIGKILL after a time drawn at random, again and again

After each death every checkpoint that has its name must be good, and the last no older than before;
then the run goes on. Prints, as JSON, how many died and the losses in the end.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from looped import run

from cookbook_lib.training import checkpoints
from cookbook_lib.training.session import Session, train

EVENTS = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
DEATHS = 12  # at random


def child(folder: Path, steps: int, most: int | None) -> None:
    """Train in the folder; die at change number `most` of files in it."""
    changes = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal changes
        written = event in EVENTS or (event == "open" and (arguments[2] or 0) & WRITES)
        if written and str(arguments[0]).startswith(str(folder)):
            changes += 1
            if changes == most:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    train(run(steps), Session(folder=folder, every=1, keep=2, resume=True, bar=False))


def died(folder: Path, steps: int, most: int | None = None, seconds: float | None = None) -> bool:
    """Whether a child died in the folder before it had done all steps."""
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        child(folder, steps, most)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def good(folder: Path) -> int:
    """The step of the last checkpoint; all that have their name are looked at."""
    paths = checkpoints.saved(folder / "checkpoints")
    return max([checkpoints.manifest(path)["step"] for path in paths], default=0)


def at(folder: Path) -> int:
    base, one, deaths = folder / "base", folder / "one", 0
    assert not died(base, 2)
    while True:
        shutil.rmtree(one, ignore_errors=True)
        shutil.copytree(base, one)
        if not died(one, 3, most=deaths + 1):
            return deaths
        deaths += 1
        assert good(one) >= 2, f"at change {deaths}"
        if deaths % 8 == 0:
            assert not died(one, 3) and good(one) == 3, f"after a death at change {deaths}"


def after(folder: Path) -> int:
    one, draw, last = folder / "one", random.Random(0), 0
    for _ in range(DEATHS):
        died(one, 12, seconds=draw.uniform(0.02, 0.5))
        now = good(one)
        assert now >= last, f"step {last} was good, now {now} is the last"
        last = now
    assert not died(one, 12)
    return DEATHS


if __name__ == "__main__":
    torch.set_num_threads(1)
    home = Path(sys.argv[1])
    deaths = {"at": at, "after": after}[sys.argv[2]](home)
    rows = [json.loads(line) for line in (home / "one/metrics.jsonl").read_text().splitlines()]
    print(json.dumps({"deaths": deaths, "losses": [row["loss"] for row in rows]}))
