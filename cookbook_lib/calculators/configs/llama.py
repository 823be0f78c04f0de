"""Dense transformers of the Llama kind: norm, attention, norm, gated MLP."""

from cookbook_lib.calculators.configs.common import attention, depth, model, named
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.model import Layout, Model
from cookbook_lib.calculators.specs import MLP, Attention, Norm

LAYER = "model.layers.{i}."
KINDS = {"full_attention": "a", "sliding_attention": "w", "attention": "a"}


def layer(d: int, attn: Attention, mlp: Block) -> Layout:
    """Pre-norm attention and pre-norm MLP."""
    norm = Norm(d_model=d)
    return named(
        LAYER, input_layernorm=norm, self_attn=attn, post_attention_layernorm=norm, mlp=mlp
    )


def dense(f: Fields, layers: int, attn: Attention, mlp: MLP, vocab: int, kinds: str = "") -> Model:
    """A model of such layers, of which `kinds` are full (a) or sliding (w) unless the file says."""
    d = attn.d_model
    letters = (("a", layer(d, attn.but(window=None), mlp)), ("w", layer(d, attn, mlp)))
    return model(f, d, pattern(f, layers, attn.window, kinds), letters, vocab=vocab, tied=False)


def pattern(f: Fields, layers: int, window: int | None, kinds: str = "") -> str:
    """What `layer_types` says, else `kinds`, else every layer slides if there is a window."""
    kinds = kinds or ("a" if window is None else "w") * layers
    kinds = "".join(f.words("layer_types", length=layers, among=KINDS, default=kinds))
    if window is None and "w" in kinds:
        f.fail("sliding_window", "a number of tokens in use, for the layers of sliding_attention")
    return kinds


def sizes(f: Fields, d: int, layers: int) -> tuple[int, int]:
    """Width and depth."""
    return f.count("hidden_size", default=d), depth(f, default=layers)


def sliding(f: Fields, default: int | None = None) -> int | None:
    """The window, if there is one. It is not 1: there transformers' cache keeps every token."""
    return f.nullable("sliding_window", default=default, low=2)


def qwen_window(f: Fields) -> int | None:
    """Qwen's window, which is not in use unless the file says so."""
    return sliding(f, 4096) if f.flag("use_sliding_window", default=False) else None


def llama(f: Fields) -> Model:
    """Llama 1 to 3, and all that say `llama`."""
    d, layers = sizes(f, 4096, 32)
    f.part("num_attention_heads", of=("hidden_size", d), default=32)
    bias = f.flag("attention_bias", default=False)
    attn = attention(f, d, 32, None, qkv_bias=bias, out_bias=bias, window=sliding(f))
    mlp = MLP(
        d_model=d,
        d_ff=f.count("intermediate_size", default=11008),
        bias=f.flag("mlp_bias", default=False),
    )
    return dense(f, layers, attn, mlp, vocab=32000)


def mistral(f: Fields) -> Model:
    """Mistral: every layer has the same sliding window, or none."""
    d, layers = sizes(f, 4096, 32)
    attn = attention(f, d, 32, 8, window=sliding(f, 4096))
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=14336))
    return dense(f, layers, attn, mlp, vocab=32000)


def phi3(f: Fields) -> Model:
    """Phi-3: q, k and v in one weight, gate and up in another."""
    d, layers = sizes(f, 3072, 32)
    attn = attention(f, d, 32, None, fused=True, window=sliding(f))
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=8192), fused=True)
    return dense(f, layers, attn, mlp, vocab=32064)


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
    attn = attention(f, d, 32, 32, dim=dim, window=qwen_window(f), **options)
    full = layers
    if attn.window is not None:
        full = min(layers, f.count("max_window_layers", default=28, low=0))
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=22016))
    return dense(f, layers, attn, mlp, vocab=151936, kinds="a" * full + "w" * (layers - full))


def gemma2(f: Fields) -> Model:
    """Gemma 2: norms before and after, every other layer with a sliding window."""
    d, layers = sizes(f, 2304, 26)
    f.part("num_attention_heads", of=("hidden_size", d), default=8)
    bias = f.flag("attention_bias", default=False)
    window = sliding(f, 4096)
    attn = attention(f, d, 8, 4, dim=256, qkv_bias=bias, out_bias=bias, window=window)
    kinds = pattern(f, layers, window, ("wa" * layers)[:layers])
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=9216))
    letters = (("a", sandwich(d, attn.but(window=None), mlp)), ("w", sandwich(d, attn, mlp)))
    return model(f, d, kinds, letters, vocab=256000, tied=True)


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
