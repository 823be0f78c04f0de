"""What encodes texts, each as a function from texts to ids and lengths: `tokenizers`, gigatoken."""

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np

from cookbook_lib.data.proof import Differs, Encode, Encoded


def flat(rows: list[Any]) -> Encoded:
    """Ids in a row from a list of lists."""
    _, lengths = lengths_of(rows)
    ids = np.empty(int(lengths.sum()), np.uint32)
    at = 0
    for row, length in zip(rows, lengths.tolist(), strict=True):
        ids[at : at + length] = row
        at += length
    return ids, lengths


def lengths_of(rows: list[Any]) -> Encoded:
    return np.zeros(0, np.uint32), np.fromiter(map(len, rows), np.int64, len(rows))


class HuggingFace:
    """What `tokenizers` makes of texts: called, it encodes."""

    def __init__(self, name: str, config: bytes, special_tokens: bool):
        self.name, self.config, self.special_tokens = name, config, special_tokens
        self.lock = Lock()  # it is asked for by the proof's thread too

    @property
    def tokenizer(self) -> Any:
        with self.lock:
            return self.built

    @cached_property
    def built(self) -> Any:
        import tokenizers

        try:
            return tokenizers.Tokenizer.from_buffer(self.config)
        except Exception as error:
            raise ValueError(f"tokenizer {self.name}: {error}") from None

    def __call__(self, texts: list[str], ids: bool = True) -> Encoded:
        encode = self.tokenizer.encode_batch_fast
        found = encode(texts, add_special_tokens=self.special_tokens)
        return flat([e.ids for e in found]) if ids else lengths_of(found)

    def vocab_size(self) -> int:
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def id_of(self, token: str) -> int | None:
        return self.tokenizer.token_to_id(token)


def specials(exact: Encode, plain: Encode) -> tuple[list[int], list[int]]:
    """The ids that are added before and after each text."""
    whole, inner = exact(["x"])[0].tolist(), plain(["x"])[0].tolist()
    for k in range(len(whole) - len(inner) + 1):
        if whole[k : k + len(inner)] == inner:
            return whole[:k], whole[k + len(inner) :]
    raise Differs("the special tokens")


def gigatoken(config: bytes, around: tuple[list[int], list[int]], parallel: bool) -> Encode:
    """From bytes to padded matrices: all else imports awkward, which takes as long as 50 MB."""
    import gigatoken

    tokenizer = gigatoken.Tokenizer.from_json(config)
    add = {"prefix": around[0], "suffix": around[1]}

    def encode(texts: list[str], ids: bool = True) -> Encoded:
        rows: list[np.ndarray] = [np.zeros(0, np.uint32)] * len(texts)
        lengths = np.zeros(len(texts), np.int64)
        for group in alike(texts):
            mine = gigatoken.BytesSource([texts[i].encode() for i in group])
            matrix, found = tokenizer.encode_batch_padded(mine, 0, **add, parallel=parallel)
            lengths[group] = found
            if ids:
                for i, row, length in zip(group, matrix, found.tolist(), strict=True):
                    rows[i] = row[:length]
        return np.concatenate(rows) if rows else np.zeros(0, np.uint32), lengths

    return encode


def alike(texts: list[str]) -> Iterator[list[int]]:
    """The numbers of texts of like lengths together, so that padding them adds little."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    at = 0
    while at < len(order):
        longest = 2 * len(texts[order[at]]) + 64
        end = bisect_right(order, longest, lo=at, key=lambda i: len(texts[i]))
        yield order[at:end]
        at = end
