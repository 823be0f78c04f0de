"""One token's latent attention, in the space of the latents, is the attention that transformers
runs after it has expanded them, and costs what torch counts for it."""

import torch
from torch import einsum
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig
from transformers.cache_utils import DynamicCache
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention

from cookbook_lib.calculators.costs import Run
from cookbook_lib.calculators.specs import MLA

SPEC = MLA(
    d_model=32,
    n_heads=3,
    kv_lora_rank=12,
    q_lora_rank=20,
    qk_nope_head_dim=6,
    qk_rope_head_dim=4,
    v_head_dim=10,
)
B, S = 2, 9  # the last of S tokens is new


def theirs() -> DeepseekV3Attention:
    names = ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    sizes = {name: getattr(SPEC, name) for name in names}
    others = {"num_attention_heads": SPEC.n_heads, "num_key_value_heads": SPEC.n_heads}
    others |= {"hidden_size": SPEC.d_model, "rope_interleave": False}  # keys in the order stored
    config = AutoConfig.for_model("deepseek_v3", **sizes, **others)
    config._attn_implementation = "eager"
    return DeepseekV3Attention(config, 0).eval()


def absorbed(attn, x, latent, k_rope):
    """The rows of `MLA.absorbed`: their operands, with the two halves of `kv_b_proj` apart.

    h heads, n the part of a head that does not rotate, r that which does, c the latent.
    """
    q = attn.q_b_proj(attn.q_a_layernorm(attn.q_a_proj(x)))[:, 0].unflatten(-1, (SPEC.n_heads, -1))
    nope, rope = q.split([SPEC.qk_nope_head_dim, SPEC.qk_rope_head_dim], -1)
    weight = attn.kv_b_proj.weight.unflatten(0, (SPEC.n_heads, -1))
    keys, values = weight.split([SPEC.qk_nope_head_dim, SPEC.v_head_dim], 1)
    q = torch.cat([einsum("bhn, hnc -> bhc", nope, keys), rope], -1)
    scores = einsum("bhc, bsc -> bhs", q, torch.cat([latent, k_rope], -1)) * attn.scaling
    y = einsum("bhs, bsc -> bhc", scores.softmax(-1), latent)
    return attn.o_proj(einsum("bhc, hvc -> bhv", y, values).flatten(1))


def test_one_token_in_the_space_of_the_latents():
    torch.manual_seed(0)
    attn = theirs()
    for p in attn.parameters():
        torch.nn.init.normal_(p)
    x = torch.randn(B, S, SPEC.d_model)
    still = torch.ones(B, S, SPEC.qk_rope_head_dim), torch.zeros(B, S, SPEC.qk_rope_head_dim)
    cache = DynamicCache()
    with torch.no_grad():
        attn(x[:, :-1], [t[:, :-1] for t in still], None, cache)
        want = attn(x[:, -1:], [t[:, -1:] for t in still], None, cache)[0][:, 0]
        latent, k_rope = (t[:, 0] for t in (cache.layers[0].keys, cache.layers[0].values))
        with FlopCounterMode(display=False) as counter:
            attn.kv_a_proj_with_mqa(x[:, -1:])  # what the new token adds to the cache
            got = absorbed(attn, x[:, -1:], latent, k_rope)
    assert torch.allclose(got, want, rtol=1e-4, atol=1e-4) and want.std() > 1
    rows = SPEC.rows(Run(b=B, l=1, s=S))
    assert counter.get_total_flops() == sum(r.flops for r in rows if r.kind == "matmul")
    assert {s.name: s.shape for s in SPEC.states(B, S)} == {
        "latent": tuple(latent.shape),
        "k_rope": tuple(k_rope.shape),
    }


def test_a_token_costs_less_in_the_space_of_the_latents():
    """A long context, or the expansion of the whole cache would not matter."""
    big, s = MLA(d_model=7168, n_heads=128, q_lora_rank=1536), 4096
    expanded = big.flops(l=2, s=s) / 2
    assert big.flops(l=1, s=s) < expanded / 10
    causal = big.flops(l=s, attention="causal")
    attends = sum(r.flops for r in big.costs(l=s) if r.op in ("scores", "values"))
    assert big.flops(l=s) - causal == attends * (s - 1) // (2 * s)
