"""`cookbook bench gemm`: the matrix products of a model over one of its sizes, measured."""

from pathlib import Path
from typing import Literal

import torch

from cookbook_lib.benchmarks.ceilings import ceilings
from cookbook_lib.benchmarks.gemm import Total, fastest, swept, total
from cookbook_lib.benchmarks.timing import Stop
from cookbook_lib.calculators import presets
from cookbook_lib.calculators.chips import named
from cookbook_lib.calculators.gemms import SMS
from cookbook_lib.calculators.runs import Run, choose
from cookbook_lib.calculators.sizing import useful
from cookbook_lib.calculators.varied import SIZES, Use, own, varied
from cookbook_lib.commands.output import count, print_json, print_table, seconds
from cookbook_lib.provenance import device_name


def bench_gemm(
    model: str = "zamba2-2.7b",
    vary: Literal[SIZES] = "d_model",
    near: int | None = None,
    span: int = 128,
    step: int = 64,
    values: tuple[int, ...] = (),
    tokens: int = 4096,
    dtype: Literal["fp32", "bf16", "fp16"] = "bf16",
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int | None = None,
    chip: str | None = None,
    by: Literal["value", "product"] = "value",
    budget: float = 1.0,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Time the matrix products of a forward pass that change with one of the model's sizes.

    Attention and scans count as the products that they hold, each alone, not as fused kernels. Run
    again with the same --out, a sweep goes on where it was stopped.

    Args:
        model: a preset (see `cookbook models`), a config.json, or a folder that holds one
        vary: the size: of the stream (d_model), of attention (n_heads, head_dim), of Mamba-2
            (nheads, headdim, d_state), of MLPs (d_ff), or the vocabulary (vocab)
        near: the middle of the range; the model's own value if not given
        span: how far the range goes to either side
        step: from one value to the next
        values: these instead of a range
        tokens: of one sequence
        dtype: of all operands
        device: cpu or cuda
        threads: that PyTorch may use; what it takes by itself if not given
        chip: for which tiles and waves are predicted; the device's own, or h100, if not given
        by: a line for each value, or for each product of each value
        budget: seconds for the samples of one shape, at most
        out: a file that each shape's row is appended to as a line of JSON
        json: print one JSON document instead of a table
    """
    numbers = {"near": near, "step": step, "tokens": tokens, "threads": threads}
    for name, number in {**numbers, "values": min(values, default=1)}.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}, expected a whole number above 0")
    if span < 0:
        raise ValueError(f"span is {span}, expected at least 0")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but PyTorch finds no GPU: expected 'cpu'")
    if threads is not None:
        torch.set_num_threads(threads)
    name, stop = device_name(device), Stop(seconds=budget)
    chip = choose("chip", (chip or named(name) or "h100").lower(), SMS)
    spec = presets.resolve(model)
    middle = near or own(spec, vary)
    several = values or range(max(middle - span, step), middle + span + 1, step)
    found = varied(spec, vary, several, Run(l=tokens))
    top = ceilings(device, dtype, stop)
    products = [use.product for uses in found.values() for use in uses]
    rows = swept(products, dtype, device=device, stop=stop, top=top, out=out)
    ceiling = max([top.flops, *(r["ceilings"]["flops"] for r in rows if "ceilings" in r)])
    totals = {value: total(uses, rows) for value, uses in found.items()}
    best, near_best = fastest(totals)
    if json:
        lines = [line(v, uses, totals[v], ceiling, chip) for v, uses in found.items()]
        report = {"model": spec.name, "vary": vary, "tokens": tokens, "dtype": dtype}
        report |= {"device": name, "chip": chip, "ceiling": ceiling, "values": lines}
        return print_json(report | {"fastest": best, "not_told_apart": near_best, "rows": rows})
    title = f"{spec.name}: products of {tokens} tokens over {vary}, {dtype}, on {name}"
    if by == "value":
        head = (vary, "time", "FLOP/s", "of ceiling", f"predicted, {chip}", "")
        print_table(title, head, [cells(v, found[v], t, ceiling, chip) for v, t in totals.items()])
    else:
        head = (
            vary,
            "product",
            "uses",
            "m x k x n",
            "FLOP/s",
            "of ceiling",
            f"waves, {chip}",
            "busy",
        )
        print_table(title, head, by_product(found, rows, ceiling, chip))
    told = said(vary, totals, best, near_best)
    print(f"A large product reaches {count(ceiling)}FLOP/s here; {told}")
    print(f"Predicted for {chip}, not measured: the share of tiles, SMs and memory rows in use.")


def predicted(uses: list[Use], chip: str) -> float:
    """The useful share of the time of all of them, if arithmetic bounds it."""
    return sum(u.flops for u in uses) / sum(u.flops / useful(u.product, chip) for u in uses)


def line(value: int, uses: list[Use], whole: Total, ceiling: float, chip: str) -> dict:
    return {
        "value": value,
        **{k: getattr(whole, k) for k in ("flops", "seconds", "low", "high", "noisy")},
        "flops_per_second": whole.rate or None,
        "of_ceiling": whole.rate / ceiling or None,
        "predicted": predicted(uses, chip),
    }


def cells(value: int, uses: list[Use], whole: Total, ceiling: float, chip: str) -> tuple:
    share = f"{predicted(uses, chip):.1%}"
    if whole.seconds is None:
        return value, "out of memory", "", "", share, ""
    rate = f"{count(whole.rate)}FLOP/s"
    note = "too noisy to compare" if whole.noisy else ""
    return value, seconds(whole.seconds), rate, f"{whole.rate / ceiling:.1%}", share, note


def by_product(found: dict[int, list[Use]], rows: list, ceiling: float, chip: str) -> list[tuple]:
    lines = []
    for value, uses in found.items():
        for use in sorted(uses, key=lambda u: -u.flops):
            g, whole = use.product, total([use], rows)
            tiling = g.tiling(SMS[chip])
            shape = f"{g.m} x {g.k} x {g.n}"
            shape = shape if g.count == 1 else f"{g.count} of {shape}"
            rate = f"{count(whole.rate)}FLOP/s" if whole.seconds else "out of memory"
            part = f"{whole.rate / ceiling:.1%}" if whole.seconds else ""
            line = (value, use.where, use.uses, shape, rate, part, tiling.waves)
            lines.append((*line, f"{useful(g, chip):.1%}"))
    return lines


def said(vary: str, totals: dict[int, Total], best: int, near: list[int]) -> str:
    """Which value is the fastest, as far as that is known."""
    first = f"{vary} {best} is the fastest for each FLOP"
    if any(whole.noisy for whole in totals.values()):
        return f"{first}, but the machine was too busy to be sure: measure again."
    others = ", ".join(map(str, near))
    return f"{first}, and cannot be told apart from {others}." if near else f"{first}."
