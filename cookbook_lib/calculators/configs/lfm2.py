"""LFM2: gated short convolutions, and attention in some layers; in the larger ones, experts."""

from cookbook_lib.calculators.configs.common import attention, layers, lettered, model
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.configs.llama import sizes
from cookbook_lib.calculators.configs.moe import GATE, experts
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.specs import MLP, GatedConv

AROUND = {"vocab": 65536, "tied": True, "norm": "model.embedding_norm"}
AROUND["tie"] = ("tie_embedding", "tie_word_embeddings")
NORMS = ("operator_norm", "ffn_norm")
KINDS = {"conv": "m", "full_attention": "a"}
MLP_NAMES = (("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2"))
ATTENTION_NAMES = (("o_proj", "out_proj"),)
ATTENTION_NAMES += tuple((f"{x}_norm", f"{x}_layernorm") for x in "qk")


def lfm2(f: Fields) -> Model:
    """LFM2: an MLP in every layer, whose width may be two thirds of the one given, rounded up."""
    d, n = sizes(f, 2560, 32)
    mlp = MLP(d_model=d, d_ff=width(f), names=MLP_NAMES)
    kinds = listed(f, n) or ["a"] * n
    letters = layers(d, mixers(f, d), [{"feed_forward": mlp}], NORMS)
    return model(f, d, "".join(kinds), letters, **AROUND)


def lfm2_moe(f: Fields) -> Model:
    """LFM2 with experts after the first `num_dense_layers` layers."""
    d, n = sizes(f, 2048, 32)
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=7168), names=MLP_NAMES)
    d_ff = f.count("moe_intermediate_size", default=1792)
    moe = experts(f, d, d_ff, 32, 4, "num_experts", names=GATE)
    dense = f.count("num_dense_layers", default=2, low=0)
    kinds = listed(f, n)
    if kinds is None:
        f.fail("layer_types", f"a list of {n} names, conv or full_attention")
    pattern = lettered(kinds, (i >= dense for i in range(n)))
    channels = [{"feed_forward": mlp}, {"feed_forward": moe}]
    return model(f, d, pattern, layers(d, mixers(f, d), channels, NORMS), **AROUND)


def mixers(f: Fields, d: int) -> dict:
    """The convolution, and attention whose heads' queries and keys are normalised."""
    conv = GatedConv(
        d_model=d,
        d_conv=f.count("conv_L_cache", default=3),
        bias=f.flag("conv_bias", default=False),
    )
    f.part("num_attention_heads", of=("hidden_size", d), default=32)
    attn = attention(f, d, 32, 8, qk_norm="head", names=ATTENTION_NAMES)
    return {"mn": {"conv": conv}, "ae": {"self_attn": attn}}


def listed(f: Fields, n: int) -> list[str] | None:
    """The layers' list, or the numbers of those that attend."""
    kinds = f.words("layer_types", length=n, among=KINDS)
    attends = f.indices("full_attn_idxs", below=n)
    if kinds is None and attends is not None:
        return ["a" if i in attends else "m" for i in range(n)]
    return kinds


def width(f: Fields) -> int:
    """The MLP's width; the hub's `block_ff_dim` has the last word."""
    d_ff = f.count("intermediate_size", default=12288)
    d_ff = f.count("block_ff_dim", default=d_ff)
    if not f.flag("block_auto_adjust_ff_dim", default=True):
        return d_ff
    d_ff = int(f.number("block_ffn_dim_multiplier", default=1.0) * int(2 * d_ff / 3))
    multiple = f.count("block_multiple_of", default=256)
    if d_ff < 1:
        f.fail("block_ffn_dim_multiplier", "a number that leaves a width of at least 1")
    return -(-d_ff // multiple) * multiple
