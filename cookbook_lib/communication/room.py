"""Room for a message: a size that one rank has no memory for is skipped by all ranks, together.

A rank that runs out in the middle of a collective leaves the others waiting in it. So what a size
needs is made before, while no rank talks to another, and then they agree.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

import numpy as np

from cookbook_lib.communication.ranks import Place
from cookbook_lib.free_memory import available, limited, ran_out

LEAST = 3  # messages
Worst = Callable[[list[float]], list[float]]  # the maximum over the ranks, number by number


def together(worst: Worst, *makes: Callable[[], Any]) -> Any:
    """What the last of `makes` gives; None on all ranks if memory was too small on one of them.

    Each is called if the one before had room on all ranks. It must not wait for another rank, and
    gives something.
    """
    made = None
    for make in makes:
        made, short = None, 0.0
        try:
            made = make()
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            short = 1.0
        if worst([short]) != [0.0]:
            made = None
            gc.collect()
            return None
    return made


def asked(nbytes: int, device: str) -> Any:
    """Memory that is asked for and not touched: a CPU's, for what every check holds at least.

    That is what the worst rank puts in, gets, and must get: it says no at once, where filling
    buffers would take its time on the other ranks.
    """
    return np.empty(LEAST * nbytes * (device == "cpu"), np.int8)


@contextmanager
def shared(place: Place, worst: Worst, device: str) -> Iterator[None]:
    """On a CPU no rank takes more than its part of what its host has free now (Linux)."""
    if device != "cpu":
        yield
        return
    free = available()
    (least,) = worst([-inf if free is None else -free / place.local_size])  # all have read it then
    with limited(None if least == -inf else int(-least)):
        yield
