"""`cookbook train run`: train a model in a folder, alone or under torchrun."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from cookbook_lib.commands.output import print_json
from cookbook_lib.training import plans
from cookbook_lib.training.phases import Phase, Plan

LETTERS = "ma-8"  # of `tiny`; with an h in it, a pattern is Zamba2's


def train_run(
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
    model: str = "mhmh",
    d_model: int = 64,
    plan: str | None = None,
    tokens: float = 1e6,
    lr: float = 3e-3,
    data: list[str] | None = None,
    vocab: int = 2048,
    length: int = 256,
    batch: int = 16,
    micro_batch: int | None = None,
    optimizer: Literal["adamw", "muon"] = "adamw",
    weight_decay: float = 0.1,
    clip: float = 1.0,
    bf16: bool = False,
    compile: bool = False,
    device: str | None = None,
    shards: int | None = None,
    every: int = 100,
    keep: int = 3,
    resume: bool = False,
    tensorboard: bool = False,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Train a model; under torchrun, on all of its ranks. SIGTERM saves and ends.

    Args:
        out: a folder for checkpoints and metrics.jsonl
        model: a pattern of m (Mamba-2), a (attention), - (MLP), 8 (experts), or of m and h (Mamba-2
            with Zamba2's shared block); or a preset, a config.json, or a folder that holds one
        d_model: of a pattern
        plan: phases in a TOML file, see `cookbook phases`; otherwise a warm-up and a cosine
        tokens: to train on, without a plan
        lr: the highest learning rate, without a plan
        data: NAME=SHARDS for each source of the plan, SHARDS a folder of `cookbook tokens --out`;
            without it, prose and code of the installed Python
        vocab: ids are below it; for a pattern, and for the tokenizer of the installed Python
        length: tokens of a sequence
        batch: sequences of a step, on all ranks
        micro_batch: sequences that a rank runs at once; all of its own if not given
        optimizer: adamw, or muon for matrices and adamw for the rest
        weight_decay: of products' weights and tables; nothing else decays
        clip: the most that the gradient's norm may be
        bf16: products in bf16; weights and their sums stay float32
        compile: run blocks through torch.compile
        device: cpu or cuda; the GPU if there is one
        shards: ranks that split one copy of the weights (FSDP2), all if not given; 1 for copies
        every: steps between checkpoints
        keep: the last so many checkpoints
        resume: go on with the run that the folder holds
        tensorboard: write for TensorBoard too
        seed: of weights and of the data's order
        json: print one JSON document at the end instead of a bar
    """
    from cookbook_lib.training.loop import Options, Run
    from cookbook_lib.training.ranks import started
    from cookbook_lib.training.sampling import Sampler
    from cookbook_lib.training.session import Session, train

    session = Session(
        folder=out, every=every, keep=keep, resume=resume, tensorboard=tensorboard, bar=not json
    )
    options = Options(
        batch=batch,
        micro_batch=micro_batch,
        optimizer=optimizer,
        weight_decay=weight_decay,
        clip=clip,
        bf16=bf16,
        compile=compile,
        seed=seed,
    )
    make = maker(model, vocab, d_model)
    with started(device, shards) as ranks:
        sources = shards_of(data, vocab)
        chosen = plans.resolve(plan) if plan else simple(list(sources), tokens, lr)
        sampler = Sampler(chosen, sources, length, seed)
        report = train(Run(make, chosen, sampler, options, ranks), session)
        first = ranks.first
    if json and first:
        print_json(report)
    elif first and report["done"]:
        line = f"{report['steps']} steps, loss {report['loss']:.3f}" if "loss" in report else "done"
        print(f"cookbook: {line}; see {out}", file=sys.stderr)


def simple(sources: list[str], tokens: float, lr: float) -> Plan:
    """A warm-up over 2% of the tokens, then a cosine to a tenth (arXiv:2203.15556, section 3.1);
    all sources in equal parts."""
    mix = dict.fromkeys(sources, 1.0)
    phase = Phase(
        name="one", tokens=tokens, lr=lr, end=lr / 10, decay="cosine", warmup=tokens / 50, mix=mix
    )
    return Plan(name="a cosine", phases=(phase,))


def maker(model: str, vocab: int, d_model: int) -> Callable[[], Any]:
    """What makes the model with fresh weights; `ValueError` if there is no such model."""
    from cookbook_lib.blocks.models import Options, Residual, Zamba2, build
    from cookbook_lib.blocks.rope import RoPE
    from cookbook_lib.calculators import presets
    from cookbook_lib.training.tiny import tiny, zamba2

    if d_model < 32 or d_model % 32:
        raise ValueError(f"d_model is {d_model}, expected a multiple of 32, the width of a head")
    if model and set(model) <= set("mh"):
        blocks = Options(rope=RoPE(), activation="gelu")
        if "h" in model:
            return partial(Zamba2, zamba2(vocab, layers=model, d_model=d_model), blocks)
    if model and set(model) <= set(LETTERS):
        return partial(Residual, tiny(model, vocab, d_model), Options(rope=RoPE()))
    known = Path(model).exists() or model.endswith(".json") or "/" in model
    return partial(build, model if known else presets.entry(model)["config"])


def shards_of(data: list[str] | None, vocab: int) -> dict[str, list[Path]]:
    """The shards of each source, without their endings."""
    if not data:
        from cookbook_lib.data.python_corpus import python_corpus

        return python_corpus(vocab=vocab).shards
    found: dict[str, list[Path]] = {}
    for entry in data:
        name, equals, folder = entry.partition("=")
        if not (name and equals and folder):
            raise ValueError(f"data is {entry!r}, expected NAME=FOLDER, such as web=shards/web")
        found[name] = [path.with_suffix("") for path in sorted(Path(folder).rglob("*.idx"))]
        if not found[name]:
            raise ValueError(f"data {name} is {folder}, which holds no .idx: see `cookbook tokens`")
    return found
