"""Text in and out: a checkpoint's `tokenizer.json`, and the tokens that end a text."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from cookbook_lib.calculators.configs import read_fields


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder."""
    file = Path(folder) / "tokenizer.json"
    if not file.exists():
        raise ValueError(f"{folder}: no tokenizer.json, expected one beside config.json")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises no narrower class
        raise ValueError(f"{file}: not a tokenizer: {error}") from None


def ends(folder: str | Path) -> tuple[int, ...]:
    """The tokens that end a text, by generation_config.json or else config.json."""
    for name in ("generation_config.json", "config.json"):
        if not (file := Path(folder) / name).exists():
            continue
        f = read_fields(file)
        if (value := f.data.get("eos_token_id")) is not None:
            values = value if isinstance(value, list) else [value]
            if any(type(x) is not int for x in values):
                f.fail("eos_token_id", "a token, or a list of tokens")
            return tuple(values)
    return ()


def pieces(tokenizer: Tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """The text of a stream of tokens, each piece once its bytes are whole characters."""
    stream = DecodeStream(skip_special_tokens=True)
    for token in tokens:
        if piece := stream.step(tokenizer, token):
            yield piece
