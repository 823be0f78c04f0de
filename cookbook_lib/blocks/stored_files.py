"""The files of a checkpoint: which there are, and what their headers say. No weights are read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth")


class Stored(NamedTuple):
    """A tensor on disk."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str  # as safetensors spells it: F32, BF16


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, each once."""
    if (index := folder / INDEX).exists():
        try:
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            files = [folder / name for name in dict.fromkeys(names)]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{index}: not an index, expected a JSON 'weight_map'") from None
        if lost := [f.name for f in files if not f.exists()]:
            raise ValueError(f"{folder}: {some(lost)} missing, which {INDEX} names: download again")
        return files
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if files := sorted(folder.glob("*.safetensors")):
        return files
    if pickled := sorted(f.name for kind in PICKLES for f in folder.glob(kind)):
        raise ValueError(
            f"{folder}: the weights are pickled ({some(pickled)}), expected safetensors: a pickle "
            "can run any code when it is read. If you trust it, convert it: safetensors.torch."
            "save_file(torch.load(file, weights_only=True), 'model.safetensors')"
        )
    raise ValueError(f"{folder}: no weights, expected {SINGLE} or {INDEX}")


def tensors_in(file: Path) -> Iterator[Stored]:
    """What a safetensors file holds, from its header: no weights are read."""
    try:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it is no dict)
                header = tensors.get_slice(name)
                yield Stored(file, name, tuple(header.get_shape()), header.get_dtype())
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file}: not a safetensors file: {error}") from None


def some(names: list[str], most: int = 5) -> str:
    """A few of these names, for an error."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
