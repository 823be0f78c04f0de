"""`cookbook bench first-token`: time to the first token, time for each further one, and memory."""

import json as json_format
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from cookbook_lib.benchmarks.first_token import served
from cookbook_lib.commands.output import nbytes, print_table, seconds
from cookbook_lib.results import append, ready


def bench_first_token(
    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = (
        "zamba2-2.7b",
        "phi-3-mini-4k",
    ),
    prompt: int = 2048,
    output: int = 128,
    batch: int = 1,
    width: int = 768,
    dtype: Literal["fp32", "bf16"] = "bf16",
    device: Literal["cpu", "cuda"] = "cpu",
    graph: bool = False,
    budget: float = 10.0,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Serve a batch with models of random weights, in turn: how long, and how much memory.

    The first token is a pass over the prompt into an empty cache, logits of the last token only. A
    further one is a step in the middle of the output. Memory is the weights, the cache for prompt
    and output, and the most that the pass over the prompt holds beside them.

    Args:
        models: presets, or zamba2-mid, mamba2-mid, llama-mid: 12 layers of `width` channels
        prompt: tokens of each prompt
        output: tokens that the cache has room for after them
        batch: sequences
        width: channels of the mid-sized models
        dtype: of weights and caches
        device: cpu or cuda
        graph: on cuda, replay the further steps as CUDA graphs
        budget: seconds of measuring for each of the two passes
        out: a file that each result is appended to as a line of JSON
        json: print each result as a line of JSON instead of a table
    """
    for name, value in {"prompt": prompt, "output": output, "batch": batch}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but PyTorch finds no GPU: expected 'cpu'")
    if graph and device != "cuda":
        raise ValueError("graph is True, expected device 'cuda' with it")
    if out:
        ready(out)
    rows = served(models, prompt, output, batch, width, dtype, device, graph, budget)
    for row in rows:
        if json:
            print(json_format.dumps(row), flush=True)
        if out:
            append(out, row)
    if not json:
        report(rows)


def report(rows: list[dict[str, Any]]) -> None:
    """Each model, and how it compares with the last."""
    last, lines = rows[-1], []
    for r in rows:
        ratio = [last[k]["median"] / r[k]["median"] for k in ("first", "further")]
        saved = 1 - r["peak_bytes"] / last["peak_bytes"]
        lines.append(
            [
                r["model"],
                seconds(r["first"]["median"]),
                seconds(r["further"]["median"]),
                nbytes(r["weight_bytes"]),
                nbytes(r["cache_bytes"]),
                nbytes(r["peak_bytes"]),
                f"{ratio[0]:.2f} and {ratio[1]:.2f} times as fast, {saved:.0%} less memory"
                if r is not last
                else "",
            ]
        )
    title = (
        f"prompt {last['prompt']}, batch {last['batch']}, {last['dtype']}, {last['device']}, "
        f"{last['threads']} threads"
    )
    head = ("model", "first token", "further", "weights", "cache", "peak", f"to {last['model']}")
    print_table(title, head, lines)
