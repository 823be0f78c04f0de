"""The cost of a model as one plain dictionary: what the command line prints and a browser shows."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from cookbook_lib.calculators.einsums import Row
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.runs import Run, choose

GROUPS: dict[str, Callable[[Row], tuple[str, ...]]] = {
    "component": lambda row: (row.component,),
    "block": lambda row: (row.block, row.component),
    "op": lambda row: (row.block, row.component, row.op, row.kind, row.formula),
}
NAMES = ("block", "component", "op", "kind", "formula")


def cost_report(
    model: Model, run: Run, context: int | None = None, dtype: str = "bf16", by: str = "component"
) -> dict[str, Any]:
    """Parameters, FLOPs of the forward pass, and bytes of cache after `context` tokens (None: s).

    `flops` is the forward pass of b times l tokens; `decode_flops` one more token for each of the
    b sequences after `context` tokens. In `rows`, `params` counts a shared weight at its first use
    only, so that it adds up to the model's; `params_used` counts it at every use.
    """
    choose("by", by, GROUPS)
    context = run.s if context is None else context
    rows, states = model.rows(run), model.states(run.b, context, dtype)
    cache = {k: sum(x.nbytes for x in states if x.kind == k) for k in ("kv", "conv", "ssm")}
    flops = sum(row.flops for row in rows)
    decode = {"b": run.b, "l": 1, "s": context, "attention": run.attention}
    return {
        "model": model.name,
        "family": model.family,
        "pattern": model.pattern,
        "source": model.source,
        "params": model.params(),
        "params_active": model.params_active(),
        "params_embedding": model.params_embedding(),
        "params_used_per_token": model.params_used(),
        "batch": run.b,
        "tokens": run.l,
        "context": context,
        "dtype": dtype,
        "attention": run.attention,
        "scan": run.scan,
        "logits": run.logits,
        "flops": flops,
        "flops_per_token": flops / (run.b * run.l),
        "decode_flops": model.flops(**decode),
        "backward_flops": model.backward_flops(**asdict(run)),
        "training_flops": model.step_flops(**asdict(run)),
        "training_flops_recompute": model.step_flops(recompute=True, **asdict(run)),
        "kv_bytes": cache["kv"],
        "conv_state_bytes": cache["conv"],
        "ssm_state_bytes": cache["ssm"],
        "cache_bytes": sum(cache.values()),
        "rows": grouped(rows, by),
    }


def grouped(rows: tuple[Row, ...], by: str) -> list[dict[str, Any]]:
    """The rows added up by component, by block or not at all, in the order they first run."""
    table: dict[tuple, dict[str, Any]] = {}
    seen: set[str] = set()
    multiplied = {row.name for row in rows if row.kind != "lookup"}
    for i, row in enumerate(rows):
        key = GROUPS[by](row) + ((i,) if by == "op" else ())
        names = NAMES if by == "op" else ("component",) if by == "component" else NAMES[:2]
        entry = table.setdefault(key, dict(zip(names, key, strict=False)) | zeros())
        entry["params"] += row.params if row.name not in seen else 0
        seen |= {row.name} if row.params else set()
        if row.kind != "lookup" or row.name not in multiplied:  # a tied table counts once
            entry["params_used"] += row.params_active
        entry["flops"] += row.flops
        entry["elements"] += row.elements
    return list(table.values())


def zeros() -> dict[str, int]:
    return dict.fromkeys(("params", "params_used", "flops", "elements"), 0)
