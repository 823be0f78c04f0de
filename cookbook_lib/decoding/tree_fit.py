"""Measured decoding steps against the alpha-beta model: fitted on one half, predicted on the other.

t = start + alpha steps + sent / beta + keys / read: the model of `communication.fit`, what a call
takes that sends nothing, and the keys and values that have to be read. Cores of one machine share
its memory, so a core that works alone reads faster than each of several: two rates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cookbook_lib.communication.fit import HUBER, ROUNDS

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Rates:
    """start: seconds of a call. alpha: of a step. beta: bytes/s of a link. read: bytes/s of each
    core while all are at work. alone: of one core while the others wait."""

    start: float
    alpha: float
    beta: float
    read: float
    alone: float

    def seconds(self, row: Row) -> float:
        rates = [1 / self.beta, 1 / self.read, 1 / self.alone]
        return float(terms(row) @ [self.start, self.alpha, *rates])


def terms(row: Row) -> np.ndarray:
    """One call, steps, bytes sent by a rank, bytes read by each of all cores, and by one alone.

    Ranks share the cores of one machine; a lone token that goes round keeps one of them busy. A
    ring of keys reads a shard while the next one comes, which takes longer, so only the last shard
    is not hidden by the wire.
    """
    shard = row["read"] / (row["p"] if row["method"] == "ring-kv" else 1)
    each, alone = shard * row["p"] / min(row["cores"], row["p"]), 0.0
    if row["method"] == "ring-q" and row["b"] * row["l"] == 1:
        each, alone = 0.0, shard * row["p"]
    return np.array([1, row["steps"], row["sent"], each, alone], dtype=float)


def fitted(rows: Sequence[Row]) -> Rates:
    """By least squares of relative errors with Huber's weights."""
    times = np.array([row["seconds"]["median"] for row in rows])
    a = np.array([terms(row) for row in rows]) / times[:, None]
    if not (size := a.max(0)).all():
        raise ValueError("rows cannot tell the rates apart, expected more methods and sizes")
    weights, y = np.ones(len(rows)), np.zeros(5)
    for _ in range(ROUNDS):
        before, y = y, positive(a / size * weights[:, None], weights)
        off = np.abs(a / size @ y - 1)
        scale = max(1.4826 * np.median(off), 1e-9)
        if np.allclose(y, before, rtol=1e-9, atol=0):
            break
        weights = np.sqrt(np.minimum(1, HUBER * scale / np.maximum(off, 1e-300)))
    start, alpha, *rates = (float(x) for x in y / size)
    beta, read, alone = (1 / x for x in rates)
    return Rates(start=start, alpha=alpha, beta=beta, read=read, alone=alone)


def positive(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Least squares of five unknowns above 0; start or alpha is 0 where no row shows it."""
    used, y = [0, 1, 2, 3, 4], np.zeros(5)
    while True:
        y[:] = 0
        y[used] = np.linalg.lstsq(a[:, used], b, rcond=None)[0]
        if (y[2:] <= 0).any() or np.linalg.matrix_rank(a[:, used]) < len(used):
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


def judged(row: Row, predicted: float, within: float = 0.25) -> str:
    """Whether a prediction is that near the measured median, in the words of `measuring.judged`.

    It fails if it is not so near to any number in which the median may lie.
    """
    found = row["seconds"]
    if abs(predicted / found["median"] - 1) <= within:
        return "holds"
    possible = found["low"] * (1 - within) <= predicted <= found["high"] * (1 + within)
    return "too noisy to tell" if possible else "fails"


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
