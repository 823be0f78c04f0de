"""Gopher's quality and repetition filters (arXiv:2112.11446, appendix A.1.1).

The paper does not say what a word is; here it is what stands between white space.
"""

import re
from collections import Counter

import numpy as np

from cookbook_lib.data.filters.base import Filter, FilterSet, Page
from cookbook_lib.data.shingles import shingles

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))  # A.1.1
ELLIPSES = ("...", "…")
# table A1: the longest n-gram's share for n = 2 to 4, that of all repeated n-grams for 5 to 10
TOP = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def gopher() -> FilterSet:
    """Repetition first, then quality, in the order of FineWeb's pipeline (arXiv:2406.17557, 3)."""
    return FilterSet(filters=repetition() + quality())


def quality() -> tuple[Filter, ...]:
    return (
        Filter(name="words", feature=lambda p: len(p.words), least=50, most=100_000),  # A.1.1
        Filter(name="word_length", feature=word_length, least=3, most=10),  # A.1.1
        Filter(name="hashes", feature=lambda p: p.text.count("#") / words(p), most=0.1),  # A.1.1
        Filter(
            name="ellipses",
            feature=lambda p: sum(map(p.text.count, ELLIPSES)) / words(p),
            most=0.1,  # A.1.1
        ),
        Filter(
            name="bullets",
            feature=lambda p: of_lines(p, lambda line: line.lstrip().startswith("•")),
            most=0.9,  # A.1.1
        ),
        Filter(
            name="ellipsis_lines",
            feature=lambda p: of_lines(p, lambda line: line.rstrip().endswith(ELLIPSES)),
            most=0.3,  # A.1.1
        ),
        Filter(
            name="alphabetic_words",
            feature=lambda p: sum(any(map(str.isalpha, w)) for w in p.words) / words(p),
            least=0.8,  # A.1.1
        ),
        Filter(name="stop_words", feature=lambda p: len(STOP_WORDS & set(p.words)), least=2),
    )


def repetition() -> tuple[Filter, ...]:
    def of_text(count):
        return lambda p: count(p) / max(1, len(p.text))

    return (
        Filter(  # table A1, as all that follow
            name="paragraphs", feature=lambda p: repeated(paragraphs(p))[0], most=0.30
        ),
        Filter(
            name="paragraph_characters",
            feature=of_text(lambda p: repeated(paragraphs(p))[1]),
            most=0.20,
        ),
        Filter(name="lines", feature=lambda p: repeated(p.lines)[0], most=0.30),
        Filter(name="line_characters", feature=of_text(lambda p: repeated(p.lines)[1]), most=0.20),
        *(
            Filter(name=f"top_{n}_gram", feature=of_text(top(n)), most=most)
            for n, most in TOP.items()
        ),
        *(
            Filter(name=f"repeated_{n}_grams", feature=of_text(repeats(n)), most=most)
            for n, most in REPEATED.items()
        ),
    )


def words(page: Page) -> int:
    return max(1, len(page.words))


def word_length(page: Page) -> float:
    return sum(map(len, page.words)) / words(page)


def of_lines(page: Page, test) -> float:
    lines = page.text.splitlines()
    return sum(map(test, lines)) / max(1, len(lines))


def paragraphs(page: Page) -> list[str]:
    """What stands between empty lines."""
    return re.split(r"\n{2,}", page.text.strip())


def repeated(parts: list[str]) -> tuple[float, int]:
    """The share of the parts that were there before, and how many characters these have."""
    again = Counter(parts)
    return (
        1 - len(again) / max(1, len(parts)),
        sum(len(part) * (times - 1) for part, times in again.items()),
    )


def grams(page: Page, n: int) -> np.ndarray:
    """Hashes of the n-grams of words, one for each word that begins one."""
    if len(page.words) < n:
        return np.empty(0, np.uint64)
    return shingles([page.plain], n).hashes


def top(n: int):
    """Characters of all occurrences of the n-gram that occurs most often, if it does so twice."""

    def count(page: Page) -> int:
        _, first, times = np.unique(grams(page, n), return_index=True, return_counts=True)
        if not len(times) or times.max() == 1:
            return 0
        first = first[times == times.max()]
        longest = (page.ends[first + n] - page.ends[first]).max() + n - 1  # and the spaces
        return int(times.max() * longest)

    return count


def repeats(n: int):
    """Characters of the words that lie in an n-gram that was there before, each word once."""

    def count(page: Page) -> int:
        found = grams(page, n)
        again = np.ones(len(found), bool)
        again[np.unique(found, return_index=True)[1]] = False
        step = np.zeros(len(page.words) + 1, np.int64)
        step[: len(again)] += again
        step[n : n + len(again)] -= again
        inside = np.cumsum(step[:-1]) > 0
        return int(np.diff(page.ends)[inside].sum())

    return count
