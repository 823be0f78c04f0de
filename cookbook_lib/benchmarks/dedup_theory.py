"""What theory says of a search for near-duplicates, beside what a benchmark measured."""

from pathlib import Path

import numpy as np

from cookbook_lib.benchmarks.dedup_tools import BANDS, MARGIN, PERMUTATIONS, ROWS, THRESHOLD
from cookbook_lib.data.banding import Banding, collision
from cookbook_lib.data.verification import found_by_signature, least_rows


def expected(planted: list[float]) -> dict[str, float]:
    """Recall by theory: of the bands alone, and with a bound on the rows that agree.

    A signature's rows agree by chance about a mean, so a bound at the threshold loses about half
    of the pairs that lie there. Exact verification loses none that the bands found.
    """
    wanted = [s for s in planted if s >= THRESHOLD]
    bounds = {"all, or those alike exactly": 0}
    for margin in (0.0, MARGIN):
        least = least_rows(THRESHOLD, PERMUTATIONS, margin)
        bounds[f"by signature, at least {least} of {PERMUTATIONS} rows"] = least
    by = {
        least: {
            s: found_by_signature(s, Banding(BANDS, ROWS), PERMUTATIONS, least) for s in set(wanted)
        }
        for least in bounds.values()
    }
    return {name: float(np.mean([by[least][s] for s in wanted])) for name, least in bounds.items()}


def s_curve(planted: list[float], merged: list[bool]) -> list[dict[str, float]]:
    """For each similarity the share of pairs that were merged, theory, and how far apart."""
    rows = []
    for similarity in sorted(set(planted)):
        hits = [m for m, s in zip(merged, planted, strict=True) if s == similarity]
        measured, theory = float(np.mean(hits)), collision(similarity, BANDS, ROWS)
        spread = (theory * (1 - theory) / len(hits)) ** 0.5
        rows.append(
            {
                "similarity": similarity,
                "pairs": len(hits),
                "measured": measured,
                "theory": theory,
                "deviations": (measured - theory) / spread if spread else 0.0,
            }
        )
    return rows


def draw(curve: list[dict[str, float]], path: Path) -> None:
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots()
    s = np.linspace(0, 1, 200)
    ax.plot(s, collision(s, BANDS, ROWS), label="theory")
    ax.plot([c["similarity"] for c in curve], [c["measured"] for c in curve], "o", label="measured")
    ax.set(xlabel="Jaccard similarity of the n-grams", ylabel="chance of a merge")
    ax.legend()
    fig.savefig(path)
    plt.close(fig)
