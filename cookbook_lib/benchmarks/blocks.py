"""`cookbook bench block`: seconds of any block, alone, beside another package's, or of a model."""

import json as json_format
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor, nn

from cookbook_lib.benchmarks.ceilings import Ceilings, ceilings
from cookbook_lib.benchmarks.named import NAMES, Sizes, sized, sizes_of
from cookbook_lib.benchmarks.passes import Pass, inputs, shape, timed, work
from cookbook_lib.benchmarks.rows import row
from cookbook_lib.benchmarks.shown import show_blocks, show_model
from cookbook_lib.benchmarks.sides import ours, theirs
from cookbook_lib.benchmarks.sweep import Row, sweep
from cookbook_lib.benchmarks.timing import Stop, clock, compare
from cookbook_lib.benchmarks.tracked import peak_bytes
from cookbook_lib.blocks.cache import DTYPES
from cookbook_lib.calculators.costs import Block
from cookbook_lib.provenance import machine
from cookbook_lib.results import ready

USUAL_SIZES = Sizes()


@dataclass(frozen=True, kw_only=True)
class How:
    """What is the same for all rows of a run; its ceilings are measured when a row needs them."""

    device: str
    dtype: str
    graph: bool
    stop: Stop

    @cached_property
    def ceilings(self) -> Ceilings:
        return ceilings(self.device, self.dtype)


def bench_block(
    block: Annotated[
        Literal[tuple(NAMES)] | None, tyro.conf.Positional, tyro.conf.arg(metavar="BLOCK")
    ] = None,
    sizes: Annotated[Sizes, tyro.conf.arg(name="")] = USUAL_SIZES,
    model: str | None = None,
    tokens: tuple[int, ...] = (4096,),
    context: tuple[int, ...] = (4096,),
    batch: int = 1,
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32",
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int | None = None,
    passes: tuple[Pass, ...] = ("forward", "training", "decode"),
    against: Literal["nothing", "transformers", "mamba_ssm"] = "nothing",
    their_chunk_size: int = 256,
    seconds: float = 2.0,
    graph: bool = False,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Time the passes of a block, or of each block of a model, at sizes of your choice.

    FLOPs and bytes come from the block's spec. Two ceilings are measured in the same run, and each
    time is compared with them. A run with --out that was stopped goes on where it was.

    Args:
        block: which block; or give --model
        sizes: of the block
        model: a preset (see `cookbook models`), a config.json, or a folder that holds one
        tokens: of each sequence, in all passes but decode: one or more numbers
        context: tokens that each sequence holds before a decode step: one or more numbers
        batch: sequences
        dtype: of weights and activations
        device: cpu or cuda
        threads: that PyTorch may use; what it takes by itself if not given
        passes: forward, backward, training (both), decode: one or more
        against: also run the same block of this package, with the same weights, in turn
        their_chunk_size: tokens of a chunk in their Mamba-2; 256 is its default
        seconds: for the samples of each row; fewer if the median is known before
        graph: on CUDA, capture each pass as a graph and replay it
        out: a file that each result is appended to as a line of JSON
        json: print each result as a line of JSON instead of a table
    """
    if (block is None) == (model is None):
        raise ValueError(f"block is {block} and model is {model}, expected one of the two")
    counts = {"tokens": min(tokens), "context": min(context), "batch": batch, "threads": threads}
    for name, value in (counts | {"their-chunk-size": their_chunk_size}).items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but PyTorch finds no GPU: expected 'cpu'")
    if graph and device != "cuda":
        raise ValueError("graph is True, expected False on a CPU: graphs are CUDA's")
    if threads is not None:
        torch.set_num_threads(threads)
    how = How(device=device, dtype=dtype, graph=graph, stop=Stop(seconds=seconds))
    common = {"batch": batch, "dtype": dtype}
    lengths = [(p, n, 0) for p in passes if p != "decode" for n in tokens]
    lengths += [("decode", 1, n) for n in context if "decode" in passes]
    cases = [common | {"pass": p, "tokens": n, "context": c} for p, n, c in lengths]
    if model:
        if against != "nothing":
            raise ValueError(f"against is {against!r}, expected 'nothing' for a model")
        from cookbook_lib.benchmarks.whole_models import model_rows

        found = model_rows(model, cases, how, out, place(how))
        return print_lines(found) if json else show_model(found)
    spec = sized(block, sizes)
    if against != "nothing":
        cases = [case for case in cases if case["pass"] != "decode"]
        theirs(spec, against, device)  # rather now than after minutes of measuring
    if out:
        ready(out)
    run = partial(block_row, spec=spec, how=how, their_chunk_size=their_chunk_size)
    cases = [{"block": block, "sizes": sizes_of(spec), **c, "against": against} for c in cases]
    found = sweep(cases, run, out, device=device, again=place(how))
    print_lines(found) if json else show_blocks(found)


def place(how: How) -> Row:
    """What two rows must have in common to be of the same measurement."""
    return machine(how.device) | ({"graph": True} if how.graph else {})


def block_row(spec: Block, how: How, their_chunk_size: int, **case: Any) -> Row:
    """Measure one case: our side, and another that takes turns with it."""
    kind, against, dtype = case["pass"], case["against"], case["dtype"]
    run = shape(kind, case["batch"], case["tokens"], case["context"])
    torch.manual_seed(0)
    x = inputs(spec, run, dtype, how.device)
    modules = {"cookbook_lib": ready_for(ours(spec), x, dtype)}
    if against != "nothing":
        other = spec.but(chunk_size=their_chunk_size) if case["block"] == "mamba2" else spec
        modules[against] = ready_for(theirs(other, against, how.device), x, dtype)
        modules["cookbook_lib"].load_state_dict(modules[against].state_dict())
    runs = {by: timed(m, spec, kind, run, dtype, x) for by, m in modules.items()}
    found = compare(runs, clock(how.device, how.graph), how.stop)
    flops, nbytes = work(spec, kind, run, dtype)
    measured = row(
        {},
        found.timings["cookbook_lib"],
        device=how.device,
        flops=flops,
        nbytes=nbytes,
        ceilings=how.ceilings,
    )
    peaks = {by: peak_bytes(run, how.device) for by, run in runs.items()}
    measured["peak_bytes"] = peaks["cookbook_lib"]
    if against != "nothing":
        measured["other"] = {
            "seconds": found.timings[against].json(),
            "peak_bytes": peaks[against],
            "ratio": found.ratio(against, "cookbook_lib").json(),
            "largest_relative_difference": apart(*(run_once(m, x) for m in modules.values())),
        }
    return measured


def ready_for(module: nn.Module, x: Tensor, dtype: str) -> nn.Module:
    return module.to(x.device, DTYPES[dtype])


def run_once(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return module(x)


def apart(got: Tensor, want: Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


def print_lines(rows: list[Row]) -> None:
    for found in rows:
        print(json_format.dumps(found))
