"""What duplicates are recognised by: a column of keys for each step that looks for them."""

from hashlib import blake2b
from typing import Any
from urllib.parse import urlsplit

from cookbook_lib.data.minhash import minhash
from cookbook_lib.data.shingles import normalise, shingles
from cookbook_lib.data.steps import Exact, MinHash, Step, Url
from cookbook_lib.data.tally import Entry


def width(step: Step) -> int:
    """Bytes of a step's keys; 0 if it needs none."""
    if isinstance(step, MinHash):
        return 4 * step.permutations
    return 16 if isinstance(step, Exact | Url) else 0


def keys_of(entries: list[Entry], step: Step) -> list[bytes | None]:
    """A key for each document; None for one that is nothing's duplicate, as a text without words.

    Signatures in the order of bytes that all machines can agree on.
    """
    if isinstance(step, Exact):
        return [digest(e.text) for e in entries]
    if isinstance(step, Url):
        return [address(e.record.get(step.field)) for e in entries]
    sets = shingles([normalise(e.text) for e in entries], step.ngram, step.kind)
    rows = minhash(sets, step.permutations, step.seed).astype("<u4")
    return [row.tobytes() if n else None for row, n in zip(rows, sets.counts, strict=True)]


def digest(text: str) -> bytes:
    """128 bits of a text: two that differ share them with a chance of 2^-128."""
    return blake2b(text.encode(), digest_size=16).digest()


def address(url: Any) -> bytes | None:
    """A key for an address without scheme, `www.`, fragment and last slash; None for none."""
    if not isinstance(url, str) or not url.strip():
        return None
    try:
        parts = urlsplit(url.strip())
    except ValueError:  # such as an unclosed bracket: only the same text is the same address
        return digest(url)
    host = parts.netloc.lower().removeprefix("www.")
    return digest(f"{host}{parts.path.rstrip('/')}?{parts.query}")
