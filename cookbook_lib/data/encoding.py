"""Tokenizers as functions from texts to token ids: an exact one, and a fast one while it is proved.

Exact is what Hugging Face `tokenizers` gives, or `tiktoken` for its own. The fast one is
gigatoken. It is compared with the exact one on texts made to break it, and on a sample of each
batch that it encodes; see `proof`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import orjson

from cookbook_lib.data.encoders import HuggingFace, flat, gigatoken, lengths_of, specials
from cookbook_lib.data.proof import HARD, Differs, Encode, Encoded, Proof


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """One tokenizer: `exact`, and `fast` where there is one that may be right."""

    name: str
    vocab_size: Callable[[], int]  # one more than the largest id
    exact: Encode
    id_of: Callable[[str], int | None]  # the id of one token
    fast: Encode | None = None
    why_exact: str = ""  # why there is no fast one
    hard: tuple[str, ...] = HARD  # texts on which the fast one is tried

    @cached_property
    def proof(self) -> Proof:
        """Of the fast one; it begins when it is first asked for."""
        assert self.fast is not None
        return Proof(self.fast, self.exact, self.hard)

    @property
    def refused(self) -> str:
        """Why the fast one cannot be used, as far as that is known by now; nothing if it can."""
        return self.why_exact or (self.proof.failed and differs(self.proof.failed))


def differs(on: object) -> str:
    return f"gigatoken differs on {on}"


@lru_cache(maxsize=4)
def load(
    name: str, special_tokens: bool = False, parallel: bool = True, fast: bool = True
) -> Tokenizer:
    """The tokenizer in a `tokenizer.json`, or in a folder with one, or `tiktoken:NAME`.

    `special_tokens` adds to each text what the tokenizer's post-processor adds. Truncation and
    padding in the file are left out: what is counted is the whole text. The exact one is built
    when it is first used, which takes a moment and can fail with a `ValueError`.
    """
    if name.startswith("tiktoken:"):
        return load_tiktoken(name, special_tokens)
    path = Path(name) / "tokenizer.json" if Path(name).is_dir() else Path(name)
    try:
        text = path.read_bytes()
        config = orjson.loads(text)
        changed = bool(config.get("truncation") or config.get("padding"))
        config |= {"truncation": None, "padding": None}
        if config["model"].get("dropout"):
            config["model"]["dropout"], changed = None, True
    except OSError as error:
        raise ValueError(f"tokenizer {name}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"tokenizer {name} is no tokenizer.json of `tokenizers`") from None
    text = orjson.dumps(config) if changed else text  # a large file takes its time
    exact = HuggingFace(name, text, special_tokens)
    encode, why = None, ""
    try:
        if fast:
            around = specials(exact, HuggingFace(name, text, False)) if special_tokens else ([], [])
            encode = gigatoken(text, around, parallel)
    except Differs as error:
        why = differs(error)
    except Exception as error:  # what it does not support, it says in many ways
        why = f"gigatoken cannot read it: {' '.join(str(error).split())[:200]}"
    added = [t["content"] for t in config.get("added_tokens") or []][:50]
    return Tokenizer(
        name=name,
        vocab_size=exact.vocab_size,
        exact=exact,
        id_of=exact.id_of,
        fast=encode,
        why_exact=why,
        hard=(*HARD, *added, *(f"a{t} {t}b" for t in added)),
    )


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
        id_of=id_of,
        why_exact="tiktoken is counted by itself",
    )
