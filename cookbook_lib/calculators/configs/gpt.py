"""Transformers of the GPT kind: LayerNorms and biases, an MLP without a gate."""

from cookbook_lib.calculators.configs.common import attention, depth, model, named
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.configs.llama import sizes, sliding
from cookbook_lib.calculators.configs.moe import one_kind
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.specs import MLP, Attention, Embedding, Norm


def fused(d: int, heads: int, bias: bool, **options) -> Attention:
    """Attention with q, k and v in one weight and as many key-value heads as heads."""
    return Attention(
        d_model=d,
        n_heads=heads,
        n_kv_heads=heads,
        head_dim=d // heads,
        fused=True,
        qkv_bias=bias,
        out_bias=bias,
        **options,
    )


def gpt_neox(f: Fields) -> Model:
    """GPT-NeoX and Pythia."""
    d, layers = sizes(f, 6144, 44)
    bias = f.flag("attention_bias", default=True)
    renamed = (("qkv_proj", "query_key_value"), ("o_proj", "dense"))
    heads = f.part("num_attention_heads", of=("hidden_size", d), default=64)
    attn = fused(d, heads, bias, names=renamed, window=sliding(f))
    mlp = MLP(
        d_model=d,
        d_ff=f.count("intermediate_size", default=24576),
        gated=False,
        bias=True,
        names=(("up_proj", "dense_h_to_4h"), ("down_proj", "dense_4h_to_h")),
    )
    norm = Norm(d_model=d, bias=True)
    layer = named(
        "gpt_neox.layers.{i}.",
        input_layernorm=norm,
        attention=attn,
        post_attention_layernorm=norm,
        mlp=mlp,
    )
    around = {"embed": "gpt_neox.embed_in", "norm": "gpt_neox.final_layer_norm", "norm_bias": True}
    letter = one_kind(f, layers, attn)
    return model(f, d, letter * layers, ((letter, layer),), vocab=50432, tied=False, **around)


def gpt2(f: Fields) -> Model:
    """GPT-2, with learned positions."""
    d = f.count("n_embd", "hidden_size", default=768)
    layers = depth(f, "n_layer", "num_hidden_layers", default=12)
    if f.flag("add_cross_attention", default=False):
        f.fail("add_cross_attention", "false: only the decoder on its own is supported")
    renamed = (("qkv_proj", "c_attn"), ("o_proj", "c_proj"))
    of = (f.find(("n_embd", "hidden_size")) or "n_embd", d)
    heads = f.part("n_head", "num_attention_heads", of=of, default=12)
    attn = fused(d, heads, True, names=renamed, window=sliding(f))
    mlp = MLP(
        d_model=d,
        d_ff=f.nullable("n_inner", default=None) or 4 * d,
        gated=False,
        bias=True,
        names=(("up_proj", "c_fc"), ("down_proj", "c_proj")),
    )
    norm = Norm(d_model=d, bias=True)
    layer = named("transformer.h.{i}.", ln_1=norm, attn=attn, ln_2=norm, mlp=mlp)
    held = f.count("n_positions", "max_position_embeddings", default=1024)
    around = {"embed": "transformer.wte", "norm": "transformer.ln_f", "norm_bias": True}
    around["positions"] = (("transformer.wpe", Embedding(vocab=held, d_model=d)),)
    letter = one_kind(f, layers, attn)
    return model(f, d, letter * layers, ((letter, layer),), vocab=50257, tied=True, **around)


def phi(f: Fields) -> Model:
    """Phi-1 to 2: attention and MLP side by side behind one norm, a bias in every linear."""
    d, layers = sizes(f, 2048, 24)
    if f.flag("qk_layernorm", default=False):
        f.fail("qk_layernorm", "false: norms of q and k that have a bias are not supported")
    if f.flag("tie_word_embeddings", default=False):
        f.fail("tie_word_embeddings", "false: a tied head that has a bias is not supported")
    attn = attention(f, d, 32, None, qkv_bias=True, out_bias=True, names=(("o_proj", "dense"),))
    mlp = MLP(
        d_model=d,
        d_ff=f.count("intermediate_size", default=8192),
        gated=False,
        bias=True,
        names=(("up_proj", "fc1"), ("down_proj", "fc2")),
    )
    norm = Norm(d_model=d, bias=True)
    layer = named("model.layers.{i}.", input_layernorm=norm, self_attn=attn, mlp=mlp)
    around = {"norm": "model.final_layernorm", "norm_bias": True, "head_bias": True}
    return model(f, d, "a" * layers, (("a", layer),), vocab=51200, tied=None, **around)
