"""`cookbook serve-cost`: what serving a model on one chip takes."""

from typing import Annotated, Any

import tyro

from cookbook_lib.calculators import presets
from cookbook_lib.calculators.chips import chip as chip_named
from cookbook_lib.calculators.serving import USABLE, Serving, serving_report
from cookbook_lib.calculators.storage import WIDE, Storage
from cookbook_lib.commands.output import count, nbytes, print_json, print_table, seconds


def serve_cost(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    chip: str = "h100",
    batch: int = 1,
    prompt: int = 4096,
    output: int = 512,
    weights: str = WIDE,
    embed: str = WIDE,
    cache: str = WIDE,
    ssm: str = "",
    compute: str = WIDE,
    usable: float = USABLE,
    json: bool = False,
) -> None:
    """Time to the first token, time per token and memory of serving one model on one chip.

    Args:
        model: a preset (see `cookbook models`), a config.json, or a folder that holds one
        chip: b200, h200, h100, a100, mi300x, l40s, rtx4090, m4max, phone or cpu
        batch: sequences that are served at once
        prompt: tokens that each of them starts with
        output: tokens that each of them gets
        weights: format of the weights: fp32, bf16, fp16, fp8, int8, int4 (in groups of 128),
            int4-g64, int4-g32, mxfp4, nvfp4
        embed: format of the embedding and the head
        cache: format of keys and values
        ssm: dtype of SSM states: fp32 or bf16; as the model's framework keeps them by default
        compute: dtype in which products with weights run: bf16, fp8, int8, fp4, int4
        usable: part of the memory for weights and caches
        json: print one JSON document instead of a table
    """
    store = Storage(weights=weights, embed=embed, cache=cache, ssm=ssm, compute=compute)
    serving = Serving(
        model=presets.resolve(model), chip=chip_named(chip), store=store, usable=usable
    )
    report = serving_report(serving, batch, prompt, output)
    if json:
        return print_json(report)
    rows = [
        (
            name,
            count(bound["flops"]) + "FLOP",
            nbytes(bound["fused_bytes"]),
            f"{bound['intensity']:.1f}",
            bound["bound_by"],
            seconds(bound["fused"]),
            seconds(bound["eager"]),
        )
        for name, bound in ((k, report[k]) for k in ("prefill", "decode"))
    ]
    head = ("pass", "FLOPs", "bytes", "FLOPs a byte", "bound by", "fused", "op by op")
    title = f"{report['model']} on {report['chip']}: {batch} x {prompt} tokens, {output} more"
    print_table(title, head, rows)
    for name, text in summary(report, serving).items():
        print(f"{name:>22}  {text}")


def summary(report: dict[str, Any], serving: Serving) -> dict[str, str]:
    """The headline in words; times lie between a fused run and one op by op."""
    b, context = report["batch"], report["prompt"] + report["output"]
    longest = report["longest_context"]
    spans = {
        k: f"{seconds(report[f'{k}_fused'])} to {seconds(report[f'{k}_eager'])}"
        for k in ("ttft", "tpot", "seconds")
    }
    return {
        "first token (TTFT)": spans["ttft"],
        "each further (TPOT)": spans["tpot"],
        "whole answer": spans["seconds"],
        "throughput, at most": f"{report['decode_tokens_per_second']:,.1f} tokens/s while "
        f"decoding, {report['tokens_per_second']:,.1f} with the prefill",
        "memory": f"{nbytes(report['memory_bytes'])}: weights {nbytes(report['weight_bytes'])}, "
        f"cache {nbytes(report['cache_bytes'])}; {nbytes(serving.room)} may be used",
        "largest batch": f"{report['largest_batch']:,} sequences of {context:,} tokens",
        "longest context": f"{longest:,} tokens for a batch of {b}"
        if longest
        else "memory sets no limit: nothing grows with it any more",
    }
