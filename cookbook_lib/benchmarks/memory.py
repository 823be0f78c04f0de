"""A real training step of a model, beside the predicted bytes."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cookbook_lib.benchmarks.saved import saved
from cookbook_lib.benchmarks.tracked import Tracked
from cookbook_lib.blocks import kernels
from cookbook_lib.blocks.cache import DTYPES
from cookbook_lib.blocks.models import LanguageModel, build
from cookbook_lib.calculators import presets
from cookbook_lib.calculators.memory import LOSS, Memory, Training, loss_bytes, memory
from cookbook_lib.calculators.memory_plan import PARTS
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.calculators.runs import BITS
from cookbook_lib.provenance import where


def step(
    model: str,
    *,
    tokens: int,
    batch: int = 1,
    layers: int | None = None,
    dtype: str = "fp32",
    optimizer: str = "adamw",
    device: str = "cpu",
) -> dict[str, Any]:
    """The row of two training steps: what they hold, beside what is predicted."""
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
    return {
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
