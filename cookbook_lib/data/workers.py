"""Tasks carried out in processes of their own: here, or on the nodes of a Ray cluster.

A task is a function and its arguments. It writes files and returns nothing, and to do it twice
does no harm; so what a lost worker had begun is done again by another.

Why no engine from elsewhere: `cookbook bench dedup` on 10,000 documents (37 MB, two cores, medians
of three interleaved runs, 2026-11) took 1.4 s for the whole pipeline, which filters, resumes and
writes every document, and 1.0 s for signatures and clusters alone with Daft's native runner. A
third faster without the rest did not pay for another 300 MB of dependencies; Ray gives the nodes.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

from cookbook_lib.data.nodes import connected, cores

Task = tuple[Callable[..., None], tuple]
TRIES = 9  # of one task, if its worker or its node dies
Done = Callable[[int], None]  # is told how many tasks are done


@dataclass(frozen=True)
class Crew:
    """Workers for as long as a run takes: `carry_out(tasks, done)`; the first error ends all."""

    size: int
    carry_out: Callable[[list[Task], Done], None]


@contextmanager
def crew(engine: str, workers: int, address: str | None) -> Iterator[Crew]:
    """Processes here, or those of the Ray cluster at `address`.

    All nodes of a cluster must see the files and the output folder under the same paths.
    """
    with on_ray(address) if engine == "ray" else here(workers) as made:
        yield made


@contextmanager
def here(workers: int) -> Iterator[Crew]:
    pool = ProcessPoolExecutor(  # starts a process when there is work for it
        workers, get_context("spawn"), initializer=end_with, initargs=(os.getpid(),)
    )

    def carry_out(tasks: list[Task], done: Done) -> None:
        if workers == 1 or len(tasks) < 2:
            for n, (function, arguments) in enumerate(tasks, 1):
                function(*arguments)
                done(n)
            return
        futures = [pool.submit(function, *arguments) for function, arguments in tasks]
        for n, future in enumerate(as_completed(futures), 1):
            future.result()
            done(n)

    try:
        yield Crew(workers, carry_out)
    finally:
        pool.shutdown(cancel_futures=True)


def end_with(parent: int) -> None:
    """End this process when its parent is gone: it could be killed in a way that tells nobody."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def on_ray(address: str | None) -> Iterator[Crew]:
    """Ray runs the tasks of what dies again."""
    with connected(address) as ray:
        task = ray.remote(num_cpus=1, max_retries=TRIES)(call)

        def carry_out(tasks: list[Task], done: Done) -> None:
            left = [task.remote(function, arguments) for function, arguments in tasks]
            while left:
                ready, left = ray.wait(left)
                try:
                    ray.get(ready)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                done(len(tasks) - len(left))

        yield Crew(cores(ray), carry_out)


def call(function: Callable[..., None], arguments: tuple) -> None:
    function(*arguments)
