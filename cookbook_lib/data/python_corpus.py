"""A corpus that exists everywhere: what the installed Python says and is, packed for training.

Two sources: `prose` is documentation (docstrings, the help topics of `pydoc`, the licence), `code`
is the standard library. A module in twenty is held out of both, so that no docstring is trained on
in one source and asked for in the other. The texts stay under Python's own licence.
"""

import os
import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

import orjson

from cookbook_lib.data.local import code, docstrings, read
from cookbook_lib.data.tokens import count

CHECKOUT = Path(__file__).parents[2]  # where there is one, whatever the working directory
FOLDER = (CHECKOUT if (CHECKOUT / "pyproject.toml").exists() else Path()) / "build/corpus"
END = "<|end|>"
HELD_OUT = 20  # one document in so many
TABLES = ("encodings/", "pydoc_data/", "_sysconfigdata")  # not written by hand; or prose already


@dataclass(frozen=True)
class Corpus:
    """Where it lies: `shards` of each source and of what is held out, without their endings."""

    tokenizer: Path
    vocab: int
    shards: dict[str, list[Path]]
    held_out: dict[str, list[Path]]


def python_corpus(folder: Path = FOLDER, vocab: int = 2048) -> Corpus:
    """The corpus of this Python, made if it is not there: whole or not at all. Takes some seconds.

    vocab: of the byte-level BPE that is trained on the training part, END included.
    """
    if vocab < 300:
        raise ValueError(f"vocab is {vocab}, expected at least 300: 256 bytes, an end, and merges")
    home = folder / f"python-{platform.python_version()}-{vocab}"
    if not home.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".making-") as temporary:
            made = Path(temporary) / "corpus"
            write(made, vocab)
            try:
                os.rename(made, home)
            except OSError:  # another process was faster, and made the same
                if not home.exists():
                    raise

    def there(name: str) -> list[Path]:
        return [path.with_suffix("") for path in sorted((home / name).rglob("*.idx"))]

    names = ("prose", "code")
    return Corpus(
        tokenizer=home / "tokenizer.json",
        vocab=vocab,
        shards={name: there(name) for name in names},
        held_out={name: there(f"{name}-held-out") for name in names},
    )


def prose() -> Iterator[tuple[str, str]]:
    """Help topics, docstrings by module, and Python's licence, each with the place it is from."""
    from pydoc_data.topics import topics

    yield from sorted((f"topics/{name}", text) for name, text in topics.items())
    yield from docstrings()
    for name in ("LICENSE.txt", "../../LICENSE"):  # where it is depends on who packed Python
        path = Path(sysconfig.get_path("stdlib")) / name
        if path.is_file():
            yield "licence", read(path)


def documents() -> dict[str, list[tuple[str, str]]]:
    """Place and text of each document, by source: `prose`, `prose-held-out`, `code`, …"""
    found: dict[str, list[tuple[str, str]]] = {}
    for source, texts in (("prose", prose()), ("code", code())):
        for place, text in texts:
            if place.startswith(TABLES):
                continue
            held = crc32(place.encode()) % HELD_OUT == 0
            found.setdefault(source + "-held-out" * held, []).append((place, text))
    return found


def write(folder: Path, vocab: int) -> None:
    """Documents as JSON lines, a tokenizer trained on them, and their shards."""
    folder.mkdir()
    found = documents()
    tokenizer = folder / "tokenizer.json"
    train(tokenizer, (text for name in ("prose", "code") for _, text in found[name]), vocab)
    for name, texts in found.items():
        path = folder / f"{name}.jsonl"
        path.write_bytes(b"".join(orjson.dumps({"text": text}) + b"\n" for _, text in texts))
        count([str(path)], str(tokenizer), workers=1, out=folder / name, end=END, strict=True)


def train(path: Path, texts: Iterator[str], vocab: int) -> None:
    """A byte-level BPE of `vocab` tokens, END among them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))
