"""`cookbook cost`: what one model costs to run."""

from typing import Annotated, Literal

import tyro

from cookbook_lib.calculators import presets
from cookbook_lib.calculators.report import cost_report
from cookbook_lib.calculators.runs import Run
from cookbook_lib.commands.output import count, nbytes, print_json, print_table

COUNTS = ("params", "params_used", "flops")
HEADS = {
    "component": ("component", *COUNTS),
    "block": ("block", "component", *COUNTS),
    "op": ("block", "op", "formula", "params", "flops"),
}


def cost(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    batch: int = 1,
    tokens: int = 4096,
    context: int = 4096,
    dtype: str = "bf16",
    by: Literal["component", "block", "op"] = "component",
    attention: Literal["dense", "causal"] = "dense",
    scan: Literal["chunked", "recurrent"] = "chunked",
    logits: Literal["all", "last"] = "all",
    json: bool = False,
) -> None:
    """Parameters, FLOPs of a forward pass and bytes of cache of one model.

    Args:
        model: a preset (see `cookbook models`), a config.json, or a folder that holds one
        batch: sequences
        tokens: tokens of each sequence in the forward pass that is counted
        context: tokens of each sequence that the cache holds
        dtype: of weights, KV cache and convolution state: fp32, bf16, fp16, fp8, int8, fp4, int4
        by: what a row of the table is
        attention: multiply every query with every key, or only with those it sees
        scan: count the SSM in chunks, as training does, or as the recurrence
        logits: of all positions or of the last
        json: print one JSON document instead of a table
    """
    for name, value in {"batch": batch, "tokens": tokens, "context": context}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected a whole number above 0")
    run = Run(b=batch, l=tokens, attention=attention, scan=scan, logits=logits)
    report = cost_report(presets.resolve(model), run, context, dtype, by)
    if json:
        return print_json(report)
    head = HEADS[by]
    rows = [[row[k] for k in head] for row in report["rows"]]
    print_table(f"{report['model']}: {batch} x {tokens} tokens, {dtype}", head, rows)
    for name, text in summary(report).items():
        print(f"{name:>22}  {text}")


def summary(report: dict) -> dict[str, str]:
    """The headline numbers in words, in the order a reader asks for them."""
    params = {k: report[f"params{k}"] for k in ("", "_active", "_used_per_token", "_embedding")}
    cached = f"{report['batch']} x {report['context']} tokens"
    return {
        **{f"params{k}".replace("_", " "): f"{n:,}" for k, n in params.items()},
        "forward": f"{count(report['flops'])}FLOP, {count(report['flops_per_token'])}FLOP a token",
        "decode": f"{count(report['decode_flops'])}FLOP a token after {cached}",
        "training step": f"{count(report['training_flops'])}FLOP",
        "cache": f"{nbytes(report['cache_bytes'])} for {cached}: KV {nbytes(report['kv_bytes'])}, "
        f"conv {nbytes(report['conv_state_bytes'])}, SSM {nbytes(report['ssm_state_bytes'])}",
    }
