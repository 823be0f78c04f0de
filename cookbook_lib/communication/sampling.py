"""Samples of a collective: one call at a time, after a barrier, as long as the slowest rank takes.

Each rank times its own call, from when it leaves the barrier until its result is there. Ranks leave
a barrier at slightly different moments, so a rank that leaves early also waits for the last: times
of microseconds hold that too.
"""

from collections.abc import Callable, Mapping
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

    return in_turn({"it": call}, prepare, barrier, slowest, seconds)["it"]


def in_turn(
    calls: Mapping[str, Callable[[], None]],
    prepare: Callable[[], None],
    barrier: Callable[[], None],
    slowest: Callable[[list[float]], list[float]],
    seconds: float,
) -> dict[str, Timing]:
    """`sampled` of several calls, one after the other in each round: what disturbs one disturbs
    all, so their times belong together."""

    def once(call: Callable[[], None]) -> float:
        prepare()
        barrier()
        start = perf_counter()
        call()
        return perf_counter() - start

    def rounds(times: int) -> dict[str, list[float]]:
        took = [[once(call) for call in calls.values()] for _ in range(times)]
        return {
            name: slowest(list(x)) for name, x in zip(calls, zip(*took, strict=True), strict=True)
        }

    first = rounds(1 + WARM)
    one = sum(min(warm) for _, *warm in first.values())
    found = rounds(min(MOST, max(LEAST, int(seconds / max(one, 1e-9)))))
    return {name: Timing(samples=x, cold=first[name][0]) for name, x in found.items()}
