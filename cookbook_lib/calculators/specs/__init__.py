"""The blocks of hybrid models, each declared once. Names follow mamba_ssm and transformers."""

from cookbook_lib.calculators.specs.attention import Attention
from cookbook_lib.calculators.specs.delta import GatedDeltaNet
from cookbook_lib.calculators.specs.gated_conv import GatedConv
from cookbook_lib.calculators.specs.kda import KDA
from cookbook_lib.calculators.specs.layers import (
    Embedding,
    Gate,
    Head,
    Linear,
    LoRA,
    Norm,
    ShortConv,
)
from cookbook_lib.calculators.specs.lightning import Lightning
from cookbook_lib.calculators.specs.mamba2 import Mamba2
from cookbook_lib.calculators.specs.mamba3 import Mamba3
from cookbook_lib.calculators.specs.mla import MLA
from cookbook_lib.calculators.specs.mlp import MLP, MoE
from cookbook_lib.calculators.specs.mlstm import MLSTM
from cookbook_lib.calculators.specs.rg_lru import RGLRU
from cookbook_lib.calculators.specs.rwkv7 import RWKV7, RWKV7ChannelMix
from cookbook_lib.calculators.specs.ssm import Mamba1

__all__ = [
    "KDA",
    "MLA",
    "MLP",
    "MLSTM",
    "RGLRU",
    "RWKV7",
    "Attention",
    "Embedding",
    "Gate",
    "GatedConv",
    "GatedDeltaNet",
    "Head",
    "Lightning",
    "Linear",
    "LoRA",
    "Mamba1",
    "Mamba2",
    "Mamba3",
    "MoE",
    "Norm",
    "RWKV7ChannelMix",
    "ShortConv",
]
