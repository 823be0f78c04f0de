"""Each distinct block of a model at its true shape, one at a time, and their sum beside the whole.

A model of any size can be measured so, as only one block is in memory. Residual additions, the
masks and what Python does between blocks are in no block: the sum is a little less than the whole.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from cookbook_lib.benchmarks.named import sizes_of
from cookbook_lib.benchmarks.passes import inputs, shape, timed, work
from cookbook_lib.benchmarks.rows import row
from cookbook_lib.benchmarks.sides import ours
from cookbook_lib.benchmarks.sweep import Row, sweep
from cookbook_lib.benchmarks.timing import clock, measure
from cookbook_lib.blocks.cache import DTYPES
from cookbook_lib.blocks.models import LanguageModel, build
from cookbook_lib.calculators import presets
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.memory import Training, memory
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.calculators.runs import BITS
from cookbook_lib.free_memory import available
from cookbook_lib.results import ready


def model_rows(model: str, cases: list[Row], how: Any, out: Path | None, place: Row) -> list[Row]:
    """Rows of all parts for each pass and length, then one of the whole; place: see `sweep`."""
    config = model if Path(model).exists() else presets.entry(model)["config"]
    with torch.device("meta"):
        made = build(config)
    if out:
        ready(out)
    name = Path(model).parent.name if model.endswith(".json") else Path(model).name
    found = []
    for case in cases:
        uses = distinct(made)
        parts = [
            {"model": name, "part": part, "sizes": sizes_of(spec), "uses": n, **case}
            for part, (spec, n) in uses.items()
        ]
        run = partial(part_row, specs=uses, options=made.options, how=how)
        rows = sweep(parts, run, out, device=how.device, again=place)
        whole = {"model": name, "part": "whole", "uses": 1, **case}
        total = predicted(rows)
        rows += sweep(
            [whole], partial(whole_row, made, how, total), out, device=how.device, again=place
        )
        found += rows
    return found


def distinct(made: LanguageModel) -> dict[str, tuple[Block, int]]:
    """A name for each block that differs from the others -> its spec, and how often it runs."""
    uses: dict[Block, int] = {}
    for _, block in made.spec.layout:
        uses[block] = uses.get(block, 0) + 1
    names: dict[str, tuple[Block, int]] = {}
    for spec, n in uses.items():
        same = sum(name.split()[0] == spec.component for name in names)
        names[f"{spec.component} {same + 1}" if same else spec.component] = spec, n
    return names


def predicted(rows: list[Row]) -> float | None:
    """Seconds of all uses of all parts; None if one of them was not measured."""
    if any(r["outcome"] != "measured" for r in rows):
        return None
    return sum(r["uses"] * r["seconds"]["median"] for r in rows)


def part_row(specs: dict, options, how, **case: Any) -> Row:
    spec, _ = specs[case["part"]]
    kind, dtype = case["pass"], case["dtype"]
    run = shape(kind, case["batch"], case["tokens"], case["context"])
    with torch.device(how.device):
        module = ours(spec, options).to(DTYPES[dtype])
    x = inputs(spec, run, dtype, how.device)
    took = measure(timed(module, spec, kind, run, dtype, x), clock(how.device), how.stop)
    flops, nbytes = work(spec, kind, run, dtype)
    return row({}, took, device=how.device, flops=flops, nbytes=nbytes, ceilings=how.ceilings)


def whole_row(made: LanguageModel, how, total: float | None, **case: Any) -> Row:
    """The whole model, where it fits the memory that is free."""
    kind, dtype = case["pass"], case["dtype"]
    run = shape(kind, case["batch"], case["tokens"], case["context"])
    if (need := needed(made, case)) > (free := free_bytes(how.device)):
        said = f"the whole needs {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        return {"outcome": said, "predicted": total}
    with torch.device(how.device):
        model = type(made)(made.spec, made.options).to(DTYPES[dtype])
    took = measure(a_step(model, kind, run), clock(how.device), how.stop)
    flops, nbytes = work(made.spec, kind, run, dtype)
    found = row({}, took, device=how.device, flops=flops, nbytes=nbytes)
    return found | {"predicted": total}


def a_step(model: LanguageModel, kind: str, run):
    """What one sample of a whole model runs; the loss is a sum, as its kernel is no block's."""
    table = model.get_submodule(model.spec.before[0][0])
    tokens = torch.randint(table.num_embeddings, (run.b, run.l), device=table.weight.device)
    if kind == "forward":
        return lambda: torch.no_grad()(model)(tokens)
    if kind == "decode":
        cache, held = model.new_cache(run.b, run.s), run.s - run.l

        def step():
            cache.length = held  # the same place again
            torch.no_grad()(model)(tokens, cache)

        return step
    if kind == "training":
        weights = list(model.parameters())

        def train():
            loss = F.cross_entropy(model(tokens).flatten(0, 1).float(), tokens.flatten())
            torch.autograd.grad(loss, weights, allow_unused=True)

        return train
    raise ValueError("passes has 'backward', expected forward, training or decode for a model")


def needed(made: LanguageModel, case: Row) -> int | float:
    """Bytes that the whole takes at least."""
    size = BITS[case["dtype"]] // 8
    weights = made.spec.params() * size
    if case["pass"] == "training":
        how = Training(
            tokens=case["tokens"],
            parallel=Parallel(micro_batch=case["batch"]),
            dtype=case["dtype"],
            master=False,
            kernels="eager",
        )
        found = memory(made.spec, how)
        return 2 * weights + found.activations + found.temporary
    states = made.spec.state_bytes(b=case["batch"], s=case["context"] + 1, dtype=case["dtype"])
    logits = case["batch"] * case["tokens"] * made.spec.before[0][1].vocab * size
    return weights + states * (case["pass"] == "decode") + 2 * logits


def free_bytes(device: str) -> int | float:
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return available() or 0
