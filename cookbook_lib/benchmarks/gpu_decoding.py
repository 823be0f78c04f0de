"""What `make gpu` wants of decoding: seconds of a step and of a first token."""

from itertools import product

from cookbook_lib.benchmarks.first_token import served
from cookbook_lib.benchmarks.generation import one
from cookbook_lib.benchmarks.shapes import config_of, random_model
from cookbook_lib.benchmarks.split_k import timed
from cookbook_lib.benchmarks.timing import Stop
from cookbook_lib.benchmarks.wanted import Case, Here, Wanted
from cookbook_lib.blocks.dtypes import DTYPES

MODELS = ("zamba2-1.2b", "mamba2-1.3b", "llama-2-7b", "zamba2-2.7b", "mamba2-2.7b")
PAIR = ("zamba2-2.7b", "phi-3-mini-4k")  # zyphra.com/post/zamba2-small: 2x, 27%, 1.29x


def steps(here: Here) -> Wanted:
    """A decoding step of each shape against context and batch, recorded as a CUDA graph."""
    models = ("zamba2-mid", "mamba2-mid", "llama-mid") if here.tiny else MODELS
    contexts, batches = ((64,), (1, 2)) if here.tiny else ((1024, 4096, 16384), (1, 8, 32))
    base = {"kind": "generate", "dtype": "bf16", "against": "nothing", "graph": not here.tiny}
    cases = [
        base | {"model": model, "batch": b, "context": s}
        for model, b, s in product(models, batches, contexts)
        if b * s <= 8 * 16384
    ]

    def run(case: Case) -> dict:
        model = random_model(config_of(case["model"], 64), DTYPES["bf16"], here.device)
        size = case["batch"], case["context"]
        found = one(
            model, None, *size, "bf16", here.device, case["graph"], 0.05 if here.tiny else 1.0
        )
        return {"outcome": "measured", **found}

    return Wanted(cases=cases, run=run)


def split(here: Here) -> Wanted:
    """One query against a long cache, cut into parts or not: few sequences leave a GPU idle."""
    contexts, batches = ((64,), (1,)) if here.tiny else ((4096, 16384, 65536, 131072), (1, 8))
    base = {"kind": "split-k", "heads": 32, "kv_heads": 8, "head_dim": 128, "dtype": "bf16"}
    base["parts"] = [1, 4] if here.tiny else [1, 8, 32, 128]
    cases = [base | {"context": s, "batch": b} for s, b in product(contexts, batches)]
    stop = Stop(seconds=0.05 if here.tiny else 2.0)
    return Wanted(cases=cases, run=lambda case: timed(case, here.device, stop))


def first_tokens(here: Here) -> Wanted:
    """The pair whose comparison is published, with every setting stated."""
    models, prompts = (("zamba2-mid", "llama-mid"), (32,)) if here.tiny else (PAIR, (2048, 4096))
    base = {"kind": "first-token", "dtype": "bf16", "graph": not here.tiny, "output": 128}
    cases = [
        base | {"model": model, "prompt": prompt, "batch": b}
        for prompt, b, model in product(prompts, (1, 8), models)
    ]

    def run(case: Case) -> dict:
        size = case["prompt"], case["output"], case["batch"]
        found = served(
            (case["model"],),
            *size,
            64,
            "bf16",
            here.device,
            case["graph"],
            0.05 if here.tiny else 2.0,
        )
        return {"outcome": "measured", **found[0]}

    return Wanted(cases=cases, run=run)
