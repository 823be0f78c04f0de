"""The break-even is where two places take equally long, and the bytes of a plan are those of arrays
that are really made."""

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookbook_lib.data.banding import Banding, band_key
from cookbook_lib.data.clusters import chained
from cookbook_lib.data.scaling import Place, Search, break_even, fitted, sorted_in, with_tasks

PLACES = st.builds(
    Place, start=st.floats(0, 100), rate=st.floats(1e3, 1e9), cores=st.integers(1, 1000)
)


@given(PLACES, PLACES)
def test_at_the_break_even_both_take_the_same_time_and_beyond_it_the_far_one_wins(near, far):
    at = break_even(near, far)
    if at == inf:
        assert far.seconds(1e20) >= near.seconds(1e20) * (1 - 1e-9)
    else:
        assert far.seconds(at) <= near.seconds(at) * (1 + 1e-6)
        assert far.seconds(10 * at + 1) <= near.seconds(10 * at + 1) * (1 + 1e-6)
        if at:
            assert far.seconds(at) == pytest.approx(near.seconds(at), rel=1e-6)
            assert far.seconds(at / 2) >= near.seconds(at / 2)


@given(PLACES)
def test_two_measurements_give_back_the_place(place):
    runs = [(n, place.seconds(n)) for n in (1e9, 1e12)]
    found = fitted(*runs, cores=place.cores)
    assert found.rate == pytest.approx(place.rate)
    assert found.start == pytest.approx(place.start, abs=1e-3)


def test_a_larger_run_that_was_faster_is_noise_and_said_to_be():
    with pytest.raises(ValueError, match="expected more bytes to take longer"):
        fitted((1e6, 2.0), (2e6, 1.9), cores=2)


def test_tasks_that_take_as_long_to_send_as_to_do_halve_the_rate():
    assert with_tasks(rate=1e6, seconds=0.5, nbytes=5e5) == pytest.approx(5e5)


def test_sorting_twice_as_many_takes_more_than_twice_as_long():
    assert sorted_in(1.0, 2**20, 2**21) == pytest.approx(2 * 21 / 20)


def test_the_bytes_of_a_plan_are_those_of_the_arrays():
    signed = np.random.default_rng(0).integers(9, size=(1000, 128), dtype=np.uint32)
    plan, banding = Search(documents=1000, permutations=128, bands=32), Banding(32, 4)
    assert plan.signatures == signed.nbytes
    assert plan.keys_of_a_band == band_key(signed, banding, 0).nbytes
    a, b = chained(signed // 8, np.arange(1000), banding, range(32))  # nearly all are joined
    assert 0.9 * plan.forest_of_a_band < a.nbytes + b.nbytes < plan.forest_of_a_band
    assert plan.table()["edges, all bands, at most"] == 32 * plan.forest_of_a_band
