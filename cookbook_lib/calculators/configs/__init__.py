"""A `config.json` becomes a model: one small reader for each family.

A saved config leaves out the fields that equal its class's defaults, so each reader holds those of
transformers 5.23; and it takes the spellings of the hub's files beside the current ones.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cookbook_lib.calculators.configs import llama, zyphra
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.model import Model

READERS: dict[str, Callable[[Fields], Model]] = {
    "llama": llama.llama,
    "zamba": zyphra.zamba,
    "zamba2": zyphra.zamba2,
}


def read_config(path: str | Path) -> Model:
    """The model of a Hugging Face `config.json`, of a folder that holds one, or of a native file.

    `ValueError` in one line names the file, the field, its value and what is supported.
    """
    path = Path(path)
    file = path / "config.json" if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file, expected a config.json or its folder") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read as text: {error}") from None
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON: {error}") from None
    return from_dict(data, str(path))


def from_dict(data: Any, where: str) -> Model:
    """The model of a configuration already parsed; `where` names it in errors and on pages."""
    if not isinstance(data, dict):
        raise ValueError(f"{where}: holds a {type(data).__name__}, expected a JSON object")
    fields = Fields(data, where)
    family = fields.word("model_type")
    if family not in READERS:
        fields.fail("model_type", "one of " + ", ".join(sorted(READERS)))
    try:
        return READERS[family](fields)
    except ValueError as error:  # a block's own check, which does not know the file
        line = str(error)
        raise ValueError(line if line.startswith(where) else f"{where}: {line}") from None
