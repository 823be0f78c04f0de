"""Seconds of one decoding step of a model with random weights, alone or beside transformers'."""

from collections.abc import Callable

import torch
from torch import Tensor

from cookbook_lib.benchmarks.ceilings import COPIED
from cookbook_lib.benchmarks.shapes import fill, their_cache
from cookbook_lib.benchmarks.timing import Stop, clock, compare
from cookbook_lib.blocks.cache import Cache
from cookbook_lib.blocks.models import LanguageModel
from cookbook_lib.calculators.chips import CHIPS
from cookbook_lib.calculators.hardware import roofline
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.storage import Storage
from cookbook_lib.decoding.rows import ragged


@torch.inference_mode()
def one(ours, theirs, b: int, s: int, dtype: str, device: str, graph: bool, budget: float) -> dict:
    """Seconds of a step, the bytes that it has to read and write, and the rate of plain reading.

    All sides take turns: the models, and a large matrix times a vector, which is all reading.
    """
    cache = fill(ours.new_cache(b, s + 8), s)
    token = torch.randint(0, 1000, (b, 1), generator=torch.Generator().manual_seed(2)).to(device)
    runs, difference = {"ours": again(ours, cache, token, graph)}, None
    if theirs is not None:
        past = their_cache(theirs, cache, s)
        copies = {key: t.clone() for key, t in cache.tensors() if key not in cache.slots}
        runs["theirs"] = lambda: theirs(token, past_key_values=past, use_cache=True).logits
        got, want = (run().float() for run in runs.values())
        difference = ((got - want).abs().max() / want.abs().max()).item()
        for (use, name), t in copies.items():  # both sides go on from the same states
            cache.states[use][name].copy_(t)
    side = int((COPIED[device] / 4) ** 0.5)
    large, vector = torch.ones(side, side, device=device), torch.ones(side, device=device)
    runs["reading"] = lambda: torch.mv(large, vector)
    stop = Stop(seconds=budget, least=8, precision=0.01)
    comparison = compare(runs, clock(device, graph), stop)
    took = dict(comparison.timings)
    reading = large.nbytes / took.pop("reading").median
    format_ = Storage(weights=dtype, embed=dtype, cache=dtype)
    ratio = None
    if theirs is not None:  # more than 1: transformers takes longer
        ratio = comparison.ratio("theirs", "ours").json()
        del ratio["verdict"]  # it is about transformers, which the row's name is not
    bound = roofline(ours.spec, CHIPS["cpu"], Run(b=b, l=1, s=s + 1), format_)
    return {
        "seconds": {side: timing.json() for side, timing in took.items()},
        "tokens_per_second": {side: b / timing.median for side, timing in took.items()},
        "times_as_fast": ratio,
        "largest_relative_difference": difference,
        "step_bytes": bound.fused_bytes,
        "read_rate": reading,
        "cache_bytes": ours.spec.state_bytes(b=b, s=s, dtype=dtype),
    }


def again(model: LanguageModel, cache: Cache, token: Tensor, graph: bool) -> Callable[[], Tensor]:
    """A step that is taken back by its length, so that each one has the same context.

    States go on, which changes their numbers and not the time.
    """
    if graph:
        ragged(cache)

    def run() -> Tensor:
        logits = model(token, cache)
        cache.length -= 1
        if graph:
            cache.lengths -= 1
        return logits

    return run
