"""Measured decoding steps against the alpha-beta model: fitted on one half, predicted on the other.

t = start + alpha steps + sent / beta + shards / read: the model of `communication.fit`, and what a
call takes that sends nothing, and the keys and values that have to be read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cookbook_lib.communication.fit import HUBER, ROUNDS

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Rates:
    """start: seconds of a call. alpha: of a step. beta: bytes/s of a link. read: of a core."""

    start: float
    alpha: float
    beta: float
    read: float

    def seconds(self, row: Row) -> float:
        return float(terms(row) @ [self.start, self.alpha, 1 / self.beta, 1 / self.read])


def terms(row: Row) -> np.ndarray:
    """One call, steps, bytes sent by a rank, bytes that the busiest core reads.

    Ranks share the cores of one machine; a lone token that goes round keeps one core busy.
    """
    alone = row["method"] == "ring-q" and row["b"] * row["l"] == 1
    cores = 1 if alone else min(row["cores"], row["p"])
    return np.array([1, row["steps"], row["sent"], row["read"] * row["p"] / cores], dtype=float)


def fitted(rows: Sequence[Row]) -> Rates:
    """By least squares of relative errors with Huber's weights."""
    times = np.array([row["seconds"]["median"] for row in rows])
    a = np.array([terms(row) for row in rows]) / times[:, None]
    size = a.max(0)
    weights, y = np.ones(len(rows)), np.zeros(4)
    for _ in range(ROUNDS):
        before, y = y, positive(a / size * weights[:, None], weights)
        off = np.abs(a / size @ y - 1)
        scale = max(1.4826 * np.median(off), 1e-9)
        if np.allclose(y, before, rtol=1e-9, atol=0):
            break
        weights = np.sqrt(np.minimum(1, HUBER * scale / np.maximum(off, 1e-300)))
    start, alpha, beta, read = y / size
    return Rates(start=float(start), alpha=float(alpha), beta=float(1 / beta), read=float(1 / read))


def positive(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Least squares of four unknowns above 0; start or alpha is 0 where the rows do not show it."""
    used, y = [0, 1, 2, 3], np.zeros(4)
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


def ratio(
    rows: Sequence[Row], p: int, s: int, of: str = "ring-kv", to: str = "tree-fused"
) -> float:
    """How many times as long one method takes as another."""
    times = {r["method"]: r["seconds"]["median"] for r in rows if (r["p"], r["s"]) == (p, s)}
    return times["ring-kv"] / times["tree-fused"]
