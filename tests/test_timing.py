"""A number of seconds is right, its interval holds the true median, and noise is called noise."""

import random
from itertools import cycle
from math import comb
from types import SimpleNamespace

import pytest
import torch

from cookbook_lib import provenance
from cookbook_lib.benchmarks import cuda
from cookbook_lib.benchmarks.ceilings import COPIED, SIDES, Ceilings, ceilings
from cookbook_lib.benchmarks.rows import row
from cookbook_lib.benchmarks.timing import Stop, WallClock, clock, compare, measure
from cookbook_lib.measuring import Ratio, Timing, interval


class Hands:
    """A clock that only moves when something that is timed says how long it took."""

    def __init__(self):
        self.time = 1000.0
        self.clock = WallClock(now=lambda: self.time)

    def takes(self, seconds):
        waits = iter(seconds if hasattr(seconds, "__next__") else cycle([seconds]))

        def run():
            self.time += next(waits)

        return run


@pytest.mark.parametrize("seconds", [5e-7, 0.005, 2.0])
def test_seconds_are_seconds(seconds):
    """zcookbook's benchmarks hand seconds to a printer of milliseconds: 5 ms reads "5.00 µs"."""
    hands = Hands()
    found = measure(hands.takes(seconds), hands.clock)
    assert found.median == pytest.approx(seconds, rel=1e-6)
    said = row({}, found, device="cpu", flops=3e9, nbytes=6e9)
    assert said["seconds"]["median"] == pytest.approx(seconds, rel=1e-6)
    assert said["flops_per_second"] == pytest.approx(3e9 / seconds)
    assert said["bytes_per_second"] == pytest.approx(6e9 / seconds)


def test_events_of_a_gpu_tell_milliseconds():
    start = SimpleNamespace(elapsed_time=lambda end: 5.0)
    assert cuda.seconds_between(start, None) == 0.005


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")
@pytest.mark.parametrize("graph", [False, True])
def test_a_gpu_is_waited_for(graph):
    """A product takes longer than at a rate that no chip reaches; its launch takes far less."""
    x = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    took = measure(lambda: x @ x, clock("cuda", graph=graph), Stop(seconds=0.5))
    assert took.median > 2 * 4096**3 / 1e16
    assert set(provenance.gpu_state()) <= set(provenance.FIELDS)


def test_what_nvidia_smi_does_not_tell_is_left_out():
    assert provenance.parsed("1980, 2619, 120.53, 41\n") == {
        "clocks.sm": 1980,
        "clocks.mem": 2619,
        "power.draw": 120.53,
        "temperature.gpu": 41,
    }
    told = provenance.parsed("1980, 2619, [N/A], 41\n")
    assert told.keys() == set(provenance.FIELDS) - {"power.draw"}
    assert provenance.parsed("") == {}


def test_a_short_call_is_repeated_until_the_clock_can_see_it():
    hands = Hands()
    found = measure(hands.takes(1e-5), hands.clock)
    assert found.times * 1e-5 == pytest.approx(hands.clock.shortest)
    assert measure(hands.takes(0.0), hands.clock).times == 1000


def test_the_first_call_and_the_warm_up_are_no_samples():
    hands = Hands()
    found = measure(hands.takes(iter([30.0, 0.4, 0.3, *[0.1] * 6])), hands.clock, Stop(seconds=1.0))
    assert found.cold == 30.0 and found.samples == pytest.approx([0.1] * 6)


def test_a_gpu_is_warmed_up_for_a_while():
    hands, calls = Hands(), []
    measure(lambda: calls.append(hands.takes(1e-3)()), hands.clock, Stop(warmup_seconds=0.1))
    assert len(calls) == pytest.approx(1 + 100 + 6, abs=1)  # a tenth of a second of calls


@pytest.mark.parametrize("n", range(1, 60))
def test_an_interval_holds_the_median_as_often_as_it_says(n):
    """Counted over every way that n samples can fall on the two sides of the true median."""
    low, high, sure = interval([float(i) for i in range(1, n + 1)])
    assert low + high == n + 1
    # the median lies between the k-th and the next sample if k of n fell below it
    inside = sum(comb(n, k) for k in range(n + 1) if low <= k < high) / 2**n
    assert sure == (inside >= 0.95) == (n >= 6)
    assert not sure or low == 1 or n < 9 or inside - 2 * comb(n, int(low)) / 2**n < 0.95  # tightest


