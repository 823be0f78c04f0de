"""A `config.json` becomes a model: one small reader for each family.

A saved config leaves out the fields that equal its class's defaults, so each reader holds those of
transformers 5.23; and it takes the spellings of the hub's files beside the current ones.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cookbook_lib.calculators.configs import (
    gpt,
    hybrids,
    llama,
    mamba,
    moe,
    native,
    nemotron,
    qwen,
    zyphra,
)
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.model import Model

READERS: dict[str, Callable[[Fields], Model]] = {
    "bamba": hybrids.bamba,
    "falcon_h1": hybrids.falcon_h1,
    "falcon_mamba": mamba.mamba,
    "gemma2": llama.gemma2,
    "gpt2": gpt.gpt2,
    "gpt_neox": gpt.gpt_neox,
    "granitemoehybrid": hybrids.granitemoehybrid,
    "jamba": hybrids.jamba,
    "llama": llama.llama,
    "mamba": mamba.mamba,
    "mamba2": mamba.mamba2,
    "mistral": llama.mistral,
    "mixtral": moe.mixtral,
    "nemotron_h": nemotron.nemotron_h,
    "olmoe": moe.olmoe,
    "phi": gpt.phi,
    "phi3": llama.phi3,
    "qwen2": llama.qwen2,
    "qwen3": llama.qwen3,
    "qwen3_moe": moe.qwen3_moe,
    "qwen3_next": qwen.qwen3_next,
    "zamba": zyphra.zamba,
    "zamba2": zyphra.zamba2,
}
UNSUPPORTED = {  # fields of any family that would change the counts
    "per_layer_config": "changing single fields of a layer",
    "attention_chunk_size": "attention in chunks",
}
NATIVE = {  # files without a model_type: the fields that tell them apart
    ("d_model", "n_layer"): native.mamba_ssm,
    ("num_layers", "mamba_moe_layers"): native.blackmamba,
}
SIZE = re.compile(
    r"(^|_)(expand|size|width|dim|rank|heads|layers|experts|groups|kernel|state|period)$"
)


def read_config(path: str | Path) -> Model:
    """The model of a Hugging Face `config.json`, of a folder that holds one, or of a native file.

    `ValueError` in one line names the file, the field, its value and what is supported.
    """
    return from_fields(read_fields(path))


def read_fields(path: str | Path) -> Fields:
    """The fields of a `config.json`, of a folder that holds one, or of a native file."""
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
    except (ValueError, RecursionError) as error:  # the former also for a number too long
        raise ValueError(f"{file}: not JSON: {error}") from None
    return fields_of(data, str(path))


def from_dict(data: Any, where: str) -> Model:
    """The model of a configuration already parsed; `where` names it in errors and on pages."""
    return from_fields(fields_of(data, where))


def fields_of(data: Any, where: str) -> Fields:
    """The fields of a configuration already parsed."""
    if not isinstance(data, dict):
        raise ValueError(f"{where}: holds a {type(data).__name__}, expected a JSON object")
    return Fields(data, where)


def from_fields(f: Fields) -> Model:
    """The model that these fields describe."""
    try:
        model = reader(f)(f)
    except ValueError as error:  # a block's own check, which does not know the file
        line = str(error)
        raise ValueError(line if line.startswith(f.where) else f"{f.where}: {line}") from None
    for name, value in f.data.items():  # fields that no count needed
        if isinstance(value, float) and value != value:
            f.fail(name, "a number")
        if type(value) in (int, float) and value < 0 and SIZE.search(name):
            f.fail(name, "no negative size")
    return model


def reader(f: Fields) -> Callable[[Fields], Model]:
    """The reader for a file, by its `model_type` or by the fields of a native format."""
    if f.data.get("model_type") is None:
        for marks, native_reader in NATIVE.items():
            if all(mark in f.data for mark in marks):
                return native_reader
    family = f.word("model_type", default=None)
    if family not in READERS:
        f.fail("model_type", "one of " + ", ".join(sorted(READERS)))
    for field, what in UNSUPPORTED.items():
        if f.data.get(field):
            f.fail(field, f"null: {what} is not supported")
    return READERS[family]
