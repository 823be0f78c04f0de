"""`cookbook scaling`: model size and training tokens for a budget, by three fits of one law."""

from typing import Any, Literal

from cookbook_lib.calculators import chips
from cookbook_lib.calculators import scaling as laws
from cookbook_lib.commands.output import count, print_json, print_table


def scaling(
    flops: float | None = None,
    chip: str = "h100",
    gpus: int | None = None,
    days: float | None = None,
    mfu: float = 0.4,
    inference_tokens: float = 0.0,
    reference_params: float | None = None,
    law: Literal["all", "besiroglu", "hoffmann", "sardana"] = "all",
    json: bool = False,
) -> None:
    """The model size and the tokens that make the best of a training budget.

    The law was fitted to dense transformers; for any other model it is an assumption.

    Args:
        flops: training budget in FLOP; or say gpus and days
        chip: h100, a100, …: what the GPUs are
        gpus: how many
        days: for how long
        mfu: the share of the chip's bf16 peak that training reaches
        inference_tokens: tokens that the model will read and write in its life
        reference_params: match the loss of the best model of this size, not that of the budget
        law: one fit, or all three
        json: print one JSON document instead of a table
    """
    flops = budget(flops, chip, gpus, days, mfu, reference_params)
    names = list(laws.LAWS) if law == "all" else [law]
    fits = [fit(laws.LAWS[name], flops, inference_tokens, reference_params) for name in names]
    if json:
        report = {"flops": flops, "inference_tokens": inference_tokens, "laws": fits}
        return print_json(report | {"note": NOTE})
    title = f"{count(flops)}FLOP of training" if flops else f"as good as {count(reference_params)}"
    head = ["law", "size", "parameters", "tokens", "tokens/parameter", "loss", "FLOP, life"]
    rows = [
        [f["law"], what, *(count(f[key][k]) for k in ("params", "tokens"))]
        + [f"{f[key]['tokens_per_param']:.1f}", f"{f[key]['loss']:.3f}"]
        + [count(f[key]["flops_with_inference"])]
        for f in fits
        for key, what in {"training": "least training", "life": "least in its life"}.items()
        if key in f
    ]
    print_table(title, head, rows)
    print(NOTE)


NOTE = (
    "Fitted to dense transformers of 70 M to 16 B parameters: beyond them, and for hybrids and "
    "experts, an assumption. MiniCPM reports 192 tokens for each parameter (arXiv:2404.06395)."
)


def budget(flops, chip, gpus, days, mfu, reference_params) -> float | None:
    """FLOPs from either of the two ways to say them; none where a reference size says enough."""
    machine = chips.chip(chip)
    laws.share(mfu)
    if (gpus is None) != (days is None):
        raise ValueError(f"gpus is {gpus} and days is {days}, expected both or neither")
    if flops is not None and gpus is not None:
        raise ValueError("flops and gpus are both given, expected one of them")
    if gpus is not None:
        return laws.budget(machine, gpus, days, mfu)
    if flops is None and reference_params is None:
        raise ValueError("no budget: give flops, or gpus and days, or reference_params")
    if flops is not None:
        laws.positive(flops=flops)
    return flops


def fit(law, flops, inference_tokens, reference_params) -> dict[str, Any]:
    """What one law says: the best size for training, and for training and inference together."""
    if reference_params is not None:
        base = laws.reference(law, reference_params)
    else:
        base = laws.optimum(law, flops)
    sizes = {"training": base}
    if inference_tokens:
        sizes["life"] = laws.with_inference(law, base.loss, inference_tokens)
    return {"law": law.name, "source": law.source} | {
        key: {
            "params": size.params,
            "tokens": size.tokens,
            "tokens_per_param": size.tokens_per_param,
            "loss": size.loss,
            "flops_training": size.flops(),
            "flops_with_inference": size.flops(inference_tokens),
            "inside_the_fit": law.fits(size.params, size.tokens),
        }
        for key, size in sizes.items()
    }
