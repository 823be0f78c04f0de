"""What is asked of a worker; light, so that the process that hands out work starts at once."""

import os
from collections.abc import Callable
from dataclasses import dataclass

COUNTS = ("documents", "tokens", "characters", "bytes", "bad_records")
Told = Callable[[int, int], None]  # bytes and tokens since the last time


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to do with each piece."""

    tokenizer: str
    field: str = "text"
    special_tokens: bool = False
    exact: bool = False  # never the fast tokenizer
    strict: bool = False  # stop at the first damage
    shards: str | None = None  # a folder that shards are written to
    end: str | None = None  # a token behind each document in the shards
    parallel: bool = True  # several threads for one batch


class Stop(ValueError):
    """The first damage of a strict run."""


def at_home(tokenizer: str) -> str:
    """The same tokenizer by a name that holds in every folder."""
    if tokenizer.startswith("tiktoken:"):
        return tokenizer
    return os.path.abspath(os.path.expanduser(tokenizer))
