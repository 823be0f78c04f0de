"""A model in one line: a preset or a file, and what of it is changed.

`zamba2-2.7b,hidden_size=2048,pattern=(mmmmmh)*9` takes the config of the preset, changes a field
of it, and then the letters of its layers. Values are JSON; what is not JSON is a word.
"""

import json
import re
from pathlib import Path
from typing import Any

from cookbook_lib.calculators.configs import from_dict, read_fields
from cookbook_lib.calculators.model import Model

CHANGE = re.compile(r",(?=\s*[A-Za-z_]\w*=)")  # so that a value may hold a list
GROUP = re.compile(r"\(([^()*\d]+)\)\*(\d{1,9})|([^()*\d])\*(\d{1,9})")
LAYERS = 10_000  # more is a slip of the hand


class Noted(dict):
    """A config that notes which of its fields a reader looked at."""

    def __init__(self, *args):
        super().__init__(*args)
        self.seen: set[str] = set()

    def get(self, key, default=None):
        self.seen.add(key)
        return super().get(key, default)

    def __getitem__(self, key):
        self.seen.add(key)
        return super().__getitem__(key)

    def __contains__(self, key):
        self.seen.add(key)
        return super().__contains__(key)


def split(line: str) -> tuple[str, dict[str, Any]]:
    """The name or path before the first change, and the changes: {"hidden_size": 2048}."""
    base, *changes = CHANGE.split(line)
    if not changes or Path(line).exists():
        return line, {}
    pairs = (change.partition("=") for change in changes)
    return base.strip(), {name.strip(): value_of(text.strip()) for name, _, text in pairs}


def value_of(text: str) -> Any:
    """A JSON value, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def letters(pattern: Any) -> str:
    """A pattern with its repetitions written out: (mmA)*2m*3 is mmAmmAmmm."""
    text = "".join(str(pattern).split())
    while found := GROUP.search(text):
        group, times, letter, again = found.groups()
        part, count = group or letter, int(times or again)
        if len(part) * count > LAYERS:
            raise ValueError(
                f"pattern has {len(part) * count:,} layers, expected {LAYERS:,} at most"
            )
        text = text[: found.start()] + part * count + text[found.end() :]
    if len(text) > LAYERS:
        raise ValueError(f"pattern has {len(text):,} layers, expected {LAYERS:,} at most")
    if wrong := re.search(r"[()*\d]", text):
        raise ValueError(
            f"pattern has {wrong[0]!r} in {pattern!r}, expected letters and groups like (mmA)*6"
        )
    return text


def changed(config: dict[str, Any], where: str, changes: dict[str, Any]) -> Model:
    """The model of a config with these fields changed; `pattern` stands for the letters.

    `ValueError` for a field that the config's reader does not look at: it would change nothing.
    """
    fields = {name: value for name, value in changes.items() if name != "pattern"}
    noted = Noted(config | fields)
    model = from_dict(noted, where)
    if unread := sorted(fields.keys() - noted.seen):
        near = ", ".join(sorted(k for k in noted.seen & config.keys() if k != "model_type"))
        raise ValueError(f"{where}: nothing reads {unread[0]!r}; its file has {near}")
    if "pattern" in changes:
        try:
            model = model.but(pattern=letters(changes["pattern"]))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return model


def of_file(path: str, changes: dict[str, Any]) -> Model:
    """The model of a config.json, or its folder, with these fields changed."""
    fields = read_fields(path)
    return changed(fields.data, fields.where, changes)
