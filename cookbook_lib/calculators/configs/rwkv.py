"""RWKV-7 in the format of flash-linear-attention, whose parameter names the hub's files have."""

from cookbook_lib.calculators.configs.common import depth, model, named
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.specs import RWKV7, Norm, RWKV7ChannelMix

RANKS = {"w": "decay", "a": "a", "v": "v", "g": "gate"}  # defaults differ between versions: none


def rwkv7(f: Fields) -> Model:
    """RWKV-7: the first layer (f) has a norm more, and gives its values to the others (r)."""
    d, n = f.count("hidden_size", default=2048), depth(f, default=24)
    if f.data.get("attn"):
        f.fail("attn", "null: attention in some layers is not supported")
    if f.data.get("value_dim") not in (None, d, [d] * n):
        f.fail("value_dim", f"null or hidden_size ({d}): wider values are not supported")
    head = f.nullable("head_dim", default=64)
    if head is None:
        head = d // f.part("num_heads", of=("hidden_size", d))
    elif d % head:
        f.fail("head_dim", f"a number that divides hidden_size ({d})")
    ranks = {f"rank_{k}": f.count(f"{x}_low_rank_dim") for k, x in RANKS.items()}
    time = RWKV7(d_model=d, headdim=head, **ranks)
    channel = RWKV7ChannelMix(d_model=d, d_ff=width(f, d))
    bias = f.flag("norm_bias", default=True)
    norm = Norm(d_model=d, bias=bias)
    rest = {"ffn_norm": norm, "ffn": channel}
    prefix = "model.layers.{i}."
    first = {"pre_norm": norm} if f.flag("norm_first", default=True) else {}
    letters = (
        ("f", named(prefix, **first, attn_norm=norm, attn=time.but(first=True), **rest)),
        ("r", named(prefix, attn_norm=norm, attn=time, **rest)),
    )
    around = {"embed": "model.embeddings", "norm_bias": bias}
    return model(f, d, "f" + "r" * (n - 1), letters, vocab=32000, tied=False, **around)


def width(f: Fields, d: int) -> int:
    """The channel mix's width: by default `hidden_ratio` (4) times the model's, in steps of 32."""
    d_ff = f.nullable("intermediate_size", default=None)
    if d_ff is None:
        ratio = 4.0 if f.null(("hidden_ratio",)) else f.number("hidden_ratio", default=4.0)
        d_ff = -(-int(d * ratio) // 32) * 32
    if d_ff < 1:
        f.fail("hidden_ratio", "a number above 0")
    return d_ff
