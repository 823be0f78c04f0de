"""Proof that one tokenizer gives the same ids as another: on hard texts, and on samples of data."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

Encoded = tuple[np.ndarray, np.ndarray]  # ids of all texts in a row; how many each text has
Encode = Callable[..., Encoded]  # of texts; `ids=False` if lengths are enough, where that is faster

SAMPLE = 1 << 12  # characters that are compared of a first batch, and half of it of each later one
HARD = (
    "",
    " ",
    "\n\n \t  x",
    "\0 and \0\0",
    "don't DON'T I'll ’s",
    "1234567890 3.14 1,000",
    "👩‍👩‍👧‍👦 🇩🇪 e\u0301 \u200b\ufeff\ufffd",
    "שלום עולם مرحبا ٣٤",
    "日本語 한국어 ไทย",
    "ﬁ Ⅷ ① İstanbul ß",
    "a" * 300,
    "\r\n\r x\u2028y\u00a0z",
    "\U00010348\U0010ffff",
)


class Differs(Exception):
    """The fast tokenizer gave other ids than the exact one."""


class Proof:
    """Comparisons of a fast tokenizer with an exact one, in a thread beside the encoding.

    Building the exact one and the comparisons take as long as some megabytes of encoding. So what
    was encoded holds when the comparisons are through: see `right`.
    """

    def __init__(self, fast: Encode, exact: Encode, hard: Iterable[str]):
        self.fast, self.exact = fast, exact
        self.thread = ThreadPoolExecutor(1)
        self.hard = self.of(list(hard))

    def of(self, texts: list[str]) -> Future[None]:
        """The comparison of some texts; its result is waited for, or it raises `Differs`."""
        return self.thread.submit(prove, self.fast, self.exact, texts)

    def right(self) -> None:
        """`Differs` unless the fast one is right on the hard texts; waits until that is known."""
        self.hard.result()

    @property
    def failed(self) -> str:
        """On what it is known to differ by now, or nothing."""
        error = self.hard.exception() if self.hard.done() else None
        return str(error) if isinstance(error, Differs) else ""


def prove(fast: Encode, exact: Encode, texts: list[str]) -> None:
    """`Differs`, with the text, unless both give the same ids for all texts."""
    expected = split(exact(texts))
    try:
        found = split(fast(texts))
    except Exception as error:  # of another maker, who says it in many ways
        raise Differs(f"{texts[0][:60]!r}: {' '.join(str(error).split())[:200]}") from None
    for text, ours, theirs in zip(texts, found, expected, strict=True):
        if not np.array_equal(ours, theirs):
            raise Differs(repr(text[:60]))


def split(encoded: Encoded) -> list[np.ndarray]:
    ids, lengths = encoded
    return np.split(ids, np.cumsum(lengths)[:-1]) if len(lengths) else []


def sample(texts: list[str], turn: int) -> list[str]:
    """Texts, or beginnings of texts, from a place in the batch that moves with each turn."""
    found, left = [], SAMPLE if turn == 0 else SAMPLE // 2
    start = turn * 7919 % len(texts)
    for k in range(min(len(texts), 64)):
        text = texts[(start + k) % len(texts)][:left]
        found.append(text)
        left -= len(text)
        if left <= 0:
            break
    return found
