"""Pure state-space models in transformers' format: Mamba, Falcon-Mamba and Mamba-2."""

from cookbook_lib.calculators.configs.common import depth, model, named
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.specs import Mamba1, Mamba2, Norm


def mamba(f: Fields) -> Model:
    """Mamba; Falcon-Mamba adds norms without weights, and so has the same rows.

    `intermediate_size` decides where a file gives it: Falcon-Mamba-7B says `expand` 16 beside it.
    """
    d = f.count("hidden_size", "d_model", default=768)
    mixer = Mamba1(
        d_model=d,
        d_state=f.count("state_size", default=16),
        d_conv=f.count("conv_kernel", default=4),
        expand=f.count("expand", default=2),
        d_ssm=f.nullable("intermediate_size", default=None),
        dt_rank=f.count_or("auto", "time_step_rank"),
        bias=f.flag("use_bias", default=False),
        conv_bias=f.flag("use_conv_bias", default=True),
    )
    layers = depth(f, "num_hidden_layers", "n_layer", default=32)
    return pure(f, d, layers, mixer, vocab=50280, tied=True)


def mamba2(f: Fields) -> Model:
    """Mamba-2."""
    d = f.count("hidden_size", default=4096)
    heads, dim = f.count("num_heads", default=128), f.count("head_dim", default=64)
    expand = f.count("expand", default=2)
    if heads * dim != expand * d:
        f.fail("num_heads", f"expand * hidden_size / head_dim, which is {expand * d / dim:g}")
    mixer = Mamba2(
        d_model=d,
        d_state=f.count("state_size", default=128),
        d_conv=f.count("conv_kernel", default=4),
        expand=expand,
        headdim=dim,
        ngroups=f.part("n_groups", of=("num_heads", heads), default=8),
        chunk_size=f.count("chunk_size", default=256),
        bias=f.flag("use_bias", default=False),
        conv_bias=f.flag("use_conv_bias", default=True),
    )
    layers = depth(f, default=64)
    return pure(f, d, layers, mixer, vocab=32768, tied=False)


def pure(f: Fields, d: int, layers: int, mixer: Block, vocab: int, tied: bool) -> Model:
    """A stack of one mixer, each behind its norm."""
    layer = named("backbone.layers.{i}.", norm=Norm(d_model=d), mixer=mixer)
    around = {"embed": "backbone.embeddings", "norm": "backbone.norm_f"}
    return model(f, d, "m" * layers, (("m", layer),), vocab=vocab, tied=tied, **around)
