"""`cookbook bench block`: seconds and memory of one block, alone or beside transformers'."""

import json as json_format
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor, nn

from cookbook_lib.benchmarks.peak import in_a_fresh_process, peak_of
from cookbook_lib.benchmarks.provenance import where
from cookbook_lib.benchmarks.sides import ours, theirs
from cookbook_lib.benchmarks.timing import Stop, clock, compare
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.costs import Block
from cookbook_lib.commands.output import nbytes, print_table
from cookbook_lib.results import append, ready

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}
SPECS = {"mamba1": specs.Mamba1, "mamba2": specs.Mamba2, "mamba3": specs.Mamba3}
SIDES: dict[str, Callable[[Block], nn.Module]] = {"ours": ours, "theirs": theirs}


def bench_block(
    block: Annotated[
        Literal["mamba1", "mamba2", "mamba3"], tyro.conf.Positional, tyro.conf.arg(metavar="BLOCK")
    ],
    d_model: int = 512,
    d_state: int | None = None,
    tokens: int = 4096,
    batch: int = 1,
    chunk_size: int = 128,
    their_chunk_size: int = 256,
    dtype: Literal["fp32", "bf16", "fp64"] = "fp32",
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int | None = None,
    against: Literal["nothing", "transformers"] = "nothing",
    passes: Literal["forward", "both"] = "both",
    repeats: int = 5,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Time a block's forward pass, and forward and backward together; and their peak memory.

    transformers runs plain PyTorch unless its kernels are there. Its Mamba-1 needs hours for a
    backward pass over 4096 tokens: measure it with `--passes forward`.

    Args:
        block: mamba1, mamba2 or mamba3
        d_model: width of the stream
        d_state: numbers in the state for each channel; the block's usual count if not given
        tokens: tokens of each sequence
        batch: sequences
        chunk_size: tokens of a chunk in Mamba-2 and 3, which changes speed but not results
        their_chunk_size: the same for transformers; 256 is its default
        dtype: of weights and activations
        device: cpu or cuda
        threads: that PyTorch may use; what it takes by itself if not given
        against: also run the same block of this package, with the same weights, in turn
        passes: forward only, or also forward and backward together
        repeats: measurements of each side, after one that is not counted
        out: a file that each result is appended to as a line of JSON
        json: print each result as a line of JSON instead of a table
    """
    counts = {"tokens": tokens, "batch": batch, "repeats": repeats, "threads": threads}
    counts |= {"chunk-size": chunk_size, "their-chunk-size": their_chunk_size}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but PyTorch finds no GPU: expected 'cpu'")
    if out:
        ready(out)  # rather now than after minutes of measuring
    if threads is not None:
        torch.set_num_threads(threads)
    setting = {
        "block": block,
        "d_model": d_model,
        "d_state": d_state,
        "tokens": tokens,
        "batch": batch,
        "chunk_size": chunk_size,
        "their_chunk_size": their_chunk_size,
        "dtype": dtype,
        "device": device,
        "threads": torch.get_num_threads(),
    }
    specs_of, x = prepared(setting)
    spec = specs_of["ours"]
    sides = ["ours"] + ["theirs"] * (against == "transformers")
    modules = {side: SIDES[side](specs_of[side]).to(x.device, x.dtype) for side in sides}
    difference = None
    if against == "transformers":
        modules["ours"].load_state_dict(modules["theirs"].state_dict())
        difference = apart(*(m.requires_grad_(False)(x) for m in modules.values()))
        for module in modules.values():
            module.requires_grad_(True)
    results = []
    for one in ["forward", "forward and backward"][: 1 + (passes == "both")]:
        runs = {side: a_pass(module, x, one) for side, module in modules.items()}
        timings = compare(runs, clock(device), Stop.after(repeats)).timings
        took = {side: timing.samples for side, timing in timings.items()}
        peak = {side: peak_bytes(setting, side, one) for side in sides}
        results.append(
            {
                **{k: v for k, v in setting.items() if k not in ("device", "threads")},
                "d_state": spec.d_state,
                "pass": one,
                "against": against,
                **where(device),
                "seconds": took,
                "peak_bytes": peak,
                "flops": spec.flops(b=batch, l=tokens) * (1 if one == "forward" else 3),
                "largest_relative_difference": difference,
                "ratios": pairs(took),
            }
        )
    report(results, json)
    for row in results if out else ():
        append(out, row)


def prepared(setting: dict) -> tuple[dict[str, Block], Tensor]:
    """The block's spec as each side runs it, and an input."""
    sizes = {k: setting[k] for k in ("d_model", "d_state") if setting[k] is not None}
    spec = SPECS[setting["block"]](**sizes)
    both = {"ours": spec, "theirs": spec}
    if hasattr(spec, "chunk_size"):
        both["ours"] = spec.but(chunk_size=setting["chunk_size"])
        both["theirs"] = spec.but(chunk_size=setting["their_chunk_size"])
    torch.manual_seed(0)
    x = torch.randn(setting["batch"], setting["tokens"], spec.d_model)
    return both, x.to(setting["device"], DTYPES[setting["dtype"]])


def a_pass(module: nn.Module, x: Tensor, kind: str) -> Callable[[], object]:
    """What is timed: the input has a gradient too, as inside a model."""
    if kind == "forward":
        return lambda: torch.no_grad()(module)(x)
    x = x.clone().requires_grad_()
    return lambda: module(x).sum().backward()


def pairs(took: dict[str, list[float]]) -> list[float] | None:
    """ours / theirs, round by round: what slows the machine down slows down both."""
    if len(took) < 2:
        return None
    return [a / b for a, b in zip(took["ours"], took["theirs"], strict=True)]


def apart(got: Tensor, want: Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


PEAK = (
    "import sys; from cookbook_lib.benchmarks.blocks import print_peak; print_peak(*sys.argv[1:])"
)


def peak_bytes(setting: dict, side: str, kind: str) -> int:
    """Bytes that one pass holds at most beyond what was there before, in a fresh process."""
    return int(in_a_fresh_process(PEAK, json_format.dumps(setting), side, kind))


def print_peak(setting: str, side: str, kind: str) -> None:
    """For `peak_bytes`, in its own process."""
    given = json_format.loads(setting)
    torch.set_num_threads(given["threads"])
    both, x = prepared(given)
    run = a_pass(SIDES[side](both[side]).to(x.device, x.dtype), x, kind)
    print(peak_of(run))


def report(results: list[dict], json: bool) -> None:
    if json:
        for result in results:
            print(json_format.dumps(result))
        return
    first, rows = results[0], []
    for r in results:
        for side, took in r["seconds"].items():
            rows.append(
                [
                    r["pass"],
                    "cookbook_lib" if side == "ours" else r["against"],
                    f"{median(took):.3f} s",
                    f"{min(took):.3f} to {max(took):.3f} s",
                    f"{r['flops'] / median(took):.2e}",
                    nbytes(r["peak_bytes"][side]),
                    f"{1 / median(r['ratios']):.1f} times as fast"
                    if side == "ours" and r["ratios"]
                    else "",
                ]
            )
    head = ("pass", "by", "median", "range", "FLOP/s", "peak memory", "")
    title = (
        f"{first['block']}, d_model {first['d_model']}, d_state {first['d_state']}, "
        f"{first['batch']} x {first['tokens']} tokens, {first['dtype']}, {first['device']}, "
        f"{first['threads']} threads"
    )
    print_table(title, head, rows)
    if (difference := first["largest_relative_difference"]) is not None:
        print(f"Outputs differ by {difference:.1e} of the largest.")
