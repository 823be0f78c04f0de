"""The sides of a comparison: our block, and the same block of transformers or of mamba_ssm."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cookbook_lib.blocks.models.modules import make
from cookbook_lib.blocks.models.options import Options
from cookbook_lib.blocks.short_conv import short_conv
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.costs import Block


class ShortConv(nn.Module):
    """The convolution that blocks have inside, on its own."""

    def __init__(self, spec: specs.ShortConv):
        super().__init__()
        conv = nn.Conv1d(spec.d_model, spec.d_model, spec.d_conv, groups=spec.d_model)
        self.weight, self.bias = conv.weight, conv.bias if spec.bias else None

    def forward(self, x: Tensor, state: dict[str, Tensor] | None = None) -> Tensor:
        return short_conv(x, self.weight, self.bias, state and state["conv"])


def ours(spec: Block, options: Options | None = None) -> nn.Module:
    """The block that models of this package are made of."""
    if isinstance(spec, specs.ShortConv):
        return ShortConv(spec)
    return make(spec, options or Options())


def theirs(spec: Block, by: str, device: str) -> nn.Module:
    """The same block by another package; `ValueError` where it has none that runs here."""
    makers = {"transformers": TRANSFORMERS, "mamba_ssm": MAMBA_SSM}[by]
    if type(spec) not in makers:
        known = ", ".join(k.component for k in makers)
        raise ValueError(f"against is {by!r}, which has no {spec.component} here, only {known}")
    if by == "mamba_ssm" and device != "cuda":
        raise ValueError(
            "against is 'mamba_ssm', whose blocks need a GPU: expected 'transformers' on a CPU"
        )
    from transformers.utils import logging

    logging.set_verbosity_error()  # notices about kernels that are not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return makers[type(spec)](spec)


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


def gated_deltanet(spec: specs.GatedDeltaNet) -> nn.Module:
    from transformers.models.qwen3_next.configuration_qwen3_next import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    config = Qwen3NextConfig(
        hidden_size=spec.d_model,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
        linear_num_key_heads=spec.n_k_heads,
        linear_num_value_heads=spec.n_v_heads,
        linear_key_head_dim=spec.head_k_dim,
        linear_value_head_dim=spec.head_v_dim,
        linear_conv_kernel_dim=spec.d_conv,
        rms_norm_eps=1e-5,  # as Options has it
    )
    return Qwen3NextGatedDeltaNet(config, layer_idx=0)


class Llama(nn.Module):
    """transformers' attention through PyTorch's kernel; its positions turn nothing."""

    def __init__(self, spec: specs.Attention):
        super().__init__()
        from transformers.models.llama.configuration_llama import LlamaConfig
        from transformers.models.llama.modeling_llama import LlamaAttention

        config = LlamaConfig(
            hidden_size=spec.d_model,
            num_attention_heads=spec.n_heads,
            num_key_value_heads=spec.n_kv_heads,
            head_dim=spec.head_dim,
            attention_bias=spec.qkv_bias,
            attn_implementation="sdpa",
        )
        self.inner, self.head_dim = LlamaAttention(config, layer_idx=0), spec.head_dim

    def state_dict(self, *args, **kwargs):
        return self.inner.state_dict(*args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        one = torch.ones(1, x.shape[1], self.head_dim, dtype=x.dtype, device=x.device)
        return self.inner(x, position_embeddings=(one, 0 * one), attention_mask=None)[0]


def mamba_ssm_1(spec: specs.Mamba1) -> nn.Module:
    from mamba_ssm import Mamba

    return Mamba(spec.d_model, spec.d_state, spec.d_conv, spec.expand, dt_rank=spec.rank)


def mamba_ssm_2(spec: specs.Mamba2) -> nn.Module:
    from mamba_ssm import Mamba2

    return Mamba2(
        spec.d_model,
        spec.d_state,
        spec.d_conv,
        expand=spec.expand,
        headdim=spec.headdim,
        ngroups=spec.ngroups,
        chunk_size=spec.chunk_size,
    )


TRANSFORMERS: dict[type[Block], Callable] = {
    specs.Attention: Llama,
    specs.Mamba1: mamba1,
    specs.Mamba2: mamba2,
    specs.GatedDeltaNet: gated_deltanet,
}
MAMBA_SSM: dict[type[Block], Callable] = {specs.Mamba1: mamba_ssm_1, specs.Mamba2: mamba_ssm_2}
