"""`cookbook bench memory`: a real training step of a model, beside the predicted bytes."""

from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from cookbook_lib.benchmarks.memory import step
from cookbook_lib.commands.output import nbytes, print_json, print_table
from cookbook_lib.results import append, ready

MEASURED = ("weights", "activations")  # the parts that can be measured alone


def bench_memory(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    tokens: int = 512,
    batch: int = 1,
    layers: int | None = None,
    dtype: Literal["fp32", "bf16"] = "fp32",
    optimizer: Literal["adamw", "sgd"] = "adamw",
    device: Literal["cpu", "cuda"] = "cpu",
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Run two training steps in plain PyTorch, and compare what they hold with the prediction.

    On a GPU the peak is that of PyTorch's allocator. On a CPU it is the bytes of all tensors alive,
    without what an operation allocates for itself. The activations are what autograd saved.

    Args:
        model: a preset (see `cookbook models`), a config.json, or a folder that holds one
        tokens: of each sequence
        batch: sequences
        layers: keep only so many of the model's layers, the first ones
        dtype: of weights, activations, gradients and optimizer states
        optimizer: AdamW, or SGD with momentum
        device: cpu or cuda
        out: a file that the result is appended to as a line of JSON
        json: print one JSON document instead of a table
    """
    for name, value in {"tokens": tokens, "batch": batch, "layers": layers}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}, expected a whole number above 0")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but PyTorch finds no GPU: expected 'cpu'")
    if out:
        ready(out)
    how = {"batch": batch, "layers": layers, "dtype": dtype, "optimizer": optimizer}
    row = step(model, tokens=tokens, device=device, **how)
    if out:
        append(out, row)
    if json:
        return print_json(row)
    show(row)


def show(row: dict) -> None:
    """Predicted and measured side by side; a part that cannot be measured alone is left empty."""
    said, found = row["predicted"], row["measured"]
    rows = [
        [part, nbytes(said[part]), nbytes(found[part]) if part in MEASURED else ""] for part in said
    ]
    rows.append(["total, plain PyTorch", nbytes(row["plain"]), nbytes(found["total"])])
    print_table(f"{row['model']}: a training step", ("part", "predicted", "measured"), rows)
    print(
        f"{row['layers']} layers, {row['batch']} x {row['tokens']} tokens, {row['dtype']}, "
        f"{row['optimizer']}, on {row['device']}: predicted / measured is {row['ratio']:.3f}."
    )
