"""Passages that were there before, found with a suffix array over all texts at once.

As Lee et al. (arXiv:2107.06499) cut them, except that the first occurrence stays. Everything is
held in memory: about 40 bytes for each byte of text.
"""

import numpy as np

END = 0xFF  # between texts: no byte of UTF-8


def repeated(texts: list[str], length: int) -> list[list[tuple[int, int]]]:
    """For each text the passages to cut, as (begin, end) of characters, in order.

    A passage is made of runs of at least `length` bytes of UTF-8 that occur earlier, in this text
    or in one before it; a character of which only a part is repeated stays.
    """
    from pydivsufsort import divsufsort, kasai

    raw = [t.encode() for t in texts]
    data = np.frombuffer(bytearray(bytes([END]).join([*raw, b""])), np.uint8)
    if len(data) <= length:
        return [[] for _ in texts]
    order = divsufsort(data)
    common = kasai(data, order)  # bytes in common with the next suffix
    # a run of suffixes with so much in common is one passage; the first place of it stays
    starts = np.flatnonzero(np.append(True, common[:-1] < length))
    first = np.repeat(np.minimum.reduceat(order, starts), np.diff(np.append(starts, len(order))))
    later = order[order != first].astype(np.int64)
    ends = np.cumsum([len(r) + 1 for r in raw])
    later = later[later + length < ends[np.searchsorted(ends, later, "right")]]  # in one text
    step = np.zeros(len(data) + 1, np.int64)
    np.add.at(step, later, 1)
    np.add.at(step, later + length, -1)
    inside = np.cumsum(step[:-1]) > 0
    return [
        spans(inside[end - len(r) - 1 : end - 1], data[end - len(r) - 1 : end - 1])
        for r, end in zip(raw, ends, strict=True)
    ]


def spans(inside: np.ndarray, data: np.ndarray) -> list[tuple[int, int]]:
    """Runs of characters all of whose bytes are inside."""
    heads = np.flatnonzero((data & 0xC0) != 0x80)
    if not len(heads):
        return []
    whole = np.concatenate([[False], np.logical_and.reduceat(inside, heads), [False]])
    edges = np.flatnonzero(whole[1:] != whole[:-1]).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def cut(text: str, passages: list[tuple[int, int]]) -> str:
    """A text without its passages."""
    edges = [0, *(edge for passage in passages for edge in passage), len(text)]
    return "".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))
