"""Shapes of a learning rate: from `start` to `end` as a part `u` of the way, 0 to 1, goes by.

Standard library only. A `Phase` puts a shape to work; here are the formulas alone.
"""

from collections.abc import Callable
from math import cos, inf, log, pi, sqrt

Number = int | float
Shape = Callable[[Number, Number, Number], Number]  # (u, start, end) -> rate


def constant(u: Number, start: Number, end: Number) -> Number:
    return start


def linear(u: Number, start: Number, end: Number) -> Number:
    return start + (end - start) * u


def cosine(u: Number, start: Number, end: Number) -> Number:
    """Half a wave: slow, fast, slow. arXiv:1608.03983, equation 5, one cycle."""
    return end + (start - end) * (1 + cos(pi * u)) / 2


def exponential(u: Number, start: Number, end: Number) -> Number:
    """Equal factors in equal times; `end` above 0. MiniCPM's half-life is this too."""
    return start * (end / start) ** u


def one_minus_sqrt(u: Number, start: Number, end: Number) -> Number:
    """Fast, then slow: arXiv:2405.18392, equation 3."""
    return start + (end - start) * sqrt(u)


SHAPES: dict[str, Shape] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "exponential": exponential,
    "1-sqrt": one_minus_sqrt,
}


def half_life(elapsed: Number, half: Number) -> Number:
    """What is left of 1 after `elapsed`, if `half` halves it. MiniCPM, arXiv:2404.06395.

    The paper prints f(s - T) = 0.5^((s - S) / T), with T for two things; this is the reading that
    starts at 1 and has T as the half-life.
    """
    return 0.5 ** (elapsed / half)


def inverse_sqrt(t: Number, warmup: Number) -> Number:
    """Part of the peak after `t`: linear to `warmup`, then 1 / sqrt(t). arXiv:1706.03762, 5.3."""
    return min(t / warmup, sqrt(warmup / t)) if t else 0.0


def e_folds(start: Number, end: Number) -> Number:
    """How often a rate falls by a factor e between the two."""
    return log(start / end) if end else inf
