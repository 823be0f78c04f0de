"""The formats of mamba_ssm and of BlackMamba, which have no `model_type`.

Both keep the SSM state in the weights' dtype. `mamba_ssm` pads the vocabulary up to a multiple.
"""

from math import ceil

from cookbook_lib.calculators.configs.common import depth, named
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.specs import (
    MLP,
    Attention,
    Embedding,
    Head,
    Mamba1,
    Mamba2,
    Mamba3,
    MoE,
    Norm,
)


def multiple(n: int, of: int) -> int:
    """The next multiple of `of`."""
    return ceil(n / of) * of


def mamba_ssm(f: Fields) -> Model:
    """mamba_ssm's `MambaConfig`: Mamba-1, 2 or 3, attention in some layers, optional MLPs."""
    d, layers = f.count("d_model"), depth(f, "n_layer")
    attends = f.indices("attn_layer_idx", below=layers, default=[])
    norm = Norm(d_model=d, bias=not f.flag("rms_norm", default=True))
    channel: dict = {}
    if d_ff := f.count("d_intermediate", default=0, low=0):
        names = (("gate_up_proj", "fc1"), ("down_proj", "fc2"))
        mlp = MLP(d_model=d, d_ff=multiple(d_ff, 128), fused=True, names=names)
        channel = {"norm2": norm, "mlp": mlp}
    prefix = "backbone.layers.{i}."
    letters = [("m", named(prefix, norm=norm, mixer=ssm(f.inside("ssm_cfg"), d), **channel))]
    if attends:
        mixer = mha(f.inside("attn_cfg"), d)
        letters.append(("a", named(prefix, norm=norm, mixer=mixer, **channel)))
    vocab = multiple(
        f.count("vocab_size", default=50277), f.count("pad_vocab_size_multiple", default=8)
    )
    tied = f.flag("tie_embeddings", default=True)
    pattern = "".join("a" if i in attends else "m" for i in range(layers))
    return Model(
        name=f.where,
        family="mamba_ssm",
        pattern=pattern,
        before=(("backbone.embedding", Embedding(vocab=vocab, d_model=d)),),
        layers=tuple((k, layout) for k, layout in letters if k in pattern),
        after=(
            ("backbone.norm_f", norm),
            ("backbone.embedding" if tied else "lm_head", Head(d_model=d, vocab=vocab)),
        ),
    )


