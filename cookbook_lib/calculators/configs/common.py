"""What most families share: attention's fields, the norms of a layer, and the model around them."""

from typing import Any

from cookbook_lib.calculators.configs.fields import REQUIRED, Fields
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.model import Layout, Model
from cookbook_lib.calculators.specs import Attention, Embedding, Head, Mamba1, Mamba2, Norm

Letters = tuple[tuple[str, Layout], ...]
ATTENTION = {"attention": "attention", "full_attention": "attention"}  # older and newer names
MAMBA = {"mamba": "mamba", "linear_attention": "mamba"}
EITHER = ATTENTION | MAMBA
MOST_LAYERS = 10_000  # more is a slip of the keyboard, not a model


def depth(f: Fields, *names: str, default: Any = REQUIRED) -> int:
    """The number of layers."""
    return f.count(*(names or ("num_hidden_layers",)), default=default, high=MOST_LAYERS)


def attention(
    f: Fields, d: int, heads: int, kv: int | None, *, dim: int | None = None, **options
) -> Attention:
    """Attention from the usual fields; `heads`, `kv` and `dim` are the class's defaults.

    A null or absent number of key-value heads that has no default means as many as heads.
    """
    n = f.count("num_attention_heads", default=heads)
    kv = f.part_or_all("num_key_value_heads", of=("num_attention_heads", n), default=kv)
    dim = f.nullable("head_dim", default=None) if dim is None else f.count("head_dim", default=dim)
    if dim is None:
        if d % n:
            f.refuse_part("num_attention_heads", n, ("hidden_size", d))
        dim = d // n
    return Attention(d_model=d, n_heads=n, n_kv_heads=kv, head_dim=dim, **options)


def mamba2(
    f: Fields, d: int, *, state: int, heads: int, groups: int, prefix: str = "mamba_", **options
) -> Mamba2:
    """Mamba-2 as Bamba, Granite 4 and Falcon-H1 spell it; the head size may say "auto"."""
    inner = options.pop("inner", None)
    expand = f.count(f"{prefix}expand", default=2)
    width = inner or expand * d
    of = (f"{prefix}expand * hidden_size" if inner is None else f"{prefix}d_ssm", width)
    nheads = f.part(f"{prefix}n_heads", of=of, default=heads)
    dim = f.count_or("auto", f"{prefix}d_head") or width // nheads
    if dim * nheads != width:
        f.fail(f"{prefix}d_head", f"{of[0]} / {prefix}n_heads, which is {width // nheads}")
    return Mamba2(
        d_model=d,
        d_state=f.count(f"{prefix}d_state", default=state),
        d_conv=f.count(f"{prefix}d_conv", default=4),
        expand=expand,
        d_ssm=inner,
        headdim=dim,
        ngroups=f.part(f"{prefix}n_groups", of=(f"{prefix}n_heads", nheads), default=groups),
        chunk_size=f.count(f"{prefix}chunk_size", default=256),
        bias=f.flag(f"{prefix}proj_bias", default=False),
        conv_bias=f.flag(f"{prefix}conv_bias", default=True),
        **options,
    )


def mamba1(f: Fields, d: int, **options) -> Mamba1:
    """Mamba-1 as Zamba and Jamba spell it; the rank of dt may say "auto"."""
    return Mamba1(
        d_model=d,
        d_state=f.count("mamba_d_state", default=16),
        d_conv=f.count("mamba_d_conv", default=4),
        expand=f.count("mamba_expand", default=2),
        dt_rank=f.count_or("auto", "mamba_dt_rank"),
        bias=f.flag("mamba_proj_bias", default=False),
        conv_bias=f.flag("mamba_conv_bias", default=True),
        **options,
    )


def named(prefix: str, **parts) -> Layout:
    """A layer's layout: `named("model.layers.{i}.", mlp=…)`; `__` in a key is a dot."""
    return tuple((prefix + key.replace("__", "."), block) for key, block in parts.items())


def layers(
    d: int,
    mixers: dict[str, dict[str, Block]],
    channels: list[dict[str, Block]],
    norms: tuple[str, str] = ("input_layernorm", "post_attention_layernorm"),
    prefix: str = "model.layers.{i}.",
) -> Letters:
    """A letter for each mixer with each of the channel mixers: {"mn": …} with [mlp, experts]."""
    norm = Norm(d_model=d)
    return tuple(
        (letter, named(prefix, **{norms[0]: norm}, **mixer, **{norms[1]: norm}, **channel))
        for letters, mixer in mixers.items()
        for letter, channel in zip(letters, channels, strict=False)
    )


def model(
    f: Fields,
    d: int,
    pattern: str,
    letters: Letters,
    *,
    vocab: int,
    tied: bool | None,
    embed: str = "model.embed_tokens",
    norm: str = "model.norm",
    head: str = "lm_head",
    norm_bias: bool = False,
    head_bias: bool = False,
    positions: Layout = (),
    family: str = "",
) -> Model:
    """The embedding before the layers, the norm and the head after them.

    `vocab` and `tied` are the class's defaults; a class that never ties says None. Letters that
    the pattern does not use are left out.
    """
    vocab = f.count("vocab_size", default=vocab)
    tied = f.flag("tie_word_embeddings", default=bool(tied)) and tied is not None
    return Model(
        name=f.where,
        family=family or f.data["model_type"],
        pattern=pattern,
        before=((embed, Embedding(vocab=vocab, d_model=d)), *positions),
        layers=tuple((k, layout) for k, layout in letters if k in pattern),
        after=(
            (norm, Norm(d_model=d, bias=norm_bias)),
            (embed if tied else head, Head(d_model=d, vocab=vocab, bias=head_bias)),
        ),
    )
