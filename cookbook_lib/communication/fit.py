"""Alpha and beta: the seconds of a step and the bytes/s of a link, fitted to measured collectives.

An algorithm sends its message in `steps` messages one after the other, and so puts `volume` times
the message on the busiest link: t = alpha steps + S volume / beta. Formulas of Thakur, Rabenseifner
and Gropp, "Optimization of Collective Communication Operations in MPICH" (2005), sections 3 and 4,
for n ranks; lg n is rounded up.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

HUBER = 1.345  # standard deviations beyond which a point pulls no harder: 95% efficient if Gaussian
ROUNDS = 50  # of reweighting


def lg(n: int) -> int:
    return (n - 1).bit_length()


# collective -> algorithm -> n -> (steps, volume); the first is what rings and pairs do
ALGORITHMS: Mapping[str, Mapping[str, Callable[[int], tuple[float, float]]]] = {
    "all_reduce": {
        "ring": lambda n: (2 * (n - 1), 2 * (n - 1) / n),
        "tree": lambda n: (2 * lg(n), 2 * lg(n)),  # reduce, then broadcast
        "recursive doubling": lambda n: (lg(n), lg(n)),
        "halving and doubling": lambda n: (2 * lg(n), 2 * (n - 1) / n),
    },
    "all_gather": {
        "ring": lambda n: (n - 1, (n - 1) / n),
        "recursive doubling": lambda n: (lg(n), (n - 1) / n),
    },
    "reduce_scatter": {
        "ring": lambda n: (n - 1, (n - 1) / n),
        "recursive halving": lambda n: (lg(n), (n - 1) / n),
    },
    "all_to_all": {"pairs": lambda n: (n - 1, (n - 1) / n)},
    "broadcast": {
        "ring": lambda n: (n - 1, 1),  # in many small pieces
        "tree": lambda n: (lg(n), lg(n)),
        "scatter, then gather": lambda n: (lg(n) + n - 1, 2 * (n - 1) / n),
    },
    "reduce": {
        "ring": lambda n: (n - 1, 1),
        "tree": lambda n: (lg(n), lg(n)),
        "scatter, then gather": lambda n: (2 * (n - 1), 2 * (n - 1) / n),
    },
    "scatter": {"pairs": lambda n: (n - 1, (n - 1) / n)},
    "gather": {"pairs": lambda n: (n - 1, (n - 1) / n)},
    **{name: {"pairs": lambda n: (1, 1)} for name in ("send", "exchange", "permute", "halo")},
}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """alpha in seconds, beta in bytes/s; residual: the median of |measured / fitted - 1|."""

    alpha: float
    beta: float
    residual: float
    points: int
    algorithm: str = ""

    def seconds(self, steps: float, volume: float, nbytes: float) -> float:
        return self.alpha * steps + volume * nbytes / self.beta


def fit(rows: Sequence[Mapping[str, Any]], algorithms: Mapping[str, str] | None = None) -> Fit:
    """One alpha and one beta for all of these rows, whose errors are relative.

    algorithms: collective -> its algorithm; by default the first of the table. Points far off pull
    no harder than others (Huber's weights). `ValueError` if the rows cannot tell alpha from beta.
    """
    terms = np.array([work(row, algorithms or {}) for row in rows], dtype=float).reshape(-1, 2)
    times = np.array([row["seconds"]["median"] for row in rows], dtype=float)
    if len(rows) < 3 or np.linalg.matrix_rank(terms / np.maximum(terms.max(0), 1e-300)) < 2:
        raise ValueError(
            f"rows are {len(rows)} of too few sizes, expected at least three, small and large"
        )
    scaled = terms / times[:, None]  # relative errors: each point wants scaled @ x == 1
    weights = np.ones(len(rows))
    x = np.zeros(2)
    for _ in range(ROUNDS):
        before, x = x, positive(scaled * weights[:, None], weights)
        off = np.abs(scaled @ x - 1)
        scale = max(1.4826 * np.median(off), 1e-9)  # exact data leave nothing but rounding
        if np.allclose(x, before, rtol=1e-9, atol=0):
            break
        weights = np.sqrt(np.minimum(1, HUBER * scale / np.maximum(off, 1e-300)))
    alpha, inverse = x
    return Fit(
        alpha=float(alpha),
        beta=float(1 / inverse),
        residual=float(np.median(off)),
        points=len(rows),
    )


def positive(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Least squares of two unknowns, of which alpha is not negative and 1 / beta is above 0."""
    x = np.linalg.lstsq(a, b, rcond=None)[0]
    if x[0] < 0:
        x = np.array([0.0, (a[:, 1] @ b) / (a[:, 1] @ a[:, 1])])
    if x[1] <= 0:
        raise ValueError("seconds do not grow with the message, expected larger messages to fit")
    return x


def work(row: Mapping[str, Any], algorithms: Mapping[str, str]) -> tuple[float, float]:
    """Steps, and bytes on the busiest link, of one row.

    XLA on CPUs sends four bytes for each number of two; `ran` says so.
    """
    table = ALGORITHMS[ran(row)]
    steps, volume = table[algorithms.get(row["op"], next(iter(table)))](row["ranks"])
    wider = 2 if row["ran"].endswith(" f32") and row["dtype"] in ("bf16", "fp16") else 1
    return float(steps), float(volume * row["nbytes"] * wider)


def ran(row: Mapping[str, Any]) -> str:
    """The collective of the table that the proof saw, which need not be the one asked for."""
    return "all_reduce" if "all_reduce" in row["ran"] else row["op"]


def best(rows: Sequence[Mapping[str, Any]]) -> Fit:
    """Of one collective: the algorithm whose formula fits best; several n are needed to tell.

    Two whose terms differ by a factor only, as tree and recursive doubling, fit equally well: the
    first is named.
    """
    (op,), (real,) = {row["op"] for row in rows}, {ran(row) for row in rows}
    fits = [replace(fit(rows, {op: name}), algorithm=name) for name in ALGORITHMS[real]]
    return min(fits, key=lambda f: f.residual)


def tiers(rows: Iterable[Mapping[str, Any]]) -> dict[str, Fit]:
    """One fit of all rows inside a node, "near", and one of all over several, "far".

    Each collective by the algorithm that fits it best alone, if its rows can tell.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault("near" if row["nodes"] == 1 else "far", []).append(row)
    return {
        tier: fit(group, algorithms(group)) for tier, group in sorted(found.items(), reverse=True)
    }


def algorithms(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Collective -> the algorithm that fits its rows best, where they tell alpha from beta."""
    found = {}
    for op in {row["op"] for row in rows}:
        with suppress(ValueError):
            found[op] = best([row for row in rows if row["op"] == op]).algorithm
    return found
