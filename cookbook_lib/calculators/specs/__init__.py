"""The blocks of hybrid models, each declared once. Names follow mamba_ssm and transformers."""

from cookbook_lib.calculators.specs.attention import Attention
from cookbook_lib.calculators.specs.delta import GatedDeltaNet
from cookbook_lib.calculators.specs.layers import (
    Embedding,
    Gate,
    Head,
    Linear,
    LoRA,
    Norm,
    ShortConv,
)
from cookbook_lib.calculators.specs.mamba3 import Mamba3
from cookbook_lib.calculators.specs.mlp import MLP, MoE
from cookbook_lib.calculators.specs.rwkv7 import RWKV7, RWKV7ChannelMix
from cookbook_lib.calculators.specs.ssm import Mamba1, Mamba2

__all__ = [
    "MLP",
    "RWKV7",
    "Attention",
    "Embedding",
    "Gate",
    "GatedDeltaNet",
    "Head",
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
