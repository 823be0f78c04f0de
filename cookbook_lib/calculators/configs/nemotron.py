"""Nemotron-H: one thing in each layer, Mamba-2, attention, an MLP or routed experts."""

from cookbook_lib.calculators.configs.common import MOST_LAYERS, attention, model, named
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.configs.moe import experts
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.specs import MLP, Linear, Mamba2, Norm

KINDS = {
    "linear_attention": "m",
    "mamba": "m",
    "full_attention": "*",
    "attention": "*",
    "mlp": "-",
    "moe": "E",
}
HUB = {"M": "m", "*": "*", "-": "-", "E": "E"}  # letters of hybrid_override_pattern


def nemotron_h(f: Fields) -> Model:
    """Nemotron-H and Nemotron 3, without the extra layers for predicting several tokens.

    transformers gives them a head of its own even where `tie_word_embeddings` is true.
    """
    d = f.count("hidden_size", default=4096)
    prefix, norm = "model.layers.{i}.", Norm(d_model=d)
    mlp_bias = f.flag("mlp_bias", default=False)
    mixers = {
        "m": mamba(f, d),
        "*": attention(f, d, 32, 8, dim=128),
        "-": MLP(
            d_model=d,
            d_ff=f.count("intermediate_size", default=21504),
            gated=False,
            bias=mlp_bias,
        ),
    }
    letters = tuple((k, named(prefix, norm=norm, mixer=block)) for k, block in mixers.items())
    pattern = pattern_of(f)
    if "E" in pattern:
        letters += (("E", (*named(prefix, norm=norm), *routed(f, d, prefix, mlp_bias))),)
    around = {"embed": "model.embeddings", "norm": "model.norm_f"}
    return model(f, d, pattern, letters, vocab=131072, tied=None, **around)


def pattern_of(f: Fields) -> str:
    """The list of layers, or the hub's string of letters."""
    layers = f.nullable("num_hidden_layers", default=None, high=MOST_LAYERS)
    spelled = f.word("hybrid_override_pattern", default=None)
    listed = f.data.get("layers_block_type") or f.data.get("layer_types")
    if listed is None and spelled is not None:
        if not spelled:
            f.fail("hybrid_override_pattern", f"a letter for each layer: {', '.join(HUB)}")
        if wrong := set(spelled) - set(HUB):
            f.fail("hybrid_override_pattern", f"only {', '.join(HUB)}, not {min(wrong)!r}")
        if layers is not None and layers != len(spelled):
            f.fail("num_hidden_layers", f"{len(spelled)}, as hybrid_override_pattern has letters")
        return "".join(HUB[x] for x in spelled)
    length = layers or (len(listed) if isinstance(listed, list) else 4)
    kinds = f.words("layers_block_type", "layer_types", length=length, among=KINDS)
    if kinds is None and length != 4:
        f.fail("layers_block_type", f"a list of {length} names, as num_hidden_layers says")
    return "".join(kinds or "mE*-")


def mamba(f: Fields, d: int) -> Mamba2:
    """Mamba-2 whose inner width is heads times head size, whatever `expand` says."""
    heads, dim = f.count("mamba_num_heads", default=128), f.count("mamba_head_dim", default=64)
    return Mamba2(
        d_model=d,
        d_ssm=heads * dim,
        headdim=dim,
        d_state=f.count("ssm_state_size", default=128),
        d_conv=f.count("mamba_d_conv", "conv_kernel", default=4),
        ngroups=f.part("mamba_n_groups", "n_groups", of=("mamba_num_heads", heads), default=8),
        chunk_size=f.count("mamba_chunk_size", "chunk_size", default=128),
        bias=f.flag("use_bias", default=False),
        conv_bias=f.flag("mamba_conv_bias", "use_conv_bias", default=True),
    )


def routed(f: Fields, d: int, prefix: str, bias: bool):
    """Experts without a gate beside a shared one, in a narrower width if `moe_latent_size`."""
    latent = f.nullable("moe_latent_size", default=None)
    d_ff = f.count("moe_intermediate_size", default=7688)
    names = ("n_routed_experts", "num_local_experts")
    options = {"gated": False, "d_latent": latent, "names": (("router", "gate"),)}
    moe = experts(f, d, d_ff, 8, 2, *names, **options)
    shared = f.count("moe_shared_expert_intermediate_size", default=7688)
    down, up = (Linear(d_in=a, d_out=b, bias=bias) for a, b in ((d, latent or d), (latent or d, d)))
    narrow = {"mixer__fc1_latent_proj": down} if latent else {}
    wide = {"mixer__fc2_latent_proj": up} if latent else {}
    mlp = MLP(d_model=d, d_ff=shared, gated=False, bias=bias)
    return named(prefix, **narrow, mixer=moe, **wide, mixer__shared_experts=mlp)
