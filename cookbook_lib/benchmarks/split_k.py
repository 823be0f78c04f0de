"""`cookbook bench split-k`: one query against a long cache, cut into parts or not."""

import json as json_format
from pathlib import Path
from typing import Any, Literal

import torch

from cookbook_lib.benchmarks.provenance import where
from cookbook_lib.benchmarks.timing import Stop, clock, compare
from cookbook_lib.blocks.attention import attention_parallel
from cookbook_lib.blocks.dtypes import DTYPES
from cookbook_lib.commands.output import print_table, seconds
from cookbook_lib.decoding.split_k import split_k
from cookbook_lib.results import append, ready


@torch.inference_mode()
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
        out: a file that each result is appended to as a line of JSON
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
    if out:
        ready(out)
    rows: list[dict[str, Any]] = []
    for s in context:
        q, k, v = (
            torch.randn(batch, h, n, head_dim, device=device).to(DTYPES[dtype])
            for h, n in ((heads, 1), (kv_heads, s), (kv_heads, s))
        )
        want = attention_parallel(q.double(), k.double(), v.double())
        runs = {"sdpa": lambda q=q, k=k, v=v: attention_parallel(q, k, v)}
        for p in parts:
            runs[str(p)] = lambda q=q, k=k, v=v, p=p: split_k(q, k, v, p)
        apart = {name: (run().double() - want).abs().max().item() for name, run in runs.items()}
        comparison = compare(runs, clock(device), Stop(seconds=budget))
        nbytes = k.nbytes + v.nbytes
        for name, timing in comparison.timings.items():
            row = {
                "kind": "split-k",
                "by": "sdpa" if name == "sdpa" else "split_k",
                "parts": None if name == "sdpa" else int(name),
                "context": s,
                "batch": batch,
                "heads": heads,
                "kv_heads": kv_heads,
                "head_dim": head_dim,
                "dtype": dtype,
                "seconds": timing.json(),
                "bytes_per_second": nbytes / timing.median,
                "largest_difference": apart[name],
            }
            rows.append(row | where(device))
            if json:
                print(json_format.dumps(rows[-1]), flush=True)
            if out:
                append(out, rows[-1])
    if not json:
        report(rows)


def report(rows: list[dict[str, Any]]) -> None:
    lines = [
        [
            r["context"],
            "scaled_dot_product_attention" if r["by"] == "sdpa" else f"{r['parts']} parts",
            seconds(r["seconds"]["median"]),
            f"{r['bytes_per_second'] / 1e9:.1f}",
            f"{r['largest_difference']:.1e}",
        ]
        for r in rows
    ]
    first = rows[0]
    title = (
        f"batch {first['batch']}, {first['heads']} heads, {first['kv_heads']} of keys, "
        f"{first['dtype']}, {first['device']}"
    )
    print_table(title, ("context", "by", "median", "GB/s", "error"), lines)
