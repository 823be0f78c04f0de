"""`cookbook bench split-k`: one query against a long cache, cut into parts or not."""

import json as json_format
from pathlib import Path
from typing import Literal

import torch

from cookbook_lib.benchmarks.sweep import Row, sweep
from cookbook_lib.benchmarks.timing import Stop, clock, compare
from cookbook_lib.blocks.attention import attention_parallel
from cookbook_lib.blocks.dtypes import DTYPES
from cookbook_lib.commands.output import print_table, seconds
from cookbook_lib.decoding.split_k import split_k
from cookbook_lib.free_memory import NO_MEMORY
from cookbook_lib.provenance import machine, where


def bench_split_k(
    context: tuple[int, ...] = (16384,),
    parts: tuple[int, ...] = (1, 8, 64),
    batch: int = 1,
    heads: int = 32,
    kv_heads: int = 8,
    head_dim: int = 128,
    dtype: Literal["fp32", "bf16", "fp64"] = "bf16",
    device: Literal["cpu", "cuda"] = "cpu",
    budget: float = 3.0,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Time attention of a single query in parts, beside scaled_dot_product_attention.

    Args:
        context: keys of each sequence
        parts: into how many parts the keys are cut
        batch: sequences
        heads: of queries
        kv_heads: of keys and values
        head_dim: width of a head
        dtype: of queries, keys and values
        device: cpu or cuda
        budget: seconds of measuring for each context
        out: a file that each result is appended to as a line of JSON; what it holds is not run
            again
        json: print each result as a line of JSON instead of a table
    """
    sizes = {"context": context, "parts": parts, "batch": (batch,), "head-dim": (head_dim,)}
    for name, values in sizes.items():
        if not values or min(values) < 1:
            raise ValueError(f"{name} is {min(values, default='empty')}, expected at least 1")
    if kv_heads < 1 or heads < 1 or heads % kv_heads:
        raise ValueError(f"heads is {heads}, expected a multiple of kv-heads ({kv_heads})")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but PyTorch finds no GPU: expected 'cpu'")
    base = {"kind": "split-k", "batch": batch, "heads": heads, "kv_heads": kv_heads}
    base |= {"head_dim": head_dim, "dtype": dtype, "parts": parts}
    rows = sweep(
        [base | {"context": s} for s in context],
        lambda **case: timed(case, device, Stop(seconds=budget)),
        out,
        device=device,
        again=machine(device),
        show=lambda row: print(json_format.dumps(row), flush=True) if json else None,
    )
    if not json:
        report(rows)


@torch.inference_mode()
def timed(case: Row, device: str, stop: Stop) -> Row:
    """One query against `context` keys: in each number of parts, and by one kernel, in turn."""
    s, k_heads, dtype = case["context"], case["kv_heads"], DTYPES[case["dtype"]]
    q, k, v = (
        torch.randn(case["batch"], h, n, case["head_dim"], device=device).to(dtype)
        for h, n in ((case["heads"], 1), (k_heads, s), (k_heads, s))
    )
    want = attention_parallel(q.double(), k.double(), v.double())
    runs = {"sdpa": lambda: attention_parallel(q, k, v)}
    for p in case["parts"]:
        runs[str(p)] = lambda p=p: split_k(q, k, v, p)
    apart = {name: (run().double() - want).abs().max().item() for name, run in runs.items()}
    took = compare(runs, clock(device), stop).timings
    return {
        "outcome": "measured",
        "seconds": {name: timing.json() for name, timing in took.items()},
        "nbytes": k.nbytes + v.nbytes,
        "largest_difference": apart,
        **where(device),
    }


def report(rows: list[Row]) -> None:
    """A line for each way to attend to each context."""
    lines = []
    for r in rows:
        for by, took in (r.get("seconds") or {r["outcome"]: None}).items():
            name = {"sdpa": "scaled_dot_product_attention", NO_MEMORY: NO_MEMORY}.get(by)
            line = [r["context"], name or f"{by} parts"]
            if took:
                line += [seconds(took["median"]), f"{r['nbytes'] / took['median'] / 1e9:.1f}"]
                line.append(f"{r['largest_difference'][by]:.1e}")
            lines.append([*line, *[""] * (5 - len(line))])
    first = rows[0]
    title = (
        f"batch {first['batch']}, {first['heads']} heads, {first['kv_heads']} of keys, "
        f"{first['dtype']}, {first['device']}"
    )
    print_table(title, ("context", "by", "median", "GB/s", "error"), lines)
