"""The two sides of a comparison: our block, and the same block of transformers."""

import warnings
from collections.abc import Callable

from torch import nn

from cookbook_lib.blocks.models.modules import make
from cookbook_lib.blocks.models.options import Options
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.costs import Block


def ours(spec: Block) -> nn.Module:
    """The block that models of this package are made of."""
    return make(spec, Options())


def theirs(spec: Block) -> nn.Module:
    """transformers' mixer of the same sizes, in plain PyTorch where its kernels are not there."""
    if type(spec) not in THEIRS:
        raise ValueError(
            f"against is 'transformers', expected 'nothing': it has no {spec.component}"
        )
    from transformers.utils import logging

    logging.set_verbosity_error()  # notices about kernels that are not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return THEIRS[type(spec)](spec)


def mamba1(spec: specs.Mamba1) -> nn.Module:
    from transformers.models.mamba.configuration_mamba import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    config = MambaConfig(
        hidden_size=spec.d_model,
        state_size=spec.d_state,
        conv_kernel=spec.d_conv,
        expand=spec.expand,
        time_step_rank=spec.rank,
        num_hidden_layers=1,
    )
    return MambaMixer(config, layer_idx=0)


def mamba2(spec: specs.Mamba2) -> nn.Module:
    from transformers.models.mamba2.configuration_mamba2 import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    config = Mamba2Config(
        hidden_size=spec.d_model,
        state_size=spec.d_state,
        conv_kernel=spec.d_conv,
        expand=spec.expand,
        num_heads=spec.nheads,
        head_dim=spec.headdim,
        n_groups=spec.ngroups,
        chunk_size=spec.chunk_size,
        num_hidden_layers=1,
    )
    return Mamba2Mixer(config, layer_idx=0)


THEIRS: dict[type[Block], Callable] = {specs.Mamba1: mamba1, specs.Mamba2: mamba2}
