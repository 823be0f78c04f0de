"""`cookbook bench generate`: seconds of one decoding step, alone or beside transformers'."""

import json as json_format
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from cookbook_lib.benchmarks.generation import one
from cookbook_lib.benchmarks.shapes import MID, config_of, random_model, their_model
from cookbook_lib.blocks.dtypes import DTYPES
from cookbook_lib.commands.output import nbytes, print_table, seconds
from cookbook_lib.provenance import where
from cookbook_lib.results import append, ready


def bench_generate(
    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = (
        MID,
    ),
    context: tuple[int, ...] = (1024,),
    batch: tuple[int, ...] = (1,),
    width: int = 768,
    against: Literal["nothing", "transformers"] = "nothing",
    dtype: Literal["fp32", "bf16"] = "fp32",
    device: Literal["cpu", "cuda"] = "cpu",
    graph: bool = False,
    threads: int | None = None,
    budget: float = 6.0,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Time one decoding step of models with random weights, for each context and batch.

    Caches hold random numbers, the same on both sides: no prompt is read. Both sides' logits are
    compared before they are timed.

    Args:
        models: presets, or zamba2-mid, mamba2-mid, llama-mid: 12 layers of `width` channels
        context: tokens that each sequence holds before the step
        batch: sequences
        width: channels of the mid-sized models
        against: also run the same weights in transformers, in turn
        dtype: of weights and caches
        device: cpu or cuda
        graph: on cuda, record the step as a CUDA graph and replay it
        threads: that PyTorch may use; what it takes by itself if not given
        budget: seconds of measuring for each pair of context and batch
        out: a file that each result is appended to as a line of JSON
        json: print each result as a line of JSON instead of a table
    """
    for name, values in {"context": context, "batch": batch, "threads": (threads or 1,)}.items():
        if not values or min(values) < 1:
            raise ValueError(f"{name} is {min(values, default='empty')}, expected at least 1")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but PyTorch finds no GPU: expected 'cpu'")
    if graph and (device != "cuda" or against != "nothing"):
        raise ValueError("graph is True, expected device 'cuda' and against 'nothing' with it")
    if out:
        ready(out)  # rather now than after minutes of measuring
    if threads is not None:
        torch.set_num_threads(threads)
    configs = {name: config_of(name, width) for name in models}
    rows = []
    for name, config in configs.items():
        theirs = None
        if against == "transformers":
            theirs, ours = their_model(config, DTYPES[dtype], device)
        else:
            ours = random_model(config, DTYPES[dtype], device)
        for b, s in product(batch, context):
            what = {"model": name, "width": config["hidden_size"], "batch": b, "context": s}
            setting = {"dtype": dtype, "against": against, "graph": graph}
            measured = one(ours, theirs, b, s, dtype, device, graph, budget)
            rows.append({"kind": "generate", **what, **setting, **measured, **where(device)})
            if json:
                print(json_format.dumps(rows[-1]), flush=True)
            if out:
                append(out, rows[-1])
        del ours, theirs
    if not json:
        report(rows)


def report(rows: list[dict[str, Any]]) -> None:
    lines = []
    for r in rows:
        for side, rate in r["tokens_per_second"].items():
            took = r["seconds"][side]
            ratio = r["times_as_fast"]["median"] if r["times_as_fast"] and side == "ours" else None
            lines.append(
                [
                    r["model"],
                    r["batch"],
                    r["context"],
                    "cookbook_lib" if side == "ours" else r["against"],
                    seconds(took["median"]),
                    f"{rate:.1f}",
                    f"{r['step_bytes'] / took['median'] / 1e9:.1f} of {r['read_rate'] / 1e9:.1f}",
                    nbytes(r["cache_bytes"]),
                    f"{ratio:.2f} times as fast" if ratio else "",
                ]
            )
    head = ("model", "batch", "context", "by", "step", "tokens/s", "GB/s", "cache", "")
    first = rows[0]
    print_table(f"{first['dtype']}, {first['device']}, {first['threads']} threads", head, lines)
    differences = [r["largest_relative_difference"] for r in rows if r["times_as_fast"]]
    if differences:
        print(f"Logits differ by at most {max(differences):.1e} of the largest.")
