"""Samples of a collective: one call at a time, after a barrier, as long as the slowest rank takes.

Each rank times its own call, from when it leaves the barrier until its result is there. Ranks leave
a barrier at slightly different moments, so a rank that leaves early also waits for the last: times
of microseconds hold that too.
"""

from collections.abc import Callable
from time import perf_counter

from cookbook_lib.measuring import Timing

WARM = 3  # calls before any counts; connections are made in the first
LEAST, MOST = 6, 200  # samples: fewer give no interval of 95%


def sampled(
    call: Callable[[], None],
    prepare: Callable[[], None],
    barrier: Callable[[], None],
    slowest: Callable[[list[float]], list[float]],
    seconds: float,
) -> Timing:
    """Time `call`, which ends when its result is there, for about `seconds` on all ranks together.

    prepare: before each call, off the clock. slowest: the maximum over the ranks, number by number,
    the same on all of them.
    """

    def once() -> float:
        prepare()
        barrier()
        start = perf_counter()
        call()
        return perf_counter() - start

    cold, *warm = slowest([once() for _ in range(1 + WARM)])
    times = min(MOST, max(LEAST, int(seconds / max(min(warm), 1e-9))))
    return Timing(samples=slowest([once() for _ in range(times)]), cold=cold)
