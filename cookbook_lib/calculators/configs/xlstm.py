"""xLSTM as the 7B model has it: mLSTM and a gated MLP in every block, no sLSTM."""

from cookbook_lib.calculators.configs.common import depth, layers, model
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.specs import MLP, MLSTM

AROUND = {"embed": "backbone.embeddings", "norm": "backbone.out_norm"}


def xlstm(f: Fields) -> Model:
    """xLSTM; transformers never ties the head, and keeps the memory in the weights' dtype."""
    d = f.count("hidden_size", "embedding_dim", default=4096)
    n = depth(f, "num_hidden_layers", "num_blocks", default=32)
    bias = f.flag("use_bias", default=False)
    fused = f.word("weight_mode", default="single", among=("single", "fused")) == "fused"
    heads = f.count("num_heads", default=8)
    widths = {
        name: part(f, f"{field}_dim_factor", default, d, heads)
        for name, field, default in (("d_qk", "qk", 0.5), ("d_v", "v", 1.0))
    }
    mixer = MLSTM(
        d_model=d,
        n_heads=heads,
        **widths,
        bias=bias,
        fused=fused,
        chunk_size=f.count("chunk_size", default=64),
    )
    multiple = f.count("ffn_round_up_to_multiple_of", default=64)
    wide = d * f.number("ffn_proj_factor", default=2.667)
    names = (("gate_proj", "proj_up_gate"), ("up_proj", "proj_up"), ("down_proj", "proj_down"))
    d_ff = int((wide + multiple - 1) // multiple * multiple)
    if d_ff < 1:
        f.fail("ffn_proj_factor", "a number above 0")
    mlp = MLP(
        d_model=d,
        d_ff=d_ff,
        fused=fused,
        bias=bias,
        names=(("gate_up_proj", "proj_up_gate_z"), *names),
    )
    letters = layers(
        d,
        {"m": {"mlstm_layer": mixer}},
        [{"ffn": mlp}],
        ("norm_mlstm", "norm_ffn"),
        "backbone.blocks.{i}.",
        norm_bias=bias,
    )
    return model(f, d, "m" * n, letters, vocab=50304, tied=None, **AROUND)


def part(f: Fields, name: str, default: float, d: int, heads: int) -> int:
    """A width that is a part of the model's, in whole heads."""
    width = int(d * f.number(name, default=default))
    if width < 1 or width % heads:
        f.fail(name, f"a factor of hidden_size ({d}) that gives a multiple of num_heads ({heads})")
    return width
