"""A process that counts pieces: a line of JSON in, lines of JSON out.

`python -m cookbook_lib.data.worker TOKENIZER` loads that if it is not empty, reads a job, then
pieces. A process of its own keeps Python's lock out of the way, and the run survives what a piece
may do to it. It ends with its input.
"""

import json
import os
import signal
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from threading import Lock
from typing import Any

from cookbook_lib.data.counting import count_piece, tokenizer_of
from cookbook_lib.data.files import File
from cookbook_lib.data.job import Job, Stop, at_home
from cookbook_lib.data.reading import Piece

SAYING = Lock()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that hands out work ends this one
    with suppress(Exception):  # it is loaded again when it is asked for, and says what is wrong
        if sys.argv[1]:
            tokenizer_of(Job(tokenizer=at_home(sys.argv[1])))
    if not (first := sys.stdin.readline()):
        return
    told = json.loads(first)
    job, threads = Job(**told["job"]), str(told["threads"])
    os.environ |= {"RAYON_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    with ThreadPoolExecutor(told["threads"]) as lanes:
        for line in sys.stdin:
            index, piece = json.loads(line)
            lanes.submit(answer, job, index, piece_of(piece))


def answer(job: Job, index: int, piece: Piece) -> None:
    def told(nbytes: int, tokens: int) -> None:
        say({"index": index, "bytes": nbytes, "tokens": tokens})

    try:
        say({"index": index, "result": count_piece(job, index, piece, told)})
    except Stop as error:
        say({"index": index, "stop": str(error)})
    except ValueError as error:
        say({"index": index, "error": str(error)})
    except BrokenPipeError:  # no one listens any more
        os._exit(0)
    except BaseException:  # a fault of ours: who listens must not wait for the result
        traceback.print_exc()
        os._exit(1)


def piece_of(row: dict[str, Any]) -> Piece:
    return replace(Piece(**row), file=File(**row["file"]))


def say(thing: dict[str, Any]) -> None:
    with SAYING:
        sys.stdout.write(json.dumps(thing) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
