"""Published models by name: each is one JSON file beside this one, a config and its source.

Adding a model is adding a file `{"name": …, "source": …, "note": …, "config": {…}}`, whose config
is what `read_config` reads.
"""

import json
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from cookbook_lib.calculators.configs import from_dict, read_config
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.variants import changed, of_file, split

FOLDER = files(__name__)


@cache
def names() -> tuple[str, ...]:
    """The names of all presets, in order."""
    return tuple(sorted(f.name[:-5] for f in FOLDER.iterdir() if f.name.endswith(".json")))


def entry(name: str) -> dict[str, Any]:
    """The preset's file: name, source, note and config.

    A name may stop where only one preset goes on: "zamba-7b" is "zamba-7b-v1". `ValueError` for
    one that has no preset, or several.
    """
    stem = name.lower()
    longer = [n for n in names() if n.startswith(f"{stem}-")]
    if stem not in names() and len(longer) == 1:
        stem = longer[0]
    if stem not in names():
        near = longer or get_close_matches(stem, names(), n=3) or ["`cookbook models` lists them"]
        raise ValueError(f"no preset is called {name!r}; near to it: {', '.join(near)}")
    return json.loads((FOLDER / f"{stem}.json").read_text(encoding="utf-8"))


@cache
def preset(name: str) -> Model:
    """The model of this name: "zamba2-2.7b"."""
    data = entry(name)
    return from_dict(data["config"], data["name"]).but(source=data["source"])


def resolve(model: str) -> Model:
    """The model of a preset's name, of a `config.json`, or of a folder that holds one.

    What follows a comma changes it: "zamba2-2.7b,hidden_size=2048"; see `variants`.
    """
    base, changes = split(model)
    known = base.lower() in names()
    if not known and Path(base).exists():
        return of_file(base, changes) if changes else read_config(base)
    if not known and (base.endswith(".json") or "/" in base):
        raise ValueError(f"{base}: no such file, expected a preset, a config.json or its folder")
    if not changes:
        return preset(base)
    data = entry(base)
    return changed(data["config"], data["name"], changes).but(source=data["source"])
