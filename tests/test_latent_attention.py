"""Latent attention is that of transformers on the same weights, in both its forms; one token's, in
the space of the latents, costs what torch counts for it."""

from itertools import pairwise

import pytest
import torch
from torch import einsum
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig
from transformers.cache_utils import DynamicCache
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention

from cookbook_lib.blocks.attention import visible
from cookbook_lib.blocks.latent_attention import MLA as Module
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.calculators.runs import Run
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


def theirs(spec: MLA = SPEC, interleaved: bool = False, run: str = "eager") -> DeepseekV3Attention:
    """interleaved: False keeps the keys in the order stored. run: "sdpa" is exact in float64."""
    names = ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    sizes = {name: getattr(spec, name) for name in names}
    others = {"num_attention_heads": spec.n_heads, "num_key_value_heads": spec.n_heads}
    others |= {"hidden_size": spec.d_model, "rope_interleave": interleaved}
    config = AutoConfig.for_model("deepseek_v3", **sizes, **others, attention_bias=spec.bias)
    config._attn_implementation = run
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


def angles(at: torch.Tensor, width: int, theta: float) -> list[torch.Tensor]:
    """cos and sin as the two halves of a key share them, in float64."""
    turns = at.double()[:, None] * theta ** -(torch.arange(0, width, 2).double() / width)
    turns = torch.cat([turns, turns], -1)[None].expand(B, -1, -1)
    return [turns.cos(), turns.sin()]


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("spec", [SPEC, SPEC.but(q_lora_rank=None), SPEC.but(bias=True)])
@pytest.mark.parametrize("cuts", [(0, S), (0, 4, 5, 6, S), (0, 1, 2, 8, S)])
def test_the_module_is_that_of_transformers_on_the_same_weights(spec, interleaved, cuts):
    torch.manual_seed(0)
    ref = theirs(spec, interleaved, "sdpa")
    for name in ("q_a_layernorm", "kv_a_layernorm"):  # theirs round to float32
        if norm := getattr(ref, name, None):
            setattr(ref, name, torch.nn.RMSNorm(len(norm.weight), eps=1e-6))
    ref = ref.double()
    ours = Module(spec, rope=RoPE(theta=100.0), interleaved=interleaved).double().eval()
    for p in ref.parameters():
        torch.nn.init.normal_(p, std=0.3)
    ours.load_state_dict(ref.state_dict())  # the same names
    x = torch.randn(B, S, spec.d_model).double()
    at, cache = torch.arange(S), DynamicCache()
    state = {s.name: torch.zeros(s.shape).double() for s in spec.states(B, S)}
    with torch.no_grad():
        for i, j in pairwise(cuts):
            see = at[None, :j] <= at[i:j, None]
            tables = angles(at[i:j], spec.qk_rope_head_dim, 100.0)
            want = ref(x[:, i:j], tables, see[None, None], cache)[0]
            got = ours(x[:, i:j], state, start=i)
            assert (got - want).abs().max() < 1e-10 and want.std() > 0.1
        assert (ours(x)[:, -1:] - got[:, -1:]).abs().max() < 1e-10  # without a cache
    kept = cache.layers[0].keys, cache.layers[0].values
    for mine, other in zip((state["latent"], state["k_rope"]), kept, strict=True):
        assert (mine - other[:, 0]).abs().max() < 1e-12
    held = sum(t.numel() for t in state.values())
    assert held * 2 == spec.state_bytes(b=B, s=S, dtype="bf16")


def test_the_absorbed_form_is_the_naive_one_also_where_queries_do_not_see_all():
    torch.manual_seed(0)
    module = Module(SPEC).double()
    q_nope, q_rope = (torch.randn(B, SPEC.n_heads, 4, k).double() for k in (6, 4))
    latent, k_rope = (torch.randn(B, S, k).double() for k in (SPEC.kv_lora_rank, 4))
    valid = torch.ones(B, S, dtype=torch.bool)
    valid[1, :3] = False
    see = visible(torch.arange(S - 4, S)[None], torch.arange(S)[None], None, valid)
    with torch.no_grad():
        for mask in (None, see):
            naive, moved = (
                form(q_nope, q_rope, latent, k_rope, mask)
                for form in (module.expanded, module.absorbed)
            )
            assert (naive - moved).abs().max() < 1e-10 and naive.std() > 0.01


def test_a_pack_that_would_keep_a_cache_is_refused():
    state = {s.name: torch.zeros(s.shape) for s in SPEC.states(B, S)}
    idx = torch.zeros(B, S, dtype=torch.long)
    with pytest.raises(ValueError, match="seq_idx and state are both given, expected one"):
        Module(SPEC)(torch.randn(B, S, SPEC.d_model), state, seq_idx=idx)


def test_a_token_costs_less_in_the_space_of_the_latents():
    """A long context, or the expansion of the whole cache would not matter."""
    big, s = MLA(d_model=7168, n_heads=128, q_lora_rank=1536), 4096
    expanded = big.flops(l=2, s=s) / 2
    assert big.flops(l=1, s=s) < expanded / 10
    causal = big.flops(l=s, attention="causal")
    attends = sum(r.flops for r in big.costs(l=s) if r.op in ("scores", "values"))
    assert big.flops(l=s) - causal == attends * (s - 1) // (2 * s)