def test_measuring_stops_when_the_median_is_known_or_time_is_up():
    steady, noise = Hands(), Hands()
    found = measure(steady.takes(0.01), steady.clock)
    assert len(found.samples) == 6 and not found.noisy and found.spread == 0
    draw = random.Random(0)
    waits = iter(lambda: draw.lognormvariate(-4, 1), None)
    found = measure(noise.takes(waits), noise.clock, Stop(seconds=5.0))
    assert len(found.samples) > 30 and 5.0 <= sum(found.samples) < 6.0
    assert found.quantile(1) < found.interval.low < found.median < found.interval.high
    assert found.interval.high < found.quantile(9) and found.noisy
    less = iter(lambda: draw.lognormvariate(-4, 0.2), None)
    found = measure(noise.takes(less), noise.clock, Stop(seconds=1e6))
    assert 100 < len(found.samples) < 1000 and found.spread <= 0.02 and not found.noisy


def test_few_samples_are_too_noisy_whatever_they_say():
    assert Timing(samples=[1.0] * 5, cold=1.0).noisy
    assert not Timing(samples=[1.0] * 6, cold=1.0).noisy
    assert Timing(samples=[1.0], cold=1.0).json()["p90"] == 1.0


def test_sides_take_turns_and_no_side_is_always_first():
    turns = []
    found = compare({s: lambda s=s: turns.append(s) for s in "ab"}, stop=Stop.after(4))
    assert turns[:2] == ["a", "b"]  # the calls that do not count
    samples = turns[2:]
    order = [s for s, before in zip(samples, [None, *samples], strict=False) if s != before]
    assert order == ["a", "b", "a", "b", "a"]  # ab ba ab ba, runs of one side joined
    assert [len(t.samples) for t in found.timings.values()] == [4, 4]


def test_what_slows_the_machine_slows_both_sides():
    """The machine gets 30 times slower and fast again: the ratio does not notice."""
    hands, calls = Hands(), []

    def side(seconds):
        def run():
            calls.append(1)
            hands.time += seconds * (30 if len(calls) // 12 % 2 else 1)

        return run

    found = compare({"a": side(0.02), "b": side(0.06)}, hands.clock, Stop(seconds=60.0))
    assert found.ratio("b", "a").median == pytest.approx(3)
    assert found.ratio("b", "a").verdict == "slower"
    assert found.ratio("a", "b").verdict == "faster"
    assert found.timings["a"].noisy


@pytest.mark.parametrize(
    ("rounds", "verdict"),
    [
        ([1.1, 1.2, 1.1, 1.3, 1.2, 1.4], "slower"),
        ([0.9, 0.8, 0.9, 0.7, 0.8, 0.9], "faster"),
        ([0.99, 1.0, 1.01, 1.0, 0.99, 1.01], "equal"),
        ([0.5, 1.0, 2.0, 1.1, 0.7, 1.3], "too noisy to compare"),
        ([9.0, 9.0, 9.0], "too noisy to compare"),
    ],
)
def test_a_comparison_says_what_it_can(rounds, verdict):
    assert Ratio(rounds=rounds, precision=0.02).verdict == verdict


def test_a_roofline_is_made_of_two_ceilings_and_says_which_one_binds():
    known = Timing(samples=[1.0] * 6, cold=1.0)
    roof = Ceilings(flops=1e12, bandwidth=1e11, matmul=known, copy=known)
    assert roof.ridge == 10
    assert roof.bound(1e12, 1e9) == 1.0 and roof.bound(1e9, 1e12) == 10.0
    hands = Hands()
    took = measure(hands.takes(20.0), hands.clock)
    said = row({}, took, device="cpu", flops=1e12, nbytes=1e12, ceilings=roof)
    assert said["roofline"] == pytest.approx(0.5)
    assert said["ceilings"] == {"flops": 1e12, "bandwidth": 1e11, "noisy": False}


@pytest.mark.parametrize(
    ("seconds", "side"),
    [(0.125, 16), (1.0, 8)],  # six samples of eight times as long, and more than 10 s are too many
)
def test_ceilings_are_the_best_product_in_time_and_a_copy_that_counts_both_ways(
    seconds, side, monkeypatch
):
    """By a clock on which everything takes as long, the larger product is the faster one."""
    monkeypatch.setitem(SIDES, "cpu", (8, 16))
    monkeypatch.setitem(COPIED, "cpu", 4096)
    slow = WallClock(now=lambda: 0.0)
    monkeypatch.setattr(slow, "sample", lambda run, times: (run(), seconds)[1])
    found = ceilings("cpu", "bf16", Stop(warmup_seconds=0.0), slow)
    assert found.flops == 2 * side**3 / seconds and found.bandwidth == 2 * 4096 / seconds
    assert found.chip("this one").ridge == found.ridge


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"precision": 0.0}, "precision is 0.0, expected a number above 0"),
        ({"least": 10, "most": 5}, "most is 5, expected at least 10"),
    ],
)
def test_a_stop_that_never_comes_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Stop(**wrong)
