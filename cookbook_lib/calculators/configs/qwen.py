"""Qwen3-Next: three layers of gated DeltaNet to one of gated attention, and many small experts."""

from cookbook_lib.calculators.configs.common import attention, layers, model
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.configs.llama import sizes
from cookbook_lib.calculators.configs.moe import GATE, experts, sparse
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.specs import MLP, Gate, GatedDeltaNet

KINDS = {"linear_attention": "m", "full_attention": "a"}


def qwen3_next(f: Fields) -> Model:
    """Qwen3-Next, without the extra layer for predicting several tokens (`mtp`)."""
    d, n = sizes(f, 2048, 48)
    bias = f.flag("attention_bias", default=False)
    options = {"qkv_bias": bias, "out_bias": bias, "qk_norm": "head", "gated": True}
    mixers = {
        "mn": {"linear_attn": delta(f, d)},
        "ae": {"self_attn": attention(f, d, 16, 2, dim=256, **options)},
    }
    channels = [{"mlp": MLP(d_model=d, d_ff=f.count("intermediate_size", default=5632))}]
    names = ("num_experts", "num_local_experts")
    routes = sparse(f, n, *names, default=512)
    if any(routes):
        channels.append(routed(f, d, *names))
    every = f.count("full_attention_interval", default=4)
    kinds = f.words("layer_types", length=n, among=KINDS)
    kinds = kinds or ["m" if (i + 1) % every else "a" for i in range(n)]
    pattern = "".join({"m": "mn", "a": "ae"}[k][r] for k, r in zip(kinds, routes, strict=True))
    return model(f, d, pattern, layers(d, mixers, channels), vocab=151936, tied=False)


def delta(f: Fields, d: int) -> GatedDeltaNet:
    """Gated DeltaNet; the value heads share the keys in groups."""
    heads = f.count("linear_num_value_heads", default=32)
    of = ("linear_num_value_heads", heads)
    return GatedDeltaNet(
        d_model=d,
        n_k_heads=f.part("linear_num_key_heads", of=of, default=16),
        n_v_heads=heads,
        head_k_dim=f.count("linear_key_head_dim", default=128),
        head_v_dim=f.count("linear_value_head_dim", default=128),
        d_conv=f.count("linear_conv_kernel_dim", default=4),
    )


def routed(f: Fields, d: int, *names: str) -> dict:
    """Experts beside a shared one, whose output every token scales."""
    d_ff = f.count("moe_intermediate_size", default=512)
    shared = f.count("shared_expert_intermediate_size", default=512)
    return {
        "mlp": experts(f, d, d_ff, 512, 10, *names, names=GATE),
        "mlp__shared_expert": MLP(d_model=d, d_ff=shared),
        "mlp__shared_expert_gate": Gate(d_model=d),
    }