def ssm(f: Fields, d: int) -> Mamba1 | Mamba2 | Mamba3:
    """`ssm_cfg`: the arguments of mamba_ssm's Mamba, Mamba2 or Mamba3."""
    kind = f.word("layer", default="Mamba1", among=("Mamba1", "Mamba2", "Mamba3"))
    if kind == "Mamba3":
        return mamba3(f, d)
    options = {
        "d_model": d,
        "d_conv": f.count("d_conv", default=4),
        "expand": f.count("expand", default=2),
        "bias": f.flag("bias", default=False),
        "conv_bias": f.flag("conv_bias", default=True),
        "ssm_dtype": "",
    }
    inner = options["expand"] * d
    if kind == "Mamba1":
        rank = f.count_or("auto", "dt_rank")
        return Mamba1(**options, d_state=f.count("d_state", default=16), dt_rank=rank)
    if f.nullable("d_ssm", default=inner) != inner:
        f.fail("d_ssm", f"null or expand * d_model ({inner}): the MLP inside is not supported")
    if f.flag("D_has_hdim", default=False):
        f.fail("D_has_hdim", "false")
    headdim = f.part("headdim", of=("expand * d_model", inner), default=64)
    return Mamba2(
        **options,
        d_state=f.count("d_state", default=128),
        headdim=headdim,
        ngroups=f.part("ngroups", of=("expand * d_model / headdim", inner // headdim), default=1),
        chunk_size=f.count("chunk_size", default=256),
        norm=f.flag("rmsnorm", default=True),
    )


def mamba3(f: Fields, d: int) -> Mamba3:
    """mamba_ssm's Mamba3, which keeps its angles and its SSM state in float32."""
    if f.flag("is_mimo", default=False):
        f.fail("is_mimo", "false: several inputs and outputs are not supported")
    expand, d_state = f.count("expand", default=2), f.count("d_state", default=128)
    rope = f.number("rope_fraction", default=0.5)
    if rope not in (0.5, 1.0):
        f.fail("rope_fraction", "0.5 or 1.0")
    if d_state * rope < 2:
        f.fail("d_state", "a size of which rope_fraction leaves at least 2")
    headdim = f.part("headdim", of=("expand * d_model", expand * d), default=64)
    heads = expand * d // headdim
    return Mamba3(
        d_model=d,
        d_state=d_state,
        expand=expand,
        headdim=headdim,
        ngroups=f.part("ngroups", of=("expand * d_model / headdim", heads), default=1),
        rope_fraction=rope,
        chunk_size=f.count("chunk_size", default=64),
        norm=f.flag("is_outproj_norm", default=False),
    )


def mha(f: Fields, d: int) -> Attention:
    """`attn_cfg`: the arguments of mamba_ssm's MHA, whose q, k and v are one weight."""
    heads = f.count("num_heads")
    kv = f.part_or_all("num_heads_kv", of=("num_heads", heads))
    dim = f.nullable("head_dim", default=None)
    if dim is None:
        dim = d // f.part("num_heads", of=("d_model", d))
    if f.count("mlp_dim", default=0, low=0):
        f.fail("mlp_dim", "0: the MLP inside attention is not supported")
    return Attention(
        d_model=d,
        n_heads=heads,
        n_kv_heads=kv,
        head_dim=dim,
        fused=True,
        qkv_bias=f.flag("qkv_proj_bias", default=True),
        out_bias=f.flag("out_proj_bias", default=True),
        d_conv=f.count("d_conv", default=0, low=0) or None,
        names=(("qkv_proj", "in_proj"), ("o_proj", "out_proj")),
    )


def blackmamba(f: Fields) -> Model:
    """BlackMamba: "r" is a Mamba-1 layer, a digit a layer of so many experts (1: an MLP).

    Biases are counted where the file asks for them: the published models have none in linears.
    """
    d, layers = f.count("hidden_size"), depth(f, "num_layers")
    if f.flag("add_bias_linear", default=False):
        f.fail("add_bias_linear", "false, as in the published models")
    mixer = Mamba1(
        d_model=d,
        d_state=f.count("state_size"),
        d_conv=f.count("conv_dimension"),
        expand=f.count("expansion_factor", default=2),
        dt_rank=f.count_or("auto", "dt_rank"),
        bias=f.flag("bias", default=False),
        out_bias=False,
        conv_bias=f.flag("conv_bias", default=True),
        ssm_dtype="",
    )
    prefix, norm = "decoder.layers.{i}.", Norm(d_model=d)
    kinds = {k: k for k in "r123456789"}
    listed = ["r"] * layers
    if f.data["mamba_moe_layers"]:
        listed = f.words("mamba_moe_layers", length=layers, among=kinds)
    used = list(dict.fromkeys(listed))
    letters = dict(zip((k for k in used if k not in "r1"), "EFGHIJKL", strict=False))
    letters |= {"r": "m", "1": "-"}
    vocab = f.count("padded_vocab_size", default=0) or f.count("vocab_size", default=50000)
    return Model(
        name=f.where,
        family="blackmamba",
        pattern="".join(letters[k] for k in listed),
        before=(("embedding", Embedding(vocab=vocab, d_model=d)),),
        layers=tuple(
            (
                letters[k],
                named(prefix, norm=norm, mixer=mixer if k == "r" else switch(f, d, int(k))),
            )
            for k in used
        ),
        after=(
            ("decoder.final_layernorm", Norm(d_model=d, bias=True)),
            ("embedding", Head(d_model=d, vocab=vocab)),
        ),
    )


def switch(f: Fields, d: int, experts: int) -> MLP | MoE:
    """Top-1 experts behind a router with a bias, or a plain MLP."""
    d_ff = f.count("ffn_hidden_size", default=4 * d)
    gated = f.flag("swiglu", "gated_linear_unit", default=False)
    if experts == 1:
        names = (("gate_up_proj", "linear_fc1"), ("up_proj", "linear_fc1"))
        names += (("down_proj", "linear_fc2"),)
        return MLP(d_model=d, d_ff=d_ff, gated=gated, fused=gated, names=names)
    each = "local_experts.*.linear_fc"  # one weight an expert in the checkpoint
    names = (("experts.gate_up_proj", f"{each}1.weight"), ("experts.up_proj", f"{each}1.weight"))
    names += (("experts.down_proj", f"{each}2.weight"),)
    return MoE(
        d_model=d, d_ff=d_ff, n_experts=experts, topk=1, gated=gated, router_bias=True, names=names
    )
