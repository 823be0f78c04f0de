"""Dense transformers of the Llama kind: norm, attention, norm, gated MLP."""

from cookbook_lib.calculators.configs.common import attention, depth, model, named
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.model import Layout, Model
from cookbook_lib.calculators.specs import MLP, Attention, Norm

LAYER = "model.layers.{i}."
WINDOWS = {"full_attention": "a", "sliding_attention": "w", "attention": "a"}


def layer(d: int, attn: Attention, mlp: Block) -> Layout:
    """Pre-norm attention and pre-norm MLP."""
    norm = Norm(d_model=d)
    return named(
        LAYER, input_layernorm=norm, self_attn=attn, post_attention_layernorm=norm, mlp=mlp
    )


def dense(f: Fields, d: int, attn: Attention, pattern: str, mlp: MLP, vocab: int) -> Model:
    """A model of such layers; those of letter `a` see everything, those of `w` a window."""
    letters = (("a", layer(d, attn.but(window=None), mlp)), ("w", layer(d, attn, mlp)))
    return model(f, d, pattern, letters, vocab=vocab, tied=False)


def sizes(f: Fields, d: int, layers: int) -> tuple[int, int]:
    """Width and depth."""
    return f.count("hidden_size", default=d), depth(f, default=layers)


def uniform(f: Fields, layers: int, window: int | None) -> str:
    """The pattern of a family in which every layer has the window, or none has."""
    letter = "a" if window is None else "w"
    kinds = f.words("layer_types", length=layers, among=WINDOWS, default=[letter] * layers)
    if set(kinds) != {letter}:
        same = next(name for name, x in WINDOWS.items() if x == letter)
        f.fail("layer_types", f"{same} in every layer, as sliding_window says")
    return letter * layers


def mixed(f: Fields, layers: int, window: int | None, default: str) -> str:
    """The pattern of a family that chooses for each layer."""
    kinds = f.words("layer_types", length=layers, among=WINDOWS, default=default)
    if window is None and "w" in kinds:
        f.fail("sliding_window", "a number of tokens in use, for the layers of sliding_attention")
    return "".join(kinds)


def window_in_use(f: Fields) -> int | None:
    """Qwen's window: it has one and does not use it unless told."""
    window = f.nullable("sliding_window", default=4096)
    return window if f.flag("use_sliding_window", default=False) else None


def llama(f: Fields) -> Model:
    """Llama 1 to 3, and all that say `llama`."""
    d, layers = sizes(f, 4096, 32)
    f.part("num_attention_heads", of=("hidden_size", d), default=32)
    bias = f.flag("attention_bias", default=False)
    window = f.nullable("sliding_window", default=None)
    attn = attention(f, d, 32, None, qkv_bias=bias, out_bias=bias, window=window)
    mlp = MLP(
        d_model=d,
        d_ff=f.count("intermediate_size", default=11008),
        bias=f.flag("mlp_bias", default=False),
    )
    return dense(f, d, attn, uniform(f, layers, window), mlp, vocab=32000)


def mistral(f: Fields) -> Model:
    """Mistral: every layer has the same sliding window, or none."""
    d, layers = sizes(f, 4096, 32)
    window = f.nullable("sliding_window", default=4096)
    attn = attention(f, d, 32, 8, window=window)
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=14336))
    return dense(f, d, attn, uniform(f, layers, window), mlp, vocab=32000)


def phi3(f: Fields) -> Model:
    """Phi-3: q, k and v in one weight, gate and up in another."""
    d, layers = sizes(f, 3072, 32)
    window = f.nullable("sliding_window", default=None)
    attn = attention(f, d, 32, None, fused=True, window=window)
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=8192), fused=True)
    return dense(f, d, attn, uniform(f, layers, window), mlp, vocab=32064)


def qwen2(f: Fields) -> Model:
    """Qwen2: biases on q, k and v."""
    return qwen(f, None, qkv_bias=True)


def qwen3(f: Fields) -> Model:
    """Qwen3: a norm over each head's q and k."""
    bias = f.flag("attention_bias", default=False)
    return qwen(f, 128, qkv_bias=bias, out_bias=bias, qk_norm="head")


def qwen(f: Fields, dim: int | None, **options) -> Model:
    """From layer `max_window_layers` on they slide, if the window is in use."""
    d, layers = sizes(f, 4096, 32)
    window = window_in_use(f)
    first = layers if window is None else f.count("max_window_layers", default=28, low=0)
    pattern = mixed(f, layers, window, ("a" * min(first, layers)).ljust(layers, "w"))
    attn = attention(f, d, 32, 32, dim=dim, window=window, **options)
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=22016))
    return dense(f, d, attn, pattern, mlp, vocab=151936)


def gemma2(f: Fields) -> Model:
    """Gemma 2: norms before and after, every other layer with a sliding window."""
    d, layers = sizes(f, 2304, 26)
    f.part("num_attention_heads", of=("hidden_size", d), default=8)
    bias = f.flag("attention_bias", default=False)
    window = f.nullable("sliding_window", default=4096)
    attn = attention(f, d, 8, 4, dim=256, qkv_bias=bias, out_bias=bias, window=window)
    pattern = mixed(f, layers, window, ("wa" * layers)[:layers])
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=9216))
    letters = (("a", sandwich(d, attn.but(window=None), mlp)), ("w", sandwich(d, attn, mlp)))
    return model(f, d, pattern, letters, vocab=256000, tied=True)


def sandwich(d: int, attn: Attention, mlp: MLP) -> Layout:
    """A layer with a norm before and after each of its two parts."""
    norm = Norm(d_model=d)
    return named(
        LAYER,
        input_layernorm=norm,
        self_attn=attn,
        post_attention_layernorm=norm,
        pre_feedforward_layernorm=norm,
        mlp=mlp,
        post_feedforward_layernorm=norm,
    )
