"""Tasks carried out in processes of their own: here, or on the nodes of a Ray cluster.

A task is a function and its arguments. It writes files and returns nothing, and to do it twice
does no harm; so what a lost worker had begun is done again by another.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

Task = tuple[Callable[..., None], tuple]
TRIES = 9  # of one task, if its worker or its node dies
Done = Callable[[int], None]  # is told how many tasks are done


def carry_out(tasks: list[Task], workers: int, done: Done) -> None:
    """Run tasks in processes here; the first error ends all."""
    if workers == 1 or len(tasks) < 2:
        for n, (function, arguments) in enumerate(tasks, 1):
            function(*arguments)
            done(n)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)),
        get_context("spawn"),
        initializer=end_with,
        initargs=(os.getpid(),),
    )
    with pool:
        futures = [pool.submit(function, *arguments) for function, arguments in tasks]
        try:
            for n, future in enumerate(as_completed(futures), 1):
                future.result()
                done(n)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def end_with(parent: int) -> None:
    """End this process when its parent is gone: it could be killed in a way that tells nobody."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def on_ray(tasks: list[Task], address: str | None, done: Done) -> None:
    """Run tasks on a Ray cluster; Ray runs the tasks of what dies again.

    All nodes must see the files and the output folder under the same paths.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports nothing to its makers
    import ray

    mine = not ray.is_initialized()
    if mine:
        ray.init(address, log_to_driver=False, logging_level="error")
    try:
        task = ray.remote(num_cpus=1, max_retries=TRIES)(call)
        left = [task.remote(function, arguments) for function, arguments in tasks]
        while left:
            ready, left = ray.wait(left)
            try:
                ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            done(len(tasks) - len(left))
    finally:
        if mine:
            ray.shutdown()


def call(function: Callable[..., None], arguments: tuple) -> None:
    function(*arguments)
