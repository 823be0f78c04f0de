"""Documents whose similarity is known because it was planted: what deduplication is judged by."""

from dataclasses import dataclass

import numpy as np

# words such as `kato`: 11,025 of them, as in a text, and no two texts share 13 in a row by chance
LETTERS = (b"bcdfghjklmnpqrstvwxyz", b"aeiou") * 2


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two texts of equally many n-grams, and their exact Jaccard similarity."""

    a: str
    b: str
    similarity: float


def pair(wanted: float, rng: np.random.Generator, n: int = 13, grams: int = 200) -> Pair:
    """Two texts that share their beginning, as near to the wanted similarity as whole n-grams go.

    With m of `grams` n-grams in common, the similarity is m / (2 grams - m).
    """
    if not 0 <= wanted <= 1:
        raise ValueError(f"similarity is {wanted}, expected a number from 0 to 1")
    common = round(2 * grams * wanted / (1 + wanted))
    words = text(rng, grams + n - 1)
    kept = common + n - 1 if common else 0
    other = words[:kept] + text(rng, grams + n - 1 - kept)
    return Pair(a=" ".join(words), b=" ".join(other), similarity=common / (2 * grams - common))


def text(rng: np.random.Generator, words: int) -> list[str]:
    columns = [
        np.frombuffer(some, np.uint8)[rng.integers(len(some), size=words)] for some in LETTERS
    ]
    return [bytes(word).decode() for word in np.stack(columns, axis=1)]
