"""From a spec to its module: the one place that knows which class runs which block."""

from torch import nn

from cookbook_lib.blocks.attention import Attention
from cookbook_lib.blocks.deltanet import GatedDeltaNet
from cookbook_lib.blocks.latent_attention import MLA
from cookbook_lib.blocks.linear import Linear
from cookbook_lib.blocks.mamba1 import Mamba1
from cookbook_lib.blocks.mamba2 import Mamba2
from cookbook_lib.blocks.mamba3 import Mamba3
from cookbook_lib.blocks.mlp import MLP
from cookbook_lib.blocks.models.options import Options
from cookbook_lib.blocks.moe import MoE
from cookbook_lib.blocks.norms import LayerNorm, RMSNorm
from cookbook_lib.blocks.rwkv7 import RWKV7, RWKV7ChannelMix
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.costs import Block


def embedding(spec: specs.Embedding) -> nn.Embedding:
    """A table of tokens, small at the start (GPT-2's 0.02), as it often is the head too."""
    table = nn.Embedding(spec.vocab, spec.d_model)
    nn.init.normal_(table.weight, std=0.02)
    return table


def lora(spec: specs.LoRA) -> nn.Sequential:
    """Two linears through a narrow middle; adds nothing at the start, as in arXiv:2106.09685."""
    pair = nn.Sequential(
        Linear(spec.d_in, spec.rank, bias=False), Linear(spec.rank, spec.d_out, bias=False)
    )
    nn.init.zeros_(pair[1].weight)
    return pair


def make(spec: Block, options: Options) -> nn.Module:
    """The module of a spec, with the options that it needs; `ValueError` for one without."""
    o = options
    inside = o.eps if o.mixer_eps is None else o.mixer_eps
    match spec:
        case specs.Embedding():
            return embedding(spec)
        case specs.Norm():
            return (LayerNorm if spec.bias else RMSNorm)(spec.d_model, eps=o.eps)
        case specs.Linear():
            return Linear(spec.d_in, spec.d_out, bias=spec.bias)
        case specs.Head():
            return Linear(spec.d_model, spec.vocab, bias=spec.bias)
        case specs.LoRA():
            return lora(spec)
        case specs.MLP():
            return MLP(spec, activation=o.activation, gate_first=o.gate_first)
        case specs.MoE():
            return MoE(
                spec,
                gate=o.gate,
                normalise=o.normalise,
                balance=o.balance,
                activation=o.activation,
            )
        case specs.Attention():
            return Attention(spec, o.eps, rope=o.rope, scale=o.scale)
        case specs.MLA():
            return MLA(spec, inside, rope=o.rope, scale=o.scale)
        case specs.Mamba1():
            return Mamba1(spec, inside, plain_norms=o.plain_norms)
        case specs.Mamba2():
            return Mamba2(spec, inside, dt_limit=o.dt_limit)
        case specs.Mamba3():
            return Mamba3(spec, inside)
        case specs.GatedDeltaNet():
            return GatedDeltaNet(spec, inside)
        case specs.RWKV7():
            return RWKV7(spec, inside)
        case specs.RWKV7ChannelMix():
            return RWKV7ChannelMix(spec)
    raise ValueError(f"{spec.component} is a block that models cannot run")
