"""A worker process that starts while a command's arguments are still read.

Both take a tenth of a second or more, which is much of the time that 100 MB take. So this imports
next to nothing, and the worker loads what seems to be the tokenizer.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

WAITING: list[subprocess.Popen] = []


@contextmanager
def early(argv: list[str]) -> Iterator[None]:
    """One worker starts now; it ends with the context if none has asked for it."""
    WAITING.append(begun(guessed(argv)))
    try:
        yield
    finally:
        while WAITING:
            ended(WAITING.pop())


def worker() -> subprocess.Popen:
    """The one that waits, or a new one."""
    return WAITING.pop() if WAITING else begun()


def guessed(argv: list[str]) -> str:
    """The tokenizer that will be asked for as it is by default; nothing if that is not plain."""
    at = argv.index("--tokenizer") + 1 if "--tokenizer" in argv else len(argv)
    plain = not {"--exact", "--special-tokens"} & set(argv)
    return argv[at] if plain and at < len(argv) else ""


def begun(tokenizer: str = "") -> subprocess.Popen:
    """A process that waits for a job, with a tokenizer loaded if one is named."""
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-m", "cookbook_lib.data.worker", tokenizer],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},  # unused
    )


def ended(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    process.stdout.close()
    with suppress(OSError):  # what it did not take
        process.stdin.close()
