"""A process that counts pieces: a line of JSON in, lines of JSON out.

`python -m cookbook_lib.data.worker` reads a job, then pieces. A process of its own for each worker
keeps Python's lock out of the way, and the run survives what a piece may do to it. It ends with
its input.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any

from cookbook_lib.data.counting import count_piece
from cookbook_lib.data.files import File
from cookbook_lib.data.job import Job, Stop
from cookbook_lib.data.reading import Piece


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that hands out work ends this one
    with suppress(ImportError):
        import gigatoken  # noqa: F401  while nothing is asked yet
    if not (first := sys.stdin.readline()):
        return
    told = json.loads(first)
    job, threads = Job(**told["job"]), str(told["threads"])
    os.environ |= {"RAYON_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    try:
        for line in sys.stdin:
            index, piece = json.loads(line)
            say(answer(job, index, piece_of(piece)))
    except BrokenPipeError:  # no one listens any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def answer(job: Job, index: int, piece: Piece) -> dict[str, Any]:
    def told(nbytes: int, tokens: int) -> None:
        say({"bytes": nbytes, "tokens": tokens})

    try:
        return {"result": count_piece(job, index, piece, told)}
    except Stop as error:
        return {"stop": str(error)}
    except ValueError as error:
        return {"error": str(error)}


def piece_of(row: dict[str, Any]) -> Piece:
    return replace(Piece(**row), file=File(**row["file"]))


def say(thing: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(thing) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
