"""Attention is one thing in three forms, keeps what it must in its cache, and is transformers'."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama import modeling_llama as llama
from transformers.models.mistral import modeling_mistral as mistral
from transformers.models.olmoe import modeling_olmoe as olmoe
from transformers.models.phi3 import modeling_phi3 as phi3
from transformers.models.qwen3 import modeling_qwen3 as qwen3
from transformers.models.zamba import modeling_zamba as zamba
from transformers.models.zamba2 import modeling_zamba2 as zamba2

from cookbook_lib.blocks.attention import (
    Attention,
    attention_parallel,
    attention_recurrent,
    visible,
)
from cookbook_lib.blocks.kv_cache import held
from cookbook_lib.blocks.rope import RoPE, rotate
from cookbook_lib.calculators import specs

WIDE = specs.Attention(d_model=32, d_in=64, n_heads=4, n_kv_heads=2, head_dim=8)
SPECS = {
    "gqa": WIDE,
    "mha": WIDE.but(n_kv_heads=4, qkv_bias=True, out_bias=True),
    "window": WIDE.but(window=4),
    "window of one": WIDE.but(window=1),
    "norm of heads": WIDE.but(qk_norm="head", fused=True),
    "norm of all": WIDE.but(qk_norm="all", n_kv_heads=1),
    "convolution": WIDE.but(d_conv=3, fused=True, qkv_bias=True),
}


def draw(*shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def build(spec: specs.Attention, **options) -> Attention:
    torch.manual_seed(1)
    return Attention(spec, **options).double().requires_grad_(False)


def empty(spec: specs.Attention, b: int, s: int) -> dict[str, torch.Tensor]:
    """A cache for `s` tokens, in float64."""
    return {x.name: torch.zeros(x.shape, dtype=torch.float64) for x in spec.states(b, s)}


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


@pytest.fixture(params=SPECS)
def spec(request) -> specs.Attention:
    return SPECS[request.param]


@pytest.mark.parametrize("window", [None, 1, 3, 20])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
def test_parallel_is_the_recurrence(window, heads):
    q, k, v = draw(2, heads[0], 11, 8), draw(2, heads[1], 11, 8), draw(2, heads[1], 11, 9)[..., :8]
    gap = torch.arange(11)[:, None] - torch.arange(11)
    mask = (gap >= 0) & (gap < (window or 11))
    want = attention_recurrent(q, k, v, scale=0.3, window=window)
    assert error(attention_parallel(q, k, v, 0.3, mask[None]), want) < 1e-10
    if window in (None, 20):
        assert error(attention_parallel(q, k, v, 0.3, causal=True), want) < 1e-10


@pytest.mark.parametrize("cuts", [range(12), (0, 3, 4, 11), (0, 2, 3, 4, 11), (0, 5, 11), (0, 11)])
@pytest.mark.parametrize("kind", ["number", "tensor", "one for each"])
def test_steps_with_a_cache_are_the_parallel_form(spec, cuts, kind):
    module, x = build(spec, rope=RoPE(), scale=0.5), draw(2, 11, 64)
    state, ys = empty(spec, 2, 11), []
    storage = {name: t.data_ptr() for name, t in state.items()}
    for first, last in pairwise(cuts):
        starts = {"number": first, "tensor": torch.tensor(first)}
        start = starts.get(kind, torch.tensor([first, first]))
        ys.append(module(x[:, first:last], state, start=start))
    assert error(torch.cat(ys, 1), module(x)) < 1e-10
    assert {name: t.data_ptr() for name, t in state.items()} == storage


def test_the_cache_of_a_window_is_a_ring():
    assert held(0, 3).tolist() == [[-3, -2, -1]]  # empty
    assert held(5, 3).tolist() == [[3, 4, 2]]
    spec = WIDE.but(window=4)
    assert empty(spec, 1, 100)["k"].shape[2] == 3


def test_sequences_of_different_lengths_share_a_cache(spec):
    module, x = build(spec, rope=RoPE()), draw(2, 9, 64)
    state, lengths = empty(spec, 2, 9), [3, 6]
    for row, n in enumerate(lengths):
        own = {name: t[row : row + 1] for name, t in state.items()}  # views
        module(x[row : row + 1, :n], own)
    new = torch.stack([x[row, n : n + 2] for row, n in enumerate(lengths)])
    got = module(new, state, start=torch.tensor(lengths))
    for row, n in enumerate(lengths):
        want = module(x[row : row + 1, : n + 2])[:, n:]
        assert error(got[row : row + 1], want) < 1e-10


@pytest.mark.parametrize("cached", [False, True])
def test_left_padding_changes_nothing(spec, cached):
    module, x = build(spec, rope=RoPE()), draw(2, 9, 64)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, :3] = False
    if cached:
        state = empty(spec, 2, 9)
        ys = [module(x[:, :5], state, mask=mask[:, :5])]
        ys += [module(x[:, i : i + 1], state, start=i, mask=mask[:, : i + 1]) for i in range(5, 9)]
        y = torch.cat(ys, 1)
    else:
        y = module(x, mask=mask)
    assert error(y[:1], module(x[:1])) < 1e-10
    assert error(y[1:, 3:], module(x[1:, 3:])) < 1e-10
    assert y.isfinite().all()


def test_every_query_sees_something_even_padding():
    positions = torch.arange(4)[None]
    valid = torch.tensor([[False, False, True, True]])
    want = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert visible(positions, positions, valid=valid).int().tolist() == [want]


def test_packed_documents_do_not_leak(spec):
    module, x = build(spec, rope=RoPE()), draw(2, 10, 64)
    seq_idx = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1, 1], [0] * 9 + [1]])
    y = module(x, seq_idx=seq_idx)
    for row, cut in (0, 3), (1, 9):
        for part in slice(0, cut), slice(cut, 10):
            assert error(y[row : row + 1, part], module(x[row : row + 1, part])) < 1e-10


def test_a_convolution_mixes_each_channel_before_the_heads_compare():
    spec, x = SPECS["convolution"], draw(2, 11, 64)
    module = build(spec, scale=0.5)
    qkv = F.pad(module.qkv_proj(x).mT, (2, 0))
    qkv = F.conv1d(qkv, module.conv1d.weight, module.conv1d.bias, groups=spec.d_qkv).mT
    q, k, v = (
        t.unflatten(-1, (-1, 8)).transpose(1, 2)
        for t in qkv.split([spec.d_q, *[spec.d_kv] * 2], -1)
    )
    y = attention_recurrent(q, k, v, scale=0.5).transpose(1, 2).flatten(2)
    assert error(module(x), module.o_proj(y)) < 1e-10


@pytest.mark.parametrize("name", ["window", "norm of heads", "convolution"])
def test_gradients(name):
    module = build(
        SPECS[name].but(d_in=6, d_model=4, n_heads=2, n_kv_heads=1, head_dim=2), rope=RoPE()
    ).requires_grad_()
    x = draw(1, 5, 6).requires_grad_()
    weights = tuple(module.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *weights))


def test_bf16_is_stable_over_long_contexts():
    module = build(WIDE.but(window=64), rope=RoPE()).bfloat16()
    x = 30 * draw(1, 2048, 64).bfloat16()
    assert module(x).isfinite().all()


SCALED = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
}


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("length", [128, 700])
def test_scaled_rope_is_that_of_transformers(kind, length):
    parameters = {"rope_type": kind, "rope_theta": 5e4, **SCALED[kind]}
    config = AutoConfig.for_model(
        "llama", hidden_size=128, num_attention_heads=4, max_position_embeddings=256
    )
    config.rope_parameters = parameters
    want, loudness = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=length)
    rope = RoPE.read(parameters, head_dim=32, trained=256)
    torch.testing.assert_close(rope.speeds(32, length).float(), want, rtol=1e-5, atol=0)
    assert rope.loudness == pytest.approx(loudness)


def test_ntk_rope_stretches_the_slowest_pair_by_the_factor():
    plain, ntk = RoPE().speeds(64, 1), RoPE(scaling="ntk", factor=16.0).speeds(64, 1)
    assert ntk[0] == plain[0]
    assert (plain[-1] / ntk[-1]).item() == pytest.approx(16)


def test_rope_sees_only_distances_and_only_its_channels():
    rope, q, k = RoPE(dim=6), draw(1, 1, 1, 8), draw(1, 1, 1, 8)

    def score(i: int, j: int) -> float:
        turned = (
            rotate(t, *rope.tables(torch.tensor([[at]]), 8, t.dtype)) for t, at in ((q, i), (k, j))
        )
        return torch.mul(*turned).sum().item()

    assert score(9, 4) == pytest.approx(score(105, 100))
    assert score(9, 4) != pytest.approx(score(9, 5))
    assert rotate(q, *rope.tables(torch.tensor([[7]]), 8, q.dtype))[..., 6:].equal(q[..., 6:])


SIZES = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 1,
    "rms_norm_eps": 1e-5,
}
SMALL = specs.Attention(d_model=32, n_heads=4, n_kv_heads=2, head_dim=8)
THEIRS = {
    "llama": (llama.LlamaAttention, llama.LlamaRotaryEmbedding, {}, SMALL),
    "biased": (
        llama.LlamaAttention,
        llama.LlamaRotaryEmbedding,
        {"attention_bias": True},
        SMALL.but(qkv_bias=True, out_bias=True),
    ),
    "mistral": (
        mistral.MistralAttention,
        mistral.MistralRotaryEmbedding,
        {"sliding_window": 5},
        SMALL.but(window=5),
    ),
    "qwen3": (
        qwen3.Qwen3Attention,
        qwen3.Qwen3RotaryEmbedding,
        {"head_dim": 16},
        SMALL.but(qk_norm="head", head_dim=16),
    ),
    "olmoe": (olmoe.OlmoeAttention, olmoe.OlmoeRotaryEmbedding, {}, SMALL.but(qk_norm="all")),
    "phi3": (
        phi3.Phi3Attention,
        phi3.Phi3RotaryEmbedding,
        {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        SMALL.but(fused=True),
    ),
}


def theirs(module, x, tables, window=None, **options):
    """What a transformers attention module says, with the causal mask that it expects."""
    gap = torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])
    hidden = (gap < 0) | (gap >= (window or x.shape[1]))
    mask = torch.zeros(1, 1, *gap.shape).masked_fill(hidden, -torch.inf)
    options |= {"position_embeddings": tables} if tables else {}
    with torch.no_grad():
        return module(hidden_states=x, attention_mask=mask, **options)[0]


@pytest.mark.parametrize("name", THEIRS)
def test_is_that_of_transformers(name):
    kind, rotary, fields, spec = THEIRS[name]
    config = AutoConfig.for_model(
        "llama" if name == "biased" else name, **(SIZES | fields), attn_implementation="eager"
    )
    torch.manual_seed(2)
    module, x = kind(config, layer_idx=0).eval(), draw(2, 13, 32, dtype=torch.float32)
    tables = rotary(config)(x, torch.arange(13)[None])
    ours = Attention(spec, rope=RoPE.read(config.rope_parameters, spec.head_dim, 2048))
    ours.load_state_dict(module.state_dict())
    with torch.no_grad():
        assert error(ours(x), theirs(module, x, tables, spec.window)) < 1e-5


@pytest.mark.parametrize("lora", [False, True])
def test_is_that_of_zamba2(lora):
    """Input twice as wide as the model, another scale, RoPE, and a LoRA of its own for each use."""
    config = AutoConfig.for_model(
        "zamba2",
        **SIZES | {"num_hidden_layers": 3, "layers_block_type": ["hybrid"] * 3},
        use_mem_rope=True,
        use_shared_attention_adapter=lora,
        adapter_rank=4,
        n_mamba_heads=8,
        attn_implementation="eager",
    )
    config.num_key_value_heads = 4
    torch.manual_seed(3)
    module = zamba2.Zamba2Attention(config, 0, num_fwd_mem_blocks=3, block_id=0).eval()
    x = draw(2, 9, 64, dtype=torch.float32)
    tables = zamba2.Zamba2RotaryEmbedding(config)(x, torch.arange(9)[None])
    spec = specs.Attention(d_model=32, d_in=64, n_heads=4, n_kv_heads=4, head_dim=16)
    ours = Attention(spec, rope=RoPE(), scale=8**-0.5)
    ours.load_state_dict({k: t for k, t in module.state_dict().items() if "adapter" not in k})
    lists = {n: getattr(module, f"linear_{n}_adapter_list") for n in "qkv"} if lora else {}
    for use in range(3):
        adapters = {f"{n}_proj": x[use] for n, x in lists.items()}
        want = theirs(module, x, tables, layer_idx=use)
        with torch.no_grad():
            assert error(ours(x, adapters=adapters), want) < 1e-5


def test_is_that_of_zamba():
    config = AutoConfig.for_model(
        "zamba", **SIZES | {"num_hidden_layers": 3}, attn_implementation="eager"
    )
    config.num_key_value_heads = 4
    torch.manual_seed(4)
    module = zamba.ZambaAttention(config, 0).eval()
    spec = specs.Attention(d_model=32, d_in=64, n_heads=4, n_kv_heads=4, head_dim=16)
    ours = Attention(spec, scale=8**-0.5)
    ours.load_state_dict(module.state_dict())
    x = draw(2, 9, 64, dtype=torch.float32)
    with torch.no_grad():
        assert error(ours(x), theirs(module, x, None, layer_idx=0)) < 1e-5


def test_says_what_is_wrong():
    module, x = build(WIDE), draw(1, 5, 64)
    with pytest.raises(ValueError, match="4 slots, expected 5"):
        module(x, empty(WIDE, 1, 4))
    with pytest.raises(ValueError, match="mask has 4 columns, expected 5"):
        module(x, mask=torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="seq_idx and state are both given"):
        module(x, empty(WIDE, 1, 5), seq_idx=torch.zeros(1, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="adapters has 'gate'"):
        module(x, adapters={"gate": torch.nn.Identity()})
    with pytest.raises(ValueError, match="scaling is 'linaer'"):
        RoPE(scaling="linaer")
    with pytest.raises(ValueError, match="dim is 7"):
        RoPE(dim=7)
    with pytest.raises(ValueError, match="gated is True, expected False: a gate can be counted"):
        Attention(specs.Attention(d_model=8, n_heads=2, n_kv_heads=1, head_dim=4, gated=True))
