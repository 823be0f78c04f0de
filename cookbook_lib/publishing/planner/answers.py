"""The reports that the planner shows: those of the commands, for the same settings.

Each is kept, so that a slider computes again only what depends on it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cookbook_lib.calculators import presets
from cookbook_lib.calculators.chips import chip
from cookbook_lib.calculators.configs import from_dict
from cookbook_lib.calculators.memory import Training
from cookbook_lib.calculators.memory_plan import memory_report
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.calculators.report import cost_report
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.serving import Serving, serving_report
from cookbook_lib.calculators.step_time import train_report
from cookbook_lib.calculators.storage import Storage
from cookbook_lib.calculators.variants import changed, split
from cookbook_lib.publishing.planner.settings import PASTED

SPLIT = ("gpus", "zero", "tp", "pp", "micro_batch")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command and the settings that are its flags: {"prompt": "context"}."""

    name: str
    flags: tuple[tuple[str, str], ...]


def same(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, name) for name in names)


COMMANDS = {
    "cost": Command(name="cost", flags=same("batch", "tokens", "context")),
    "memory": Command(name="memory", flags=same("chip", *SPLIT, "tokens", "recompute")),
    "time": Command(
        name="train-time",
        flags=same("chip", *SPLIT, "tokens", "recompute", "train_tokens", "mfu", "price"),
    ),
    "serve": Command(
        name="serve-cost",
        flags=(*same("chip", "batch"), ("prompt", "context"), *same("output", "weights")),
    ),
}


def shell(report: str, model: str, values: Mapping[str, Any]) -> str:
    """The command that prints the report: `cookbook cost zamba2-2.7b --batch 1 …`."""
    command = COMMANDS[report]
    said = [(flag.replace("_", "-"), values[name]) for flag, name in command.flags]
    flags = [f"--{flag} {plain(v)}" for flag, v in said if v != ""]
    quoted = f"'{model}'" if set(model) & set(' ,()*[]"') else model
    return " ".join(["cookbook", command.name, quoted, *flags])


def plain(value: Any) -> str:
    """As short as it can be said without changing the number: 1e+12, 0.4, 512."""
    if not isinstance(value, float):
        return str(value)
    return short if float(short := f"{value:g}") == value else repr(value)


@lru_cache(maxsize=32)
def model_of(line: str, config: str) -> Model:
    """The model of a line; its base is a preset, or PASTED for the pasted config."""
    base, changes = split(line)
    if base.lower() not in presets.names() and base == PASTED:
        return changed(pasted(config), PASTED, changes)
    if base.endswith(".json") or "/" in base:
        raise ValueError(f"{base} is not here, expected a preset's name or {PASTED}")
    return presets.resolve(line)


def pasted(config: str) -> dict[str, Any]:
    """The fields of the pasted config."""
    if not config.strip():
        raise ValueError(f"{PASTED} is empty: paste a config, or choose a preset")
    try:
        data = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{PASTED}: not JSON: {error}") from None
    from_dict(data, PASTED)  # its errors come before those of any change
    return data


def config_of(line: str, config: str) -> dict[str, Any]:
    """The fields of a line's config, with its changes."""
    base, changes = split(line)
    fields = pasted(config) if base == PASTED else presets.entry(base)["config"]
    return {**fields, **{k: v for k, v in changes.items() if k != "pattern"}}


def report(name: str, line: str, config: str, values: Mapping[str, Any], **options) -> dict:
    """The report of a command for one model, exactly as the command prints it."""
    wanted = tuple((flag, values[setting]) for flag, setting in COMMANDS[name].flags)
    return REPORTS[name](model_of(line, config), wanted, **options)


@lru_cache(maxsize=64)
def cost(model: Model, wanted: tuple) -> dict[str, Any]:
    v = dict(wanted)
    return cost_report(model, Run(b=v["batch"], l=v["tokens"]), v["context"])


@lru_cache(maxsize=64)
def memory(model: Model, wanted: tuple, search: bool = True) -> dict[str, Any]:
    v = dict(wanted)
    how = Training(tokens=v["tokens"], parallel=parallel(v), recompute=v["recompute"])
    return memory_report(model, how, chip(v["chip"]), search=search)


@lru_cache(maxsize=64)
def time(model: Model, wanted: tuple) -> dict[str, Any]:
    v = dict(wanted)
    if not 1 <= v["train_tokens"] < 1e30:
        raise ValueError(f"train_tokens is {v['train_tokens']:g}, expected a number of tokens")
    return train_report(
        model,
        chip(v["chip"]),
        parallel(v),
        v["tokens"],
        int(v["train_tokens"]),
        mfu=None if v["mfu"] == "" else v["mfu"],
        price=None if v["price"] == "" else v["price"],
        recompute=v["recompute"],
        attention="causal",
    )


@lru_cache(maxsize=64)
def serve(model: Model, wanted: tuple) -> dict[str, Any]:
    v = dict(wanted)
    serving = Serving(model=model, chip=chip(v["chip"]), store=Storage(weights=v["weights"]))
    return serving_report(serving, v["batch"], v["prompt"], v["output"])


def parallel(v: Mapping[str, Any]) -> Parallel:
    return Parallel(**{name: v[name] for name in SPLIT})


@lru_cache(maxsize=64)
def cache_curve(model: Model, batch: int, contexts: tuple[int, ...]) -> tuple[int, ...]:
    """Bytes of the cache of `batch` sequences at each context, in bf16 as `cookbook cost` says."""
    return tuple(model.state_bytes(b=batch, s=n) for n in contexts)


REPORTS = {"cost": cost, "memory": memory, "time": time, "serve": serve}
