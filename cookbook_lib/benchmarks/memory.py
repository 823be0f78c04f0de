"""`cookbook bench memory`: a real training step of a model, beside the predicted bytes."""

from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from cookbook_lib.benchmarks.provenance import where
from cookbook_lib.benchmarks.saved import saved
from cookbook_lib.benchmarks.tracked import Tracked
from cookbook_lib.blocks import kernels
from cookbook_lib.blocks.cache import DTYPES
from cookbook_lib.blocks.models import LanguageModel, build
from cookbook_lib.calculators import presets
from cookbook_lib.calculators.costs import BITS
from cookbook_lib.calculators.memory import LOSS, Memory, Training, loss_bytes, memory
from cookbook_lib.calculators.memory_plan import PARTS
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.parallel import Parallel
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
    how = Training(
        tokens=tokens,
        parallel=Parallel(micro_batch=batch),
        dtype=dtype,
        master=False,
        optimizer=optimizer,
        kernels="eager",
    )
    found, spec = measured(model, layers, how, device)
    predicted = memory(spec, how)
    plain = in_plain_pytorch(spec, how, predicted)
    row = {
        "model": Path(model).parent.name if model.endswith(".json") else Path(model).name,
        "layers": len(spec.pattern),
        "tokens": tokens,
        "batch": batch,
        "dtype": dtype,
        "optimizer": optimizer,
        "kernels": how.kernels,
        "predicted": {part: getattr(predicted, part) for part in (*PARTS, "total")},
        "plain": plain,
        "measured": found,
        "ratio": plain / found["total"],
        **where(device),
    }
    if out:
        append(out, row)
    if json:
        return print_json(row)
    show(row)


def measured(
    model: str, layers: int | None, how: Training, device: str
) -> tuple[dict[str, int], Model]:
    """Bytes of weights, of what autograd saved, and of the most that two steps hold."""
    torch.manual_seed(0)
    with kernels.left_out():
        made = made_of(model, layers, device).to(DTYPES[how.dtype])
        shape = (how.parallel.micro_batch, how.tokens)
        tokens = torch.randint(made.spec.before[0][1].vocab, shape, device=device)
        weights = sum(p.nbytes for p in made.parameters())
        kept = saved(lambda: made(tokens), but=made.parameters()).nbytes
        peak = peak_of_steps(made, tokens, how.optimizer, device)
    return {"weights": weights, "activations": kept, "total": weights + peak}, made.spec


def in_plain_pytorch(spec: Model, how: Training, predicted: Memory) -> int:
    """The predicted total, and what PyTorch needs beside it without fused accumulation.

    A gradient is whole before it is added to the one that is there. That of the head meets the
    logits'; those of a table that is embedding and head too are two, and their sum a third. AdamW
    on a CPU makes two temporaries of a weight.
    """
    size = BITS[how.dtype] // 8
    held = predicted.total - predicted.activations - predicted.temporary
    logits = loss_bytes(spec.after, how) // LOSS
    head, table = ({n: b.params() * size for n, b in part} for part in (spec.after, spec.before))
    tied = 3 if set(head) & set(table) else 1
    moments = (
        predicted.activations + predicted.temporary,
        predicted.activations + 4 * logits + max(head.values()),
        tied * max(table.values()),
        2 * size * max(spec.weights().values()) if how.optimizer == "adamw" else 0,
    )
    return held + max(moments)


def made_of(model: str, layers: int | None, device: str) -> LanguageModel:
    """The model with random weights, cut to its first layers."""
    config = model if Path(model).exists() else presets.entry(model)["config"]
    with torch.device("meta"):
        whole = build(config)
    spec = whole.spec.but(pattern=whole.spec.pattern[:layers])
    with torch.device(device):
        return type(whole)(spec, whole.options)


def peak_of_steps(made: LanguageModel, tokens: Tensor, optimizer: str, device: str) -> int:
    """The most bytes beyond the weights. Gradients stay allocated, as where they are added up."""
    fused = device == "cuda"  # the other AdamW makes copies of all weights on the way
    make = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[optimizer]
    more = {"momentum": 0.9} if optimizer == "sgd" else {}
    states = make(made.parameters(), lr=1e-4, fused=fused or None, **more)

    def step() -> None:
        F.cross_entropy(made(tokens).flatten(0, 1).float(), tokens.flatten()).backward()
        states.step()
        states.zero_grad(set_to_none=False)

    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with Tracked() as tracked:
        for _ in range(2):
            step()
    return tracked.peak


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
