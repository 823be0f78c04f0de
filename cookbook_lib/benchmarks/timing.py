"""Seconds that can be trusted: warmed up, waited for, repeated until their median is known well.

Samples are taken until the interval of the median (see `samples`) is narrow or time is up; what is
still wide then is called too noisy. To stop at a lucky moment makes an interval right less often
than it says, so it is looked at only each time that a tenth was added.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from statistics import median
from time import perf_counter
from typing import Protocol, runtime_checkable

from cookbook_lib.measuring import Ratio, Timing, interval


@runtime_checkable
class Clock(Protocol):
    """What takes the time: `WallClock`, `cuda.CudaClock`, or a test's own."""

    shortest: float  # seconds that a sample should last, so that the clock's steps do not matter

    def now(self) -> float: ...

    def prepared(self, run: Callable[[], object]) -> Callable[[], object]:
        """What is called in place of `run`, from its second call on."""

    def sample(self, run: Callable[[], object], times: int) -> float:
        """Seconds of one of `times` calls, each of them done."""


class WallClock:
    """The host's clock, for a CPU: a call is done when it returns."""

    shortest = 1e-3

    def __init__(self, now: Callable[[], float] = perf_counter):
        self.now = now

    def prepared(self, run: Callable[[], object]) -> Callable[[], object]:
        return run

    def sample(self, run: Callable[[], object], times: int) -> float:
        start = self.now()
        for _ in range(times):
            run()
        return (self.now() - start) / times


def clock(device: str, graph: bool = False) -> Clock:
    """The clock of a device. `graph`: on CUDA, capture what is timed once and replay it."""
    if device != "cuda":
        return WallClock()
    from cookbook_lib.benchmarks.cuda import CudaClock

    return CudaClock(graph=graph)


@dataclass(frozen=True, kw_only=True)
class Stop:
    """When enough was measured.

    precision: half the interval of the median, as a part of it, that is narrow enough. seconds: for
    all samples together, warm-up not counted. least and most: samples of each side. warmup: calls
    before any counts; they go on for `warmup_seconds`, as a GPU needs time to raise its clocks.
    """

    precision: float = 0.02
    seconds: float = 2.0
    least: int = 6  # fewer cannot give 95%: 1 - 2 / 2^5 < 0.95
    most: int = 1000
    warmup: int = 2
    warmup_seconds: float = 0.025  # as triton.testing.do_bench

    def __post_init__(self):
        for name in ("precision", "seconds", "least"):
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"{name} is {value}, expected a number above 0")
        if self.most < self.least:
            raise ValueError(f"most is {self.most}, expected at least {self.least}")

    @classmethod
    def after(cls, repeats: int) -> "Stop":
        """A fixed number of samples, after one call that does not count."""
        return cls(least=repeats, most=repeats, warmup=0, warmup_seconds=0.0)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Sides that took turns: what slows the machine down slows all of them."""

    timings: dict[str, Timing]
    stop: Stop

    def ratio(self, side: str, other: str) -> Ratio:
        """Seconds of a side for each second of the other."""
        pairs = zip(self.timings[side].samples, self.timings[other].samples, strict=True)
        return Ratio(rounds=[a / b for a, b in pairs], precision=self.stop.precision)


def measure(
    run: Callable[[], object], clock: Clock | None = None, stop: Stop | None = None
) -> Timing:
    """Time one thing."""
    return compare({"it": run}, clock, stop).timings["it"]


def compare(
    runs: Mapping[str, Callable[[], object]], clock: Clock | None = None, stop: Stop | None = None
) -> Comparison:
    """Time several things in turn, every other round in reverse.

    It goes on until each side's median is known, and each one's ratio to the first.
    """
    clock, stop = clock or WallClock(), stop or Stop()
    cold = {name: clock.sample(run, 1) for name, run in runs.items()}
    runs = {name: clock.prepared(run) for name, run in runs.items()}
    times = {name: warmed_up(run, cold[name], clock, stop) for name, run in runs.items()}
    took: dict[str, list[float]] = {name: [] for name in runs}
    order, start, look = list(runs), clock.now(), stop.least
    for rounds in range(1, stop.most + 1):
        for name in order:
            took[name].append(clock.sample(runs[name], times[name]))
        order.reverse()
        if rounds < stop.least:
            continue
        if clock.now() - start >= stop.seconds:
            break
        if rounds >= look:
            if narrow(took, stop):
                break
            look = ceil(1.1 * rounds)
    timings = {n: Timing(samples=took[n], cold=cold[n], times=times[n]) for n in runs}
    return Comparison(timings=timings, stop=stop)


def warmed_up(run: Callable[[], object], one: float, clock: Clock, stop: Stop) -> int:
    """Warm up after a call that took `one` second; how many calls a sample needs from here on."""
    start, calls = clock.now(), 0
    while calls < stop.warmup or clock.now() - start < stop.warmup_seconds:
        one, calls = clock.sample(run, 1), calls + 1
        if clock.now() - start >= stop.seconds or calls >= stop.most:
            break  # a call takes so long that time is better spent on samples, or none at all
    return max(1, ceil(clock.shortest / one - 1e-6)) if one > 0 else 1000


def narrow(took: dict[str, list[float]], stop: Stop) -> bool:
    """Whether all medians, and the ratios to the first side, are known well enough."""
    first, *others = took.values()
    ratios = ([a / b for a, b in zip(other, first, strict=True)] for other in others)
    for samples in (first, *others, *ratios):
        low, high, sure = interval(samples)
        if not sure or high - low > 2 * stop.precision * median(samples):
            return False
    return True
