"""MiniMax-01: lightning attention in most layers, softmax attention in the others, and experts."""

from cookbook_lib.calculators.configs.common import attention, layers, model
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.configs.llama import sizes
from cookbook_lib.calculators.configs.moe import GATE, experts
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.specs import Lightning

KINDS = {"linear_attention": "n", "full_attention": "e"}


def minimax(f: Fields) -> Model:
    """MiniMax-Text-01 in transformers' format; by default every other layer is softmax's."""
    d, n = sizes(f, 4096, 32)
    if f.data.get("sliding_window") is not None:
        f.fail("sliding_window", "null: transformers' cache keeps every token here")
    attn = attention(f, d, 32, 8)
    lightning = Lightning(
        d_model=d,
        n_heads=attn.n_heads,
        head_dim=attn.head_dim,
        chunk_size=f.count("block_size", default=256),
    )
    d_ff = f.count("intermediate_size", default=14336)
    moe = experts(f, d, d_ff, 8, 2, "num_local_experts", "num_experts", names=GATE)
    letters = layers(d, {"n": {"self_attn": lightning}, "e": {"self_attn": attn}}, [{"mlp": moe}])
    kinds = f.words("layer_types", length=n, among=KINDS) or list(("en" * n)[:n])
    return model(f, d, "".join(kinds), letters, vocab=32000, tied=False)
