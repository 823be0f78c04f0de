"""Tokenizers as functions from texts to token ids: an exact one, and a fast one while it is proved.

Exact is what Hugging Face `tokenizers` gives, or `tiktoken` for its own. The fast one is
gigatoken. It is compared with the exact one on texts made to break it when it is loaded, and on a
sample of each batch that it encodes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from cookbook_lib.data.proof import HARD, Differs, Encode, Encoded, prove


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """One tokenizer: `exact`, and `fast` where there is one that is right on hard texts."""

    name: str
    vocab_size: Callable[[], int]  # one more than the largest id
    exact: Encode
    fast: Encode | None
    id_of: Callable[[str], int | None]  # the id of one token
    why_exact: str = ""  # why there is no fast one


@lru_cache(maxsize=4)
def load(name: str, special_tokens: bool = False, parallel: bool = True) -> Tokenizer:
    """The tokenizer in a `tokenizer.json`, or in a folder with one, or `tiktoken:NAME`.

    `special_tokens` adds to each text what the tokenizer's post-processor adds. Truncation and
    padding in the file are left out: what is counted is the whole text.
    """
    if name.startswith("tiktoken:"):
        return load_tiktoken(name, special_tokens)
    path = Path(name) / "tokenizer.json" if Path(name).is_dir() else Path(name)
    try:
        text = path.read_text("utf-8")
        config = orjson.loads(text)
        changed = bool(config.get("truncation") or config.get("padding"))
        config |= {"truncation": None, "padding": None}
        if config["model"].get("dropout"):
            config["model"]["dropout"], changed = None, True
    except OSError as error:
        raise ValueError(f"tokenizer {name}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"tokenizer {name} is no tokenizer.json of `tokenizers`") from None
    text = orjson.dumps(config).decode() if changed else text  # a large file takes its time
    exact, size, id_of = hugging_face(name, text, special_tokens)
    fast, why = None, ""
    try:
        plain = hugging_face(name, text, False)[0] if special_tokens else exact
        fast = gigatoken(text, specials(exact, plain), parallel)
        added = [t["content"] for t in config.get("added_tokens") or []][:50]
        prove(fast, exact, [*HARD, *added, *(f"a{t} {t}b" for t in added)])
    except Differs as error:
        fast, why = None, f"gigatoken differs on {error}"
    except Exception as error:  # what it does not support, it says in many ways
        fast, why = None, f"gigatoken cannot read it: {' '.join(str(error).split())[:200]}"
    return Tokenizer(
        name=name,
        vocab_size=size,
        exact=exact,
        fast=fast,
        id_of=id_of,
        why_exact=why,
    )


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


def hugging_face(name: str, config: str, special_tokens: bool) -> tuple[Encode, Callable, Callable]:
    """How it encodes, the size of its vocabulary, and what names an id."""
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_str(config)
    except Exception as error:
        raise ValueError(f"tokenizer {name}: {error}") from None

    def encode(texts: list[str], ids: bool = True) -> Encoded:
        found = tokenizer.encode_batch_fast(texts, add_special_tokens=special_tokens)
        return flat([e.ids for e in found]) if ids else lengths_of(found)

    def size() -> int:
        return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    return encode, size, tokenizer.token_to_id


def specials(exact: Encode, plain: Encode) -> tuple[list[int], list[int]]:
    """The ids that are added before and after each text."""
    whole, inner = exact(["x"])[0].tolist(), plain(["x"])[0].tolist()
    for k in range(len(whole) - len(inner) + 1):
        if whole[k : k + len(inner)] == inner:
            return whole[:k], whole[k + len(inner) :]
    raise Differs("the special tokens")


def gigatoken(config: str, around: tuple[list[int], list[int]], parallel: bool) -> Encode:
    import gigatoken

    tokenizer = gigatoken.Tokenizer.from_json(config)
    before, after = (np.array(ids, np.uint32) for ids in around)

    def encode(texts: list[str], ids: bool = True) -> Encoded:
        layout = tokenizer.encode_batch(texts, parallel=parallel).layout
        ends, found = layout.offsets.data, layout.content.data
        lengths = np.diff(ends)
        if len(before) + len(after):
            rows = np.split(found, ends[1:-1]) if len(texts) else []
            found = np.concatenate([p for r in rows for p in (before, r, after)] or [found])
            lengths = lengths + len(before) + len(after)
        return found, lengths

    return encode


def load_tiktoken(name: str, special_tokens: bool) -> Tokenizer:
    """tiktoken's own: special tokens in a text are text, as in its `encode_ordinary`."""
    import tiktoken

    if special_tokens:
        raise ValueError(f"{name} adds no special tokens: leave out --special-tokens")
    try:
        encoding = tiktoken.get_encoding(name.removeprefix("tiktoken:"))
    except Exception as error:
        raise ValueError(f"tokenizer {name}: {' '.join(str(error).split())}") from None

    def encode(texts: list[str], ids: bool = True) -> Encoded:
        found = encoding.encode_ordinary_batch(texts)
        return flat(found) if ids else lengths_of(found)

    def id_of(token: str) -> int | None:
        try:
            return encoding.encode_single_token(token)
        except KeyError:
            return None

    return Tokenizer(
        name=name,
        vocab_size=lambda: encoding.n_vocab,
        exact=encode,
        fast=None,
        id_of=id_of,
        why_exact="tiktoken is counted by itself",
    )
