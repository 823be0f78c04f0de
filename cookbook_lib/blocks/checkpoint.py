"""Published weights into a model: sharded safetensors, read one tensor at a time.

The model is made on `meta`, where it takes no memory, and each tensor of the checkpoint becomes one
of its parameters: at no time is there a second copy of the weights.
"""

from itertools import groupby
from operator import attrgetter
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from cookbook_lib.blocks.models import LanguageModel, build
from cookbook_lib.blocks.stored_files import Stored, some, tensors_in, weight_files
from cookbook_lib.blocks.stored_names import Place, Shapes, ignored, original, place
from cookbook_lib.calculators.configs import read_fields

DTYPES = {
    **{"float64": torch.float64, "F64": torch.float64},  # as config.json and safetensors spell it
    **{"float32": torch.float32, "F32": torch.float32},
    **{"bfloat16": torch.bfloat16, "BF16": torch.bfloat16},
    **{"float16": torch.float16, "F16": torch.float16},
}
Places = dict[Stored, Place | None]


def load_checkpoint(
    folder: str | Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> LanguageModel:
    """The model of a folder with `config.json` and `*.safetensors`, in evaluation mode.

    dtype: None for the one that config.json names, or else that of the first tensor on disk.
    Raises ValueError, in one line, for a config that is not supported, for pickled weights, and for
    tensors that are missing, not expected, of another shape, or unequal copies of shared ones.
    """
    folder = Path(folder)
    with torch.device("meta"):
        model = build(folder)
    shapes = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    stored = [x for file in weight_files(folder) for x in tensors_in(file)]
    places = {x: place(x.name, shapes) for x in stored}
    rest = {x: place(original(x.name, model.spec), shapes) for x in stored if not places[x]}
    places = {x: at for x, at in places.items() if at} | rest  # copies after their originals
    check(folder, places, shapes)
    weights = read(places, shapes, dtype or stored_dtype(folder, places), str(device))
    model.load_state_dict(weights, assign=True)
    return model.eval()


def stored_dtype(folder: Path, places: Places) -> torch.dtype:
    """The dtype that config.json names, or else that of the first tensor."""
    f = read_fields(folder)
    named = f.word("dtype", "torch_dtype", default=next(iter(places)).dtype)
    if named not in DTYPES:
        raise ValueError(f"{folder}: dtype is {named!r}, expected one of {', '.join(DTYPES)}")
    return DTYPES[named]


def read(places: Places, shapes: Shapes, dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """The parameters, each in its final dtype and place."""
    weights: dict[str, Tensor] = {}
    for file, stored in groupby((x for x, at in places.items() if at), attrgetter("file")):
        with safe_open(file, framework="pt", device=device) as tensors:
            for x in stored:  # a tensor gets no name here, so that it dies at once
                put(weights, places[x], tensors.get_tensor(x.name), shapes, dtype, x)
    return weights


def put(
    weights: dict[str, Tensor],
    at: Place,
    tensor: Tensor,
    shapes: Shapes,
    dtype: torch.dtype,
    x: Stored,
) -> None:
    """Make a stored tensor a parameter or a part of one; compare it if it is a copy."""
    if at.expert is not None:
        if at.name not in weights:
            weights[at.name] = torch.empty(shapes[at.name], dtype=dtype, device=tensor.device)
        at.of(weights[at.name]).copy_(tensor)
    elif at.name not in weights:
        weights[at.name] = tensor.to(dtype)
    elif not torch.equal(weights[at.name], tensor.to(dtype)):
        raise ValueError(
            f"{x.file}: {x.name} is not equal to {at.name}, expected a copy: config.json says that "
            "the two are shared"
        )


def check(folder: Path, places: Places, shapes: Shapes) -> None:
    """`ValueError` that names all that is missing, not expected or of another shape."""
    empty = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    wanted = {at: tuple(at.of(empty[at.name]).shape) for at in places.values() if at}
    filled = dict.fromkeys(shapes, 0)
    for at in wanted:
        filled[at.name] += at.of(empty[at.name]).numel()
    wrong = {
        "missing": [name for name, n in filled.items() if n < empty[name].numel()],
        "not expected": [
            x.name for x, at in places.items() if not at and not ignored(x.name, shapes)
        ],
        "of another shape": [
            f"{x.name} is {list(x.shape)}, expected {list(wanted[at])}"
            for x, at in places.items()
            if at and x.shape != wanted[at]
        ],
    }
    said = [f"{len(names)} {kind} ({some(names)})" for kind, names in wrong.items() if names]
    if said:
        raise ValueError(f"{folder}: the weights do not fit config.json: {'; '.join(said)}")
