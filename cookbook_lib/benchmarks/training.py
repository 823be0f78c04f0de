"""`cookbook bench train`: tokens a second of the loop, of its bare parts, and of transformers."""

import json as jsonlib
import statistics
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from cookbook_lib.benchmarks.training_ways import Same, bare, loop, trainer
from cookbook_lib.commands.output import count, print_table
from cookbook_lib.commands.train import maker
from cookbook_lib.provenance import where


def bench_train(
    model: str = "mhmh",
    d_model: int = 128,
    vocab: int = 2048,
    length: int = 256,
    batch: int = 8,
    steps: int = 5,
    repeats: int = 5,
    json: bool = False,
) -> None:
    """Time training steps of a model on a CPU, in turn: bare, by the loop, and by transformers.

    Bare is forward, backward and an optimizer step. Trainer takes part if accelerate is installed.

    Args:
        model: a pattern of letters or a preset, as in `cookbook train run`
        d_model: of a pattern
        vocab: of a pattern
        length: tokens of a sequence
        batch: sequences of a step
        steps: of each of them in a round
        repeats: rounds that count, after one that does not
        json: print one JSON document instead of a table
    """
    for name, value in {"steps": steps, "repeats": repeats, "batch": batch}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    make = maker(model, vocab, d_model)
    spec = make().spec
    data = Same(spec.before[0][1].vocab, length, batch)
    with TemporaryDirectory() as folder:
        ways: dict[str, Callable[[], float]] = {
            "bare": partial(bare(make, data), steps),
            "loop": partial(loop(make, data, Path(folder)), steps),
        }
        if find_spec("accelerate"):
            ways["Trainer"] = partial(trainer(make, data, Path(folder)), steps)
        rounds = [{name: way() for name, way in ways.items()} for _ in range(repeats + 1)][1:]
    tokens = steps * batch * length
    report = {
        "model": spec.name,
        "params": spec.params(),
        "tokens_per_step": batch * length,
        "tokens_per_second": {n: tokens / statistics.median(r[n] for r in rounds) for n in ways},
        "against_bare": {n: statistics.median(r["bare"] / r[n] for r in rounds) for n in ways},
        "rounds": rounds,
        **where("cpu"),
    }
    if json:
        print(jsonlib.dumps(report, indent=2))
        return
    rows = [
        [n, f"{count(report['tokens_per_second'][n])}tokens/s", f"{report['against_bare'][n]:.3f}"]
        for n in ways
    ]
    title = f"{spec.name}, {spec.params():,} parameters, {batch} x {length} tokens a step"
    print_table(title, ("by", "median", "of bare"), rows)
    if "Trainer" not in ways:
        print("transformers.Trainer takes part where accelerate is installed")
