"""Which weights decay, and who moves them: AdamW, or Muon for the matrices and AdamW for the rest.

What a parameter is follows from the spec, not from its shape: Mamba's A_log and the bias of several
heads' time steps are matrices by shape, and neither decays.
"""

import re

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from cookbook_lib.blocks.models import LanguageModel
from cookbook_lib.calculators.runs import Run, choose

DECAYS = ("matmul", "conv", "lookup")  # kinds of einsum; mamba_ssm marks A_log, D and dt as exempt
NAMES = ("adamw", "muon")
EXPERT = re.compile(r"(?<=experts)\.\d+\.")  # where the spec has a star


def kinds(model: LanguageModel) -> dict[str, str]:
    """What each parameter is used for: matmul, conv, lookup, elementwise, or head.

    A table that is the embedding and the head as well is a lookup.
    """
    found: dict[str, str] = {}
    for name, block in model.spec.layout:
        for row in block.rows(Run()):
            if row.params:
                kind = "head" if row.component == "head" else row.kind
                found.setdefault(f"{name}.{row.op}", kind)
    stars = {name: kind for name, kind in found.items() if "*" in name}
    return {
        name: found[name] if name in found else stars[EXPERT.sub(".*.", name)]
        for name, _ in model.named_parameters()
    }


def decays(model: LanguageModel) -> dict[str, bool]:
    """Whether weight decay pulls at a parameter: at products' and convolutions' weights, at tables;
    not at biases, norms, A_log, D, dt_bias and whatever else is one number for each channel."""
    return {name: kind in (*DECAYS, "head") for name, kind in kinds(model).items()}


def optimizers(
    model: LanguageModel,
    name: str = "adamw",
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.95),
) -> list[Optimizer]:
    """The optimizers of all parameters; the loop sets their rate.

    Muon moves the matrices inside the model. Its steps are scaled to AdamW's root mean square, so
    that both go by one rate and one weight decay: arXiv:2502.16982, section 2.2. A fused in_proj is
    one matrix to it; stacked experts are none, and are AdamW's.
    """
    choose("optimizer", name, NAMES)
    kind, decay = kinds(model), decays(model)
    by_muon: list[nn.Parameter] = []
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for full, p in model.named_parameters():
        if name == "muon" and kind[full] == "matmul" and p.ndim == 2:
            by_muon.append(p)
        else:
            groups[decay[full]].append(p)
    parts = [
        {"params": ps, "weight_decay": weight_decay if d else 0.0} for d, ps in groups.items() if ps
    ]
    made: list[Optimizer] = [AdamW(parts, betas=betas, eps=1e-8)]
    if by_muon:
        made.append(Muon(by_muon, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
    return made
