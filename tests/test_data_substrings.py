"""What occurs a second time is cut, and no more, whatever the texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pydivsufsort", reason="cookbook_lib.data needs the extra `data`")

from cookbook_lib.data.substrings import cut, repeated


@given(st.lists(st.text(st.sampled_from("ab é😀"), max_size=25), max_size=6), st.integers(1, 8))
def test_passages_are_those_of_the_definition(texts, length):
    """A byte goes if it lies in a run of `length` that begins earlier somewhere."""
    raw = [t.encode() for t in texts]
    seen: set[bytes] = set()
    for text, mine, found in zip(texts, raw, repeated(texts, length), strict=True):
        gone = set()
        for i in range(len(mine) - length + 1):
            run = mine[i : i + length]
            if run in seen:
                gone |= set(range(i, i + length))
            seen.add(run)
        bytes_of = [len(c.encode()) for c in text]
        starts = [sum(bytes_of[:k]) for k in range(len(text))]
        expected = "".join(
            c
            for c, at, n in zip(text, starts, bytes_of, strict=True)
            if not set(range(at, at + n)) <= gone
        )
        assert cut(text, found) == expected


def test_a_notice_in_many_texts_stays_in_the_first():
    notice = "All rights reserved by the owner of this text, whoever that is."
    texts = [f"{notice} One.", f"Two. {notice}", f"Three; {notice} And more of it."]
    found = repeated(texts, 40)
    assert [cut(t, p) for t, p in zip(texts, found, strict=True)] == [
        texts[0],
        "Two. ",
        "Three;And more of it.",  # a space on either side was there before, too
    ]
