"""Transformers with routed experts: Mixtral, Qwen3-MoE and OLMoE."""

from cookbook_lib.calculators.configs.common import attention, model
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.configs.llama import layer, pattern, qwen_window, sizes, sliding
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.specs import MLP, Attention, MoE

GATE = (("router", "gate"),)  # what these checkpoints call the router


def one_kind(f: Fields, layers: int, attn: Attention) -> str:
    """The letter for these layers without experts; all of them slide, or none."""
    letters = set(pattern(f, layers, attn.window))
    if letters != {"a" if attn.window is None else "w"}:
        f.fail("layer_types", "one kind for all layers, sliding_attention if there is a window")
    return letters.pop()


def experts(f: Fields, d: int, d_ff: int, n: int, k: int, *names: str, **options) -> MoE:
    """Routed experts; `names` are the spellings of their number, `n` and `k` the defaults."""
    total = f.count(*names, default=n)
    most = (f.find(names) or names[0], total)
    topk = f.count("num_experts_per_tok", default=k, high=most)
    return MoE(d_model=d, d_ff=d_ff, n_experts=total, topk=topk, **options)


def sparse(f: Fields, layers: int, *names: str, default: int) -> list[bool]:
    """Whether each layer has experts: every `decoder_sparse_step`-th but `mlp_only_layers`.

    `names` are the spellings of the experts' number; without experts every layer is dense.
    """
    step = f.count("decoder_sparse_step", default=1)
    dense = f.indices("mlp_only_layers", below=layers, default=())
    some = f.count(*names, default=default, low=0) > 0
    return [some and (i + 1) % step == 0 and i not in dense for i in range(layers)]


def mixtral(f: Fields) -> Model:
    """Mixtral: experts in every layer."""
    d, layers = sizes(f, 4096, 32)
    attn = attention(f, d, 32, 8, window=sliding(f))
    one_kind(f, layers, attn)
    d_ff = f.count("intermediate_size", default=14336)
    moe = experts(f, d, d_ff, 8, 2, "num_local_experts", "num_experts", names=GATE)
    letters = (("e", layer(d, attn, moe)),)
    return model(f, d, "e" * layers, letters, vocab=32000, tied=False)


def qwen3_moe(f: Fields) -> Model:
    """Qwen3-MoE: experts in every `decoder_sparse_step`-th layer but those of `mlp_only_layers`."""
    d, layers = sizes(f, 2048, 24)
    bias = f.flag("attention_bias", default=False)
    options = {"qkv_bias": bias, "out_bias": bias, "qk_norm": "head"}
    attn = attention(f, d, 32, 4, window=qwen_window(f), **options)
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=6144))
    plain = one_kind(f, layers, attn)
    letters = ((plain, layer(d, attn, mlp)),)
    names = ("num_experts", "num_local_experts")
    routes = sparse(f, layers, *names, default=128)
    if any(routes):
        d_ff = f.count("moe_intermediate_size", default=768)
        letters += (("e", layer(d, attn, experts(f, d, d_ff, 128, 8, *names, names=GATE))),)
    kinds = "".join("e" if here else plain for here in routes)
    return model(f, d, kinds, letters, vocab=151936, tied=False)


def olmoe(f: Fields) -> Model:
    """OLMoE: experts in every layer, a norm over all heads' q and k."""
    d, layers = sizes(f, 2048, 16)
    bias = f.flag("attention_bias", default=False)
    options = {"qkv_bias": bias, "out_bias": bias, "qk_norm": "all"}
    attn = attention(f, d, 16, None, window=sliding(f), **options)
    one_kind(f, layers, attn)
    if attn.d_q != d:
        f.fail("head_dim", f"hidden_size / num_attention_heads ({d} / {attn.n_heads})")
    d_ff = f.count("intermediate_size", default=2048)
    moe = experts(f, d, d_ff, 64, 8, "num_experts", "num_local_experts", names=GATE)
    letters = (("e", layer(d, attn, moe)),)
    return model(f, d, "e" * layers, letters, vocab=50304, tied=False)
