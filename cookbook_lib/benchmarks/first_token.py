"""Time to the first token, time for each further one, and memory, of models with random weights."""

from typing import Any

import torch

from cookbook_lib.benchmarks.generation import again
from cookbook_lib.benchmarks.shapes import config_of, fill, random_model
from cookbook_lib.benchmarks.timing import Stop, clock, compare
from cookbook_lib.benchmarks.tracked import peak_bytes
from cookbook_lib.blocks.dtypes import DTYPES
from cookbook_lib.decoding.rows import clear
from cookbook_lib.provenance import where


@torch.inference_mode()
def served(
    models: tuple[str, ...],
    prompt: int,
    output: int,
    batch: int,
    width: int,
    dtype: str,
    device: str,
    graph: bool,
    budget: float,
) -> list[dict[str, Any]]:
    """A row for each model; they take turns."""
    made = {m: random_model(config_of(m, width), DTYPES[dtype], device) for m in models}
    caches = {m: model.new_cache(batch, prompt + output) for m, model in made.items()}
    tokens = torch.randint(0, 1000, (batch, prompt), device=device)

    def first(m: str):
        def run():
            clear(caches[m])
            return made[m](tokens, caches[m], logits="last")

        return run

    firsts = {m: first(m) for m in models}
    beside = {m: peak_bytes(run, device) for m, run in firsts.items()}
    prefill = compare(firsts, clock(device), Stop(seconds=budget, least=6))
    steps = {}
    for m, model in made.items():
        clear(caches[m])
        fill(caches[m], prompt + output // 2)
        steps[m] = again(model, caches[m], tokens[:, -1:], graph)
    further = compare(steps, clock(device, graph), Stop(seconds=budget, least=6))
    rows = []
    for m, model in made.items():
        weights = sum(p.nbytes for p in model.parameters())
        rows.append(
            {
                "kind": "first-token",
                "model": m,
                "width": model.spec.before[0][1].d_model,
                "prompt": prompt,
                "output": output,
                "batch": batch,
                "dtype": dtype,
                "graph": graph,
                "first": prefill.timings[m].json(),
                "further": further.timings[m].json(),
                "weight_bytes": weights,
                "cache_bytes": caches[m].nbytes,
                "peak_bytes": weights + caches[m].nbytes + beside[m],
                **where(device),
            }
        )
    return rows
