"""Are two candidates as similar as the threshold asks? By their signatures, or by their texts."""

from math import ceil, comb, sqrt

import numpy as np

from cookbook_lib.data.banding import Banding
from cookbook_lib.data.clusters import Verify
from cookbook_lib.data.kept import Kept
from cookbook_lib.data.minhash import agreeing, jaccard
from cookbook_lib.data.shingles import normalise, shingles
from cookbook_lib.data.steps import MinHash

PAIRS = 20_000  # whose shingles are held at once for an exact comparison
TEXTS = 128  # that are cut into shingles at once: their arrays stay in a core's cache


def verifier(step: MinHash, signed: np.ndarray, here: np.ndarray, kept: Kept) -> Verify | None:
    """The function that says which candidates pass, or None; `here` are their places in `kept`."""
    if step.verify == "none":
        return None
    if step.verify == "signature":
        least = least_rows(step.threshold, step.permutations, step.margin)
        return lambda a, b: agreeing(signed, a, b) >= least

    def exact(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        out = np.zeros(len(a), bool)
        for at in range(0, len(a), PAIRS):
            x, y = here[a[at : at + PAIRS]], here[b[at : at + PAIRS]]
            places = np.unique(np.concatenate([x, y]))
            texts = kept.take(places, "text")
            sets = [
                one
                for k in range(0, len(texts), TEXTS)
                for one in shingles(
                    [normalise(t) for t in texts[k : k + TEXTS]], step.ngram, step.kind
                ).sets()
            ]
            pairs = zip(np.searchsorted(places, x), np.searchsorted(places, y), strict=True)
            out[at : at + PAIRS] = [jaccard(sets[i], sets[j]) >= step.threshold for i, j in pairs]
        return out

    return exact


def least_rows(threshold: float, permutations: int, margin: float) -> int:
    """How many rows of two signatures must agree.

    At the threshold itself that number is binomial, so a bound at its mean loses about half of
    the pairs there. `margin` lowers the bound by so many of its standard deviations.
    """
    mean = threshold * permutations
    spread = sqrt(mean * (1 - threshold))
    return max(0, ceil(mean - margin * spread - 1e-9))


def found_by_signature(similarity: float, banding: Banding, permutations: int, least: int) -> float:
    """The chance that two documents meet in a band and agree in at least `least` rows.

    Of all ways in which k rows agree, those without a whole band are counted by the coefficients of
    ((1 + x)^rows - x^rows)^bands (1 + x)^rest.
    """
    bands, rows = banding
    partial = [comb(rows, k) for k in range(rows)]
    without = [1]
    for factor in [partial] * bands + [[1, 1]] * (permutations - bands * rows):
        without = times(without, factor)
    without += [0] * (permutations + 1 - len(without))
    s = float(similarity)
    ways = ((k, comb(permutations, k) - without[k]) for k in range(least, permutations + 1))
    return sum((n * s**k * (1 - s) ** (permutations - k) for k, n in ways), 0.0)


def times(x: list[int], y: list[int]) -> list[int]:
    """The product of two polynomials, in whole numbers of any size."""
    out = [0] * (len(x) + len(y) - 1)
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            out[i + j] += a * b
    return out
