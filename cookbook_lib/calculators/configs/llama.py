"""Dense transformers of the Llama kind: norm, attention, norm, gated MLP."""

from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.specs import MLP, Attention, Embedding, Head, Norm


def llama(f: Fields) -> Model:
    """Llama 1 to 3 and all that say `llama`."""
    d = f.count("hidden_size", default=4096)
    layers = f.count("num_hidden_layers", default=32)
    vocab = f.count("vocab_size", default=32000)
    heads = f.part("num_attention_heads", of=("hidden_size", d), default=32)
    attention = Attention(
        d_model=d,
        n_heads=heads,
        n_kv_heads=f.part("num_key_value_heads", of=("num_attention_heads", heads), default=heads),
        head_dim=f.count("head_dim", default=d // heads),
        qkv_bias=(bias := f.flag("attention_bias", default=False)),
        out_bias=bias,
    )
    mlp = MLP(
        d_model=d,
        d_ff=f.count("intermediate_size", default=11008),
        bias=f.flag("mlp_bias", default=False),
    )
    layer = (
        ("model.layers.{i}.input_layernorm", Norm(d_model=d)),
        ("model.layers.{i}.self_attn", attention),
        ("model.layers.{i}.post_attention_layernorm", Norm(d_model=d)),
        ("model.layers.{i}.mlp", mlp),
    )
    tied = f.flag("tie_word_embeddings", default=False)
    return Model(
        name=f.where,
        family="llama",
        pattern="a" * layers,
        before=(("model.embed_tokens", Embedding(vocab=vocab, d_model=d)),),
        layers=(("a", layer),),
        after=(
            ("model.norm", Norm(d_model=d)),
            ("model.embed_tokens" if tied else "lm_head", Head(d_model=d, vocab=vocab)),
        ),
    )
