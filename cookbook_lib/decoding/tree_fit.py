"""Measured decoding steps against the alpha-beta model: fitted on one half, predicted on the other.

t = start + alpha steps + sent / beta + reading: the model of `communication.fit`, what a call takes
that sends nothing, and the reading of keys and values, which is measured beside and not fitted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cookbook_lib.communication.fit import HUBER, ROUNDS

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Rates:
    """start: seconds of a call. alpha: of a step. beta: bytes/s of a link."""

    start: float
    alpha: float
    beta: float

    def seconds(self, row: Row) -> float:
        return float(terms(row) @ [self.start, self.alpha, 1 / self.beta]) + reading(row)


def terms(row: Row) -> np.ndarray:
    """One call, steps, bytes sent by a rank."""
    return np.array([1, row["steps"], row["sent"]], dtype=float)


def reading(row: Row) -> float:
    """Seconds of attention itself that no message hides, from what each shard takes.

    A lone token that goes round finds one rank at work at a time. A ring of keys reads a shard
    while the next one comes, as long as that takes longer; only the last is not hidden.
    """
    if row["method"] == "ring-q" and row["b"] * row["l"] == 1:
        return row["p"] * row["reading"]["alone"]
    return row["reading"]["together"]


def middle(rows: Sequence[Row]) -> list[Row]:
    """Of each point that was measured in several passes, the row with the middle median.

    A disturbance that lasts for some seconds spoils all samples of a point, and so its median, but
    not those of a pass at another time.
    """
    points: dict[tuple, list[Row]] = {}
    for row in rows:
        points.setdefault((row["p"], row["s"], row["method"]), []).append(row)
    by_time = (sorted(group, key=lambda r: r["seconds"]["median"]) for group in points.values())
    return [group[(len(group) - 1) // 2] for group in by_time]


def fitted(rows: Sequence[Row]) -> Rates:
    """By least squares of relative errors with Huber's weights."""
    times = np.array([row["seconds"]["median"] for row in rows])
    a = np.array([terms(row) for row in rows]) / times[:, None]
    due = 1 - np.array([reading(row) for row in rows]) / times
    size = a.max(0)
    weights, y = np.ones(len(rows)), np.zeros(3)
    for _ in range(ROUNDS):
        before, y = y, positive(a / size * weights[:, None], due * weights)
        off = np.abs(a / size @ y - due)
        scale = max(1.4826 * np.median(off), 1e-9)
        if np.allclose(y, before, rtol=1e-9, atol=0):
            break
        weights = np.sqrt(np.minimum(1, HUBER * scale / np.maximum(off, 1e-300)))
    start, alpha, beta = y / size
    return Rates(start=float(start), alpha=float(alpha), beta=float(1 / beta))


def positive(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Least squares of three unknowns above 0; start or alpha is 0 where no row shows it."""
    used, y = [0, 1, 2], np.zeros(3)
    while True:
        y[:] = 0
        y[used] = np.linalg.lstsq(a[:, used], b, rcond=None)[0]
        if y[2] <= 0 or np.linalg.matrix_rank(a[:, used]) < len(used):
            raise ValueError("rows cannot tell the rates apart, expected more methods and sizes")
        if (y[:2] >= 0).all():
            return y
        used.remove(int(np.argmin(y[:2])))


def halves(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """As on a chessboard of methods and contexts, for each number of ranks: black, then white."""
    methods, contexts, ranks = (sorted({r[key] for r in rows}) for key in ("method", "s", "p"))
    found: tuple[list[Row], list[Row]] = [], []
    for r in rows:
        at = methods.index(r["method"]) + contexts.index(r["s"]) + ranks.index(r["p"])
        found[at % 2].append(r)
    return found


def predictions(rows: Sequence[Row]) -> tuple[dict[int, Rates], list[tuple[Row, float]]]:
    """Rates of each number of ranks, fitted to one half; the other half with what they predict.

    The ranks share the cores of one machine, so a step takes longer with more of them.
    """
    fits, found = {}, []
    for p in sorted({r["p"] for r in rows}):
        known, asked = halves([r for r in rows if r["p"] == p])
        fits[p] = fitted(known)
        found += [(r, fits[p].seconds(r)) for r in asked]
    return fits, found


def of_point(rows: Sequence[Row], p: int, s: int, method: str) -> Row:
    return next(r for r in rows if (r["p"], r["s"], r["method"]) == (p, s, method))


def ratio(
    rows: Sequence[Row], p: int, s: int, slow: str = "ring-kv", fast: str = "tree-fused"
) -> float:
    """How many times as long one method takes as another."""
    one, other = (of_point(rows, p, s, name)["seconds"]["median"] for name in (slow, fast))
    return one / other


def ahead(
    rows: Sequence[Row], p: int, s: int, slow: str = "ring-kv", fast: str = "tree-fused"
) -> str:
    """Whether `fast` is faster, by the intervals of both medians, in the words of `judged`."""
    one, other = (of_point(rows, p, s, name)["seconds"] for name in (slow, fast))
    apart = one["low"] > other["high"] or one["high"] < other["low"]
    return (
        ("holds" if one["median"] > other["median"] else "fails") if apart else "too noisy to tell"
    )
