"""Two power laws cross where algebra says, wherever they were sampled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookbook_lib.benchmarks.crossings import crossing

XS = [2**i for i in range(4, 14)]


@given(st.floats(17, 8000), st.floats(0.1, 3), st.floats(-2, 2))
def test_power_laws_cross_where_they_are_equal(at, steeper, slope):
    one = {x: (x / at) ** (slope + steeper) for x in XS}
    other = {x: (x / at) ** slope for x in XS}
    assert crossing(one, other) == pytest.approx(at, rel=1e-6)
    assert crossing(other, one) is None


def test_below_everywhere_is_0_and_only_the_last_crossing_counts():
    flat = dict.fromkeys(XS, 1.0)
    assert crossing(flat, dict.fromkeys(XS, 0.5)) == 0.0
    bumpy = {x: 0.5 if x in (16, 64) or x > 1024 else 2.0 for x in XS}
    assert crossing(flat, bumpy) == pytest.approx(2**10.5)
    with pytest.raises(ValueError, match="in one curve only"):
        crossing(flat, {16: 1.0})
