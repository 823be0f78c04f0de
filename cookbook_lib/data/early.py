"""A worker process that starts while a command's arguments are still read.

Both take a tenth of a second or more, which is much of the time that 100 MB take. So this imports
next to nothing.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

WAITING: list[subprocess.Popen] = []


@contextmanager
def early() -> Iterator[None]:
    """One worker starts now; it ends with the context if none has asked for it."""
    WAITING.append(begun())
    try:
        yield
    finally:
        while WAITING:
            ended(WAITING.pop())


def worker() -> subprocess.Popen:
    """The one that waits, or a new one."""
    return WAITING.pop() if WAITING else begun()


def begun() -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "cookbook_lib.data.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def ended(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    process.stdout.close()
    with suppress(OSError):  # what it did not take
        process.stdin.close()
