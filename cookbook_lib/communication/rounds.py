"""Several things timed in turn, so that what slows the machine slows all of them."""

from collections.abc import Callable
from time import perf_counter

from cookbook_lib.measuring import Timing


def rounds(
    calls: dict[str, Callable[[], object]],
    meet: Callable[[], None],
    slowest: Callable[[list[float]], list[float]],
    repeats: int,
) -> dict[str, Timing]:
    """Each call `repeats` times, round by round, after one that does not count.

    meet, slowest: a barrier and the maximum over the ranks, as in `sampling.sampled`.
    """
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            meet()
            start = perf_counter()
            call()
            took[name].append(perf_counter() - start)
    found = {}
    for name, times in took.items():
        cold, *samples = slowest(times)
        found[name] = Timing(samples=samples, cold=cold)
    return found
