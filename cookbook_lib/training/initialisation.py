"""What the blocks leave to the model: outputs scaled by depth.

The blocks draw their own weights as their papers prescribe: time steps log-uniform in 0.001 … 0.1
behind an inverse softplus (arXiv:2312.00752, section 3.6), A_log of 1 … d_state for Mamba and of
uniform(1, 16) for Mamba-2 (mamba_ssm 2.3, modules/mamba2.py, A_init_range), tables of standard
deviation 0.02, LoRA that adds nothing. transformers 5.23 starts the heads of Zamba2 at
A = 1 … n_mamba_heads instead, so that most of them forget much faster than in Zyphra's own code.
"""

import re

import torch

from cookbook_lib.blocks.models import LanguageModel, Zamba
from cookbook_lib.calculators.runs import Run


def outputs(model: LanguageModel) -> list[str]:
    """The weight that each use of a block writes to the stream with: its last product.

    Zamba's shared block has none: what it says is read by a Mamba block, not added to the stream.
    """
    names = []
    for i in range(len(model.spec.pattern)):
        for name, block in model.spec.layer(i):
            products = [row.op for row in block.rows(Run()) if row.params and row.kind == "matmul"]
            if products and (not isinstance(model, Zamba) or block.component.startswith("mamba")):
                names.append(f"{name}.{products[-1]}")
    return names


@torch.no_grad()
def scale_outputs(model: LanguageModel) -> LanguageModel:
    """Divide them by the square root of how often something is added to the stream: GPT-2's way,
    1 / sqrt(2 L) in a transformer of L layers (mamba_ssm 2.3, mixer_seq_simple.py)."""
    names = outputs(model)
    written = dict(model.named_parameters())
    for name in dict.fromkeys(names):
        like = re.compile(re.escape(name).replace(r"\*", r"\d+"))  # a star: all experts
        for full in filter(like.fullmatch, written):
            written[full].mul_(len(names) ** -0.5)
    return model
