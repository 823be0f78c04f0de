"""Hybrids that choose a mixer for each layer (Jamba, Bamba, Granite 4) or run two (Falcon-H1)."""

from cookbook_lib.calculators.configs.common import (
    EITHER,
    attention,
    layers,
    mamba1,
    mamba2,
    model,
    named,
)
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.configs.llama import LAYER, sizes
from cookbook_lib.calculators.configs.moe import experts
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.specs import MLP, Norm

FINAL = {"norm": "model.final_layernorm"}
PRE_FF = ("input_layernorm", "pre_ff_layernorm")


def jamba(f: Fields) -> Model:
    """Jamba: Mamba-1 with norms on dt, B and C; attention and experts every so many layers."""
    d, n = sizes(f, 4096, 32)
    mixers = {
        "mn": {"mamba": mamba1(f, d, dt_norm=True)},
        "ae": {"self_attn": attention(f, d, 32, 8)},
    }
    d_ff = f.count("intermediate_size", default=14336)
    total = f.count("num_experts", "num_local_experts", default=16)
    channels = [{"feed_forward": MLP(d_model=d, d_ff=d_ff)}]
    if total > 1:
        routed = experts(f, d, d_ff, 16, 2, "num_experts", "num_local_experts")
        channels.append({"feed_forward": routed})
    attends = every(f, "attn_layer", 8, 4)
    kinds = f.words("layers_block_type", "layer_types", length=n, among=EITHER)
    routes = every(f, "expert_layer", 2, 1)
    pattern = ""
    for i in range(n):
        here = kinds[i] == "attention" if kinds else attends(i)
        pattern += ("ae" if here else "mn")[total > 1 and routes(i)]
    letters = layers(d, mixers, channels, PRE_FF)
    return model(f, d, pattern, letters, vocab=65536, tied=False, **FINAL)


def every(f: Fields, name: str, period: int, offset: int):
    """True for one layer in each period."""
    period = f.count(f"{name}_period", default=period)
    offset = f.count(f"{name}_offset", default=offset, low=0)
    if offset >= period:
        f.fail(f"{name}_offset", f"less than {name}_period ({period})")
    return lambda i: i % period == offset


def bamba(f: Fields) -> Model:
    """Bamba: Mamba-2, and attention in the layers listed."""
    d, n = sizes(f, 4096, 32)
    bias = f.flag("attention_bias", default=False)
    mixers = {
        "m": {"mamba": mamba2(f, d, state=256, heads=128, groups=1)},
        "a": {"self_attn": attention(f, d, 32, 8, qkv_bias=bias, out_bias=bias)},
    }
    mlp = MLP(
        d_model=d,
        d_ff=f.count("intermediate_size", default=14336),
        bias=f.flag("mlp_bias", default=False),
    )
    letters = layers(d, mixers, [{"feed_forward": mlp}], PRE_FF)
    attends = f.indices("attn_layer_indices", below=n)
    if attends is None and (
        kinds := f.words("layers_block_type", "layer_types", length=n, among=EITHER)
    ):
        attends = [i for i, kind in enumerate(kinds) if kind == "attention"]
    pattern = "".join("a" if i in (attends or ()) else "m" for i in range(n))
    return model(f, d, pattern, letters, vocab=128000, tied=False, **FINAL)


def granitemoehybrid(f: Fields) -> Model:
    """Granite 4: Mamba-2 or attention, then routed experts beside a shared one."""
    d, n = sizes(f, 4096, 32)
    bias = f.flag("attention_bias", default=False)
    ssm = mamba2(f, d, state=256, heads=128, groups=1)
    attn = attention(f, d, 32, None, qkv_bias=bias, out_bias=bias)
    names = (("gate_up_proj", "input_linear"), ("down_proj", "output_linear"))
    d_ff = f.count("shared_intermediate_size", default=1024)
    channel = {"shared_mlp": MLP(d_model=d, d_ff=d_ff, fused=True, names=names)}
    if f.nullable("num_local_experts", "num_experts", default=8, low=0):
        d_ff = f.count("intermediate_size", default=11008)
        routed = experts(f, d, d_ff, 8, 2, "num_local_experts", "num_experts")
        channel = {"block_sparse_moe": routed} | channel
    m, a = "ne" if "block_sparse_moe" in channel else "ma"
    letters = layers(d, {m: {"mamba": ssm}, a: {"self_attn": attn}}, [channel])
    kinds = f.words("layer_types", "layers_block_type", length=n, among=EITHER)
    pattern = "".join(a if kind == "attention" else m for kind in kinds or ["mamba"] * n)
    return model(f, d, pattern, letters, vocab=32000, tied=False)


def falcon_h1(f: Fields) -> Model:
    """Falcon-H1: attention and Mamba-2 heads side by side in every layer."""
    d, n = sizes(f, 4096, 32)
    bias = f.flag("attention_bias", default=False)
    ssm = mamba2(
        f,
        d,
        state=256,
        heads=128,
        groups=1,
        inner=f.nullable("mamba_d_ssm", default=1024),
        out_bias=f.flag("projectors_bias", default=False),
        norm=f.flag("mamba_rms_norm", default=False),
    )
    mlp = MLP(
        d_model=d,
        d_ff=f.count("intermediate_size", default=14336),
        bias=f.flag("mlp_bias", default=False),
    )
    norm = Norm(d_model=d)
    layer = named(
        LAYER,
        input_layernorm=norm,
        mamba=ssm,
        self_attn=attention(f, d, 32, 8, qkv_bias=bias, out_bias=bias),
        pre_ff_layernorm=norm,
        feed_forward=mlp,
    )
    return model(f, d, "h" * n, (("h", layer),), vocab=128000, tied=False, **FINAL)
