"""The reader of `.json`: a list of objects, one object, or several one after another."""

import codecs
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from cookbook_lib.data.compression import Damaged, chunks
from cookbook_lib.data.files import File
from cookbook_lib.data.formats import LONGEST, Damage, Rows, kind, not_utf8


def json_values(file: File, part: int, parts: int, fields: list[str] | None) -> Rows:
    """The objects of a file, held one at a time; there is no way to go on after a mistake."""
    number, in_list = 0, False
    with closing(file.open()) as stored:
        ahead = Ahead(chunks(stored, file.codec))
        try:
            while char := ahead.char():
                if char == "[" and not in_list:
                    in_list = True
                    ahead.at += 1
                elif in_list and char in ",]":
                    in_list = char == ","
                    ahead.at += 1
                else:
                    value = ahead.value()
                    number += 1
                    if isinstance(value, dict):
                        yield number, value
                    else:
                        said = f"a {kind(value)}, not an object"
                        yield Damage(path=file.path, unit="value", number=number, reason=said)
            if in_list:
                raise Damaged("the list does not end", 0)
        except (Damaged, ValueError, RecursionError) as error:
            said = not_utf8(error) if isinstance(error, UnicodeDecodeError) else str(error)
            yield Damage(path=file.path, unit="value", number=number + 1, reason=said, whole=True)


class Ahead:
    """Text from which JSON is taken, read on as far as it is needed."""

    def __init__(self, blocks: Iterator[bytes]):
        self.blocks, self.text, self.at = blocks, "", 0
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.scan = json.JSONDecoder().raw_decode

    def char(self) -> str:
        """The next character that is not white space; none at the end."""
        while True:
            while self.at < len(self.text):
                if not (char := self.text[self.at]).isspace():
                    return char
                self.at += 1
            if not self.more():
                return ""

    def value(self) -> Any:
        """The next value, however many blocks it takes."""
        while True:
            try:
                value, at = self.scan(self.text, self.at)
            except ValueError as error:
                if len(self.text) - self.at > LONGEST or not self.more():
                    raise ValueError(f"not JSON: {error}") from None
                continue
            if at < len(self.text) or isinstance(value, dict) or not self.more():
                self.at = at
                return value  # a number at the end of the text may go on, an object cannot

    def more(self) -> bool:
        """Twice as much text as was left; False at the end of the file."""
        held = [self.text[self.at :]]
        goal = max(len(held[0]), 1 << 16)
        while goal > 0 and (block := next(self.blocks, None)) is not None:
            held.append(self.decoder.decode(block))
            goal -= len(held[-1])
        grew = len(held) > 1
        if not grew:
            self.decoder.decode(b"", final=True)
        self.text, self.at = "".join(held), 0
        return grew
