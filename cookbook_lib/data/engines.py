"""Where pieces are counted: in processes of this machine, or on a Ray cluster.

An engine takes a job and numbered pieces, and yields `(number, result)` as they are finished, in
any order.

Why no engine from elsewhere: 100 MB of JSON lines on two cores (whole processes, medians of
interleaved runs, 2026-11) took 1.5 s here, half as long again with Daft's native runner around the
same tokenizer, and 1.3 s with the bare tokenizer, which proves nothing and reports no damage.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from queue import Empty, Queue
from threading import Thread
from typing import Any

from cookbook_lib.data.early import ended, worker
from cookbook_lib.data.job import Job, Stop, Told
from cookbook_lib.data.nodes import connected, cores
from cookbook_lib.data.reading import Piece

Numbered = list[tuple[int, Piece]]
Results = Iterator[tuple[int, dict[str, Any]]]
TRIES = 3  # of one piece, if its worker dies


def local(job: Job, todo: Numbered, told: Told, workers: int) -> Results:
    """On `workers` cores, two to a process: loading the tokenizer is paid once for both, and one
    piece is read while another is encoded. The processes are ended when the results are at hand.
    """
    if [piece.file.path for _, piece in todo] == ["-"]:  # a worker has no standard input to read
        from cookbook_lib.data.counting import count_piece

        yield 0, count_piece(job, 0, todo[0][1], told)
        return
    processes = max(min(-(-workers // 2), len(todo)), 1)
    threads = -(-workers // processes)
    waiting, news = Queue(), Queue()
    for numbered in todo:
        waiting.put(numbered)
    hands = [Hand(job, threads) for _ in range(processes)]
    try:
        for hand in hands:
            hand.thread = Thread(target=hand.work, args=(waiting, news), daemon=True)
            hand.thread.start()
        left = len(todo)
        while left:
            kind, index, thing = news.get()
            if kind == "told":
                told(thing["bytes"], thing["tokens"])
            elif kind == "result":
                left -= 1
                yield index, thing
            else:
                raise Stop(thing) if kind == "stop" else ValueError(thing)
    finally:
        waiting.queue.clear()
        for hand in hands:
            hand.end()


class Hand:
    """One worker process, and what this process does to keep it busy."""

    def __init__(self, job: Job, threads: int):
        self.job, self.threads, self.over = job, threads, False
        self.at_once = threads
        self.thread: Thread
        self.start()

    def start(self) -> None:
        self.process = worker()
        with suppress(BrokenPipeError):  # it is dead already: `work` finds that
            self.send({"threads": self.threads, "job": asdict(self.job)})

    def send(self, thing: Any) -> None:
        self.process.stdin.write(json.dumps(thing) + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """End the process, whatever it does; then the thread, which waits for it."""
        self.over = True
        self.process.kill()
        self.thread.join()
        ended(self.process)

    def work(self, waiting: Queue, news: Queue) -> None:
        """Count pieces, some at a time, until none waits.

        What a worker that died had in hand is tried again, one after the other.
        """
        held: dict[int, Piece] = {}  # what the worker has in hand
        again: Numbered = []
        died: Counter[int] = Counter()
        while True:
            try:
                while len(held) < self.at_once and (more := following(again, waiting)):
                    held[more[0]] = more[1]
                    self.send([more[0], asdict(more[1])])
                if not held:
                    return
                said = json.loads(self.process.stdout.readline())
            except (BrokenPipeError, ValueError):  # it died, or died while it wrote
                if self.over:
                    return
                died.update(list(held))
                if lost := [held[index].file.path for index in held if died[index] == TRIES]:
                    said = f"{lost[0]}: its worker died {TRIES} times; is there enough memory?"
                    return news.put(("error", 0, said))
                again, held, self.at_once = [*held.items(), *again], {}, 1
                ended(self.process)
                self.start()
                continue
            index = said.pop("index")
            if "tokens" in said:
                news.put(("told", index, said))
            else:
                del held[index]
                news.put((*said, index, *said.values()))


def following(again: Numbered, waiting: Queue) -> tuple[int, Piece] | None:
    """The next piece, if there is one."""
    if again:
        return again.pop(0)
    with suppress(Empty):
        return waiting.get_nowait()
    return None


def ray(job: Job, todo: Numbered, told: Told, address: str | None) -> Results:
    """As tasks of a Ray cluster, one core each; Ray runs the tasks of what dies again.

    All nodes must see the files and the output folder under the same paths.
    """
    from cookbook_lib.data.counting import count_piece

    with connected(address) as cluster:
        job = replace(job, parallel=False)  # a task has one core
        task = cluster.remote(num_cpus=1, max_retries=TRIES * 3)(count_piece)
        shared, rest, running = cluster.put(job), list(reversed(todo)), {}
        while rest or running:
            while rest and len(running) < 2 * cores(cluster):
                index, piece = rest.pop()
                running[task.remote(shared, index, piece)] = index
            done, _ = cluster.wait(list(running), num_returns=1)
            for one in done:
                try:
                    result = cluster.get(one)
                except cluster.exceptions.RayTaskError as error:
                    raise error.cause from None
                told(result["bytes"], result["tokens"])
                yield running.pop(one), result
