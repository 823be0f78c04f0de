"""Latent attention and fine experts: DeepSeek-V3, and Kimi Linear, which mixes KDA in."""

from cookbook_lib.calculators.configs.common import KINDS, layers, lettered, model
from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.configs.llama import sizes
from cookbook_lib.calculators.configs.moe import GATE, experts
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.specs import KDA, MLA, MLP

CHANNELS = {"dense": "", "sparse": "experts"}


def deepseek_v3(f: Fields) -> Model:
    """DeepSeek-V3 and R1, without the extra layer for predicting several tokens."""
    d, n = sizes(f, 7168, 61)
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=18432))
    channels = [{"mlp": mlp}, routed(f, d, 2048, "n_routed_experts", "num_local_experts")]
    dense = first_dense(f, 3)
    pattern = lettered("a" * n, (i >= dense for i in range(n)))
    letters = layers(d, {"ae": {"self_attn": mla(f, d, 128, 1536)}}, channels)
    return model(f, d, pattern, letters, vocab=129280, tied=False)


def kimi_linear(f: Fields) -> Model:
    """Kimi Linear: three layers of KDA to one of latent attention without positions."""
    d, n = sizes(f, 2304, 27)
    mlp = MLP(d_model=d, d_ff=f.count("intermediate_size", default=9216))
    channels = [{"mlp": mlp}, routed(f, d, 1024, "num_local_experts", "num_experts")]
    mixers = {"mn": {"self_attn": kda(f, d)}, "ae": {"self_attn": mla(f, d, 32, None)}}
    dense = first_dense(f, 1)
    routes = f.words("mlp_layer_types", length=n, among=CHANNELS)
    routes = [i >= dense for i in range(n)] if routes is None else map(bool, routes)
    kinds = f.words("layer_types", length=n, among=KINDS) or kimi_kinds(f, n)
    letters = layers(d, mixers, channels)
    return model(f, d, lettered(kinds, routes), letters, vocab=163840, tied=None)


def kimi_kinds(f: Fields, n: int) -> list[str]:
    """The hub's two lists of layers, numbered from 1, or latent attention in every fourth."""
    inside = f.inside("linear_attn_config")
    full, linear = (
        inside.indices(name, below=n + 1) for name in ("full_attn_layers", "kda_layers")
    )
    if full is None or linear is None:
        return ["a" if i and i % 4 == 0 else "m" for i in range(n)]
    if sorted([*full, *linear]) != list(range(1, n + 1)):
        inside.fail("kda_layers", f"the numbers from 1 to {n} that full_attn_layers leaves out")
    return ["a" if i + 1 in full else "m" for i in range(n)]


def kda(f: Fields, d: int) -> KDA:
    """Its sizes stand in an object of the hub's file, which has the last word."""
    inside = f.inside("linear_attn_config")
    return KDA(
        d_model=d,
        n_heads=inside.count("num_heads", default=f.count("linear_num_heads", default=32)),
        head_dim=inside.count("head_dim", default=f.count("linear_head_dim", default=128)),
        d_conv=inside.count(
            "short_conv_kernel_size", default=f.count("linear_conv_kernel_dim", default=4)
        ),
    )


def mla(f: Fields, d: int, heads: int, q_rank: int | None) -> MLA:
    """Latent attention; `heads` and `q_rank` are the class's defaults."""
    return MLA(
        d_model=d,
        n_heads=f.count("num_attention_heads", default=heads),
        kv_lora_rank=f.count("kv_lora_rank", default=512),
        q_lora_rank=f.nullable("q_lora_rank", default=q_rank),
        qk_nope_head_dim=f.count("qk_nope_head_dim", default=128),
        qk_rope_head_dim=f.count("qk_rope_head_dim", default=64),
        v_head_dim=f.count("v_head_dim", default=128),
        bias=f.flag("attention_bias", default=False),
    )


def first_dense(f: Fields, default: int) -> int:
    """How many layers come before the experts begin; from there on all have them."""
    if f.count("moe_layer_freq", default=1) != 1:
        f.fail("moe_layer_freq", "1: experts in every layer after the dense ones")
    return f.count("first_k_dense_replace", default=default, low=0)


def routed(f: Fields, d: int, d_ff: int, *names: str) -> dict[str, Block]:
    """Routed experts, and the shared ones as one MLP of their width together."""
    d_ff = f.count("moe_intermediate_size", default=d_ff)
    shared = f.count("n_shared_experts", "num_shared_experts", default=1, low=0)
    beside = {"mlp__shared_experts": MLP(d_model=d, d_ff=shared * d_ff)} if shared else {}
    return {"mlp": experts(f, d, d_ff, 256, 8, *names, names=GATE)} | beside
