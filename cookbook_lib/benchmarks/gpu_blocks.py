"""Blocks that `make gpu` times: those of the crossovers, and those of models as they are."""

from functools import cache

import torch

from cookbook_lib.benchmarks.ceilings import Ceilings, ceilings
from cookbook_lib.benchmarks.passes import inputs, shape, timed, work
from cookbook_lib.benchmarks.rows import row
from cookbook_lib.benchmarks.sides import ours
from cookbook_lib.benchmarks.sweep import Row
from cookbook_lib.benchmarks.timing import Stop, clock, measure
from cookbook_lib.benchmarks.wanted import Case, Here, Wanted
from cookbook_lib.blocks.dtypes import DTYPES
from cookbook_lib.calculators import presets, specs
from cookbook_lib.calculators.costs import Block
from cookbook_lib.results import committed

NAMES: dict[str, type[Block]] = {
    "attention": specs.Attention,
    "mamba1": specs.Mamba1,
    "mamba2": specs.Mamba2,
    "gated-deltanet": specs.GatedDeltaNet,
    "mlp": specs.MLP,
}
STOP = Stop(seconds=0.5)
CASE = ("block", "sizes", "batch", "pass", "tokens", "context", "against")
OF_MODELS = {  # model -> blocks
    "zamba2-2.7b": ("mamba2", "attention", "mlp"),
    "mamba-2.8b": ("mamba1",),
    "qwen3-next-80b-a3b": ("gated-deltanet",),
}
PASSES = [("forward", 4096, 0), ("training", 4096, 0)]
PASSES += [("decode", 1, context) for context in (1024, 8192, 32768, 131072)]


def crossovers(here: Here) -> Wanted:
    """What the chapter on crossovers holds of a CPU, on this device and in bf16."""
    held = [r for r in committed("crossovers") if r["block"] in NAMES and r["against"] == "nothing"]
    cases = [{key: r[key] for key in CASE} | {"dtype": "bf16"} for r in held]
    return wanted(cases, here)


def of_models(here: Here) -> Wanted:
    """Blocks of published models: many tokens, a training pass, and one token after a context."""
    cases = []
    for kind, tokens, context in PASSES:
        for model, names in OF_MODELS.items():
            blocks = dict.fromkeys(block for _, block in presets.preset(model).layout)
            for name in names:
                spec = next(block for block in blocks if isinstance(block, NAMES[name]))
                what = {"model": model, "block": name, "sizes": sizes(spec), "batch": 1}
                what |= {"pass": kind, "tokens": tokens, "context": context}
                cases.append(what | {"against": "nothing", "dtype": "bf16"})
    return wanted(cases, here)


def sizes(spec: Block) -> dict:
    return {name: value for name, value in vars(spec).items() if name != "names"}


def wanted(cases: list[Case], here: Here) -> Wanted:
    unique = list({str(case): case for case in cases}.values())
    if here.tiny:  # one case of each block, with few tokens
        small = {"tokens": 4, "context": 0, "pass": "forward", "dtype": "fp32"}
        unique = list({case["block"]: case | small for case in unique}.values())

    @cache
    def top(dtype: str) -> Ceilings:
        return ceilings(here.device, dtype)

    return Wanted(cases=unique, run=lambda case: block_row(case, here.device, top(case["dtype"])))


def block_row(case: Case, device: str, top: Ceilings) -> Row:
    """The time of one pass of one block."""
    spec, dtype = NAMES[case["block"]](**case["sizes"]), case["dtype"]
    run = shape(case["pass"], case["batch"], case["tokens"], case["context"])
    torch.manual_seed(0)
    x = inputs(spec, run, dtype, device)
    with torch.device(device):
        module = ours(spec).to(DTYPES[dtype])
    does = work(spec, case["pass"], run, dtype)
    took = measure(timed(module, spec, case["pass"], run, dtype, x), clock(device), STOP)
    return row({}, took, device=device, flops=does.flops, nbytes=does.nbytes, ceilings=top)
