"""Dense transformers of the Llama kind: norm, attention, norm, gated MLP."""

from cookbook_lib.calculators.configs.common import attention, model, named
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


def sizes(f: Fields, d: int, layers: int) -> tuple[int, int]:
    """Width and depth."""
    return f.count("hidden_size", default=d), f.count("num_hidden_layers", default=layers)


def llama(f: Fields) -> Model:
    """Llama 1 to 3, and all that say `llama`."""
    d, layers = sizes(f, 4096, 32)
    f.part("num_attention_heads", of=("hidden_size", d), default=32)
    bias = f.flag("attention_bias", default=False)
    attn = attention(f, d, 32, None, qkv_bias=bias, out_bias=bias)
    mlp = MLP(
        d_model=d,
        d_ff=f.count("intermediate_size", default=11008),
        bias=f.flag("mlp_bias", default=False),
    )
    return model(f, d, "a" * layers, (("a", layer(d, attn, mlp)),), vocab=32000, tied=False)


def mistral(f: Fields) -> Model:
    """Mistral: every layer has the same sliding window, or none."""
    d, layers = sizes(f, 4096, 32)
    attn = attention(f, d, 32, 8, window=f.nullable("sliding_window", default=4096))
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=14336))
    letter = "a" if attn.window is None else "w"
    return model(f, d, letter * layers, ((letter, layer(d, attn, mlp)),), vocab=32000, tied=False)


def qwen2(f: Fields) -> Model:
    """Qwen2: biases on q, k and v."""
    d, layers = sizes(f, 4096, 32)
    return qwen(f, d, layers, attention(f, d, 32, 32, qkv_bias=True))


def qwen3(f: Fields) -> Model:
    """Qwen3: a norm over each head's q and k."""
    d, layers = sizes(f, 4096, 32)
    bias = f.flag("attention_bias", default=False)
    options = {"qkv_bias": bias, "out_bias": bias, "qk_norm": "head"}
    return qwen(f, d, layers, attention(f, d, 32, 32, dim=128, **options))


def qwen(f: Fields, d: int, layers: int, attn: Attention) -> Model:
    """The layers of Qwen2 and Qwen3, from `max_window_layers` on with a window if it is in use."""
    window = f.nullable("sliding_window", default=4096)
    if not f.flag("use_sliding_window", default=False):
        window = None
    kinds = f.words("layer_types", length=layers, among=WINDOWS)
    if kinds is None:
        first = f.count("max_window_layers", default=28, low=0)
        kinds = ["w" if window is not None and i >= first else "a" for i in range(layers)]
    if window is None and "w" in kinds:
        f.fail("layer_types", "no sliding_attention, since there is no sliding_window in use")
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=22016))
    letters = (("a", layer(d, attn, mlp)), ("w", layer(d, attn.but(window=window), mlp)))
    return model(f, d, "".join(kinds), letters, vocab=151936, tied=False)


def phi3(f: Fields) -> Model:
    """Phi-3: q, k and v in one weight, gate and up in another."""
    d, layers = sizes(f, 3072, 32)
    window = f.nullable("sliding_window", default=None)
    attn = attention(f, d, 32, None, fused=True, window=window)
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=8192), fused=True)
    letter = "a" if window is None else "w"
    return model(f, d, letter * layers, ((letter, layer(d, attn, mlp)),), vocab=32064, tied=False)


def gemma2(f: Fields) -> Model:
    """Gemma 2: norms before and after, every other layer with a sliding window."""
    d, layers = sizes(f, 2304, 26)
    f.part("num_attention_heads", of=("hidden_size", d), default=8)
    bias = f.flag("attention_bias", default=False)
    attn = attention(f, d, 8, 4, dim=256, qkv_bias=bias, out_bias=bias)
    window = f.nullable("sliding_window", default=4096)
    kinds = f.words("layer_types", length=layers, among=WINDOWS)
    kinds = kinds or ["a" if i % 2 else "w" for i in range(layers)]
    mlp, norm = MLP(d_model=d, d_ff=f.count("intermediate_size", default=9216)), Norm(d_model=d)
    letters = tuple(
        (
            letter,
            named(
                LAYER,
                input_layernorm=norm,
                self_attn=mixer,
                post_attention_layernorm=norm,
                pre_feedforward_layernorm=norm,
                mlp=mlp,
                post_feedforward_layernorm=norm,
            ),
        )
        for letter, mixer in (("a", attn), ("w", attn.but(window=window)))
    )
    return model(f, d, "".join(kinds), letters, vocab=256000, tied=True)
