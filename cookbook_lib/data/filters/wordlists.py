"""Word lists: text files with one entry a line, `#` before a comment; entries are literal text."""

from pathlib import Path

SHIPPED = Path(__file__).parent / "words"
NAMES = ("chinese_spam", "sexual", "profanity", "cursed")


def word_lists(folder: Path | None = None) -> dict[str, tuple[str, ...]]:
    """The four lists that Zyda's filters ask for, from NAME.txt in a folder.

    The shipped ones are small and mild: they show the mechanism, and a pipeline that matters
    brings its own. Zyda's are in its repository, after arXiv:2309.04662.
    """
    return {name: entries((folder or SHIPPED) / f"{name}.txt") for name in NAMES}


def entries(path: Path) -> tuple[str, ...]:
    """The entries of one file, each once."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: cannot be read ({error}); expected a word list, one entry a line"
        ) from None
    return tuple(dict.fromkeys(x for line in lines if (x := line.strip()) and x[0] != "#"))


def hits(text: str, words: tuple[str, ...]) -> int:
    """How often the entries occur, each counted by itself, upper and lower case apart."""
    return sum(text.count(word) for word in words)
