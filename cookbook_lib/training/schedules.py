"""Shapes of a learning rate: from `start` to `end` as a part `u` of the way, 0 to 1, goes by.

Standard library only. A `Phase` puts a shape to work; here are the formulas alone.
"""

from collections.abc import Callable
from math import cos, inf, log, pi, sqrt

Shape = Callable[[float, float, float], float]  # (u, start, end) -> rate


def constant(u: float, start: float, end: float) -> float:
    return start


def linear(u: float, start: float, end: float) -> float:
    return start + (end - start) * u


def cosine(u: float, start: float, end: float) -> float:
    """Half a wave: slow, fast, slow. arXiv:1608.03983, equation 5, one cycle."""
    return end + (start - end) * (1 + cos(pi * u)) / 2


def exponential(u: float, start: float, end: float) -> float:
    """Equal factors in equal times; `end` above 0. MiniCPM's half-life is this too."""
    return start * (end / start) ** u


def one_minus_sqrt(u: float, start: float, end: float) -> float:
    """Fast, then slow: arXiv:2405.18392, equation 3."""
    return start + (end - start) * sqrt(u)


SHAPES: dict[str, Shape] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "exponential": exponential,
    "1-sqrt": one_minus_sqrt,
}


def half_life(elapsed: float, half: float) -> float:
    """What is left of 1 after `elapsed`, if `half` halves it. MiniCPM, arXiv:2404.06395.

    The paper prints f(s - T) = 0.5^((s - S) / T), with T for two things; this is the reading that
    starts at 1 and has T as the half-life.
    """
    return 0.5 ** (elapsed / half)


def inverse_sqrt(t: float, warmup: float) -> float:
    """Part of the peak after `t`: linear to `warmup`, then 1 / sqrt(t). arXiv:1706.03762, 5.3."""
    return min(t / warmup, sqrt(warmup / t)) if t else 0.0


def e_folds(start: float, end: float) -> float:
    """How often a rate falls by a factor e between the two."""
    return log(start / end) if end else inf
