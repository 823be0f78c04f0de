"""Where one curve falls below another: a length from which something pays off."""

from collections.abc import Mapping
from math import exp, log


def crossing(one: Mapping[int, float], other: Mapping[int, float]) -> float | None:
    """The first x from which `other` is the smaller of the two, and stays so; None if it never is.

    Both hold a positive value at each x. Between two of them the logarithm of their ratio is taken
    to be straight in the logarithm of x. 0 means: at each x already.
    """
    if set(one) != set(other):
        raise ValueError(f"x is {sorted(set(one) ^ set(other))[0]} in one curve only")
    xs = sorted(one)
    gaps = [log(other[x] / one[x]) for x in xs]
    if gaps[-1] >= 0:
        return None
    last = max((i for i, gap in enumerate(gaps) if gap >= 0), default=-1)
    if last < 0:
        return 0.0
    (x0, x1), (g0, g1) = xs[last : last + 2], gaps[last : last + 2]
    return exp(log(x0) + (log(x1) - log(x0)) * g0 / (g0 - g1))
