"""Gated DeltaNet is one thing in three forms, stays finite, and is Qwen3-Next's."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig
from transformers.cache_utils import DynamicCache
from transformers.models.qwen3_next import modeling_qwen3_next as qwen3_next

from cookbook_lib.blocks.deltanet import GatedDeltaNet, deltanet_chunked, deltanet_recurrent
from cookbook_lib.blocks.short_conv import short_conv
from cookbook_lib.calculators import specs

SPEC = specs.GatedDeltaNet(
    d_model=16, n_k_heads=2, n_v_heads=4, head_k_dim=4, head_v_dim=6, chunk_size=8
)


def draw(*shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


def tokens(l: int, b: int = 2, g: int = 2, r: int = 2, n: int = 4, m: int = 3) -> list:
    """q, k, v, a, beta and an initial state."""
    q, k = (F.normalize(draw(b, l, g, n + i), dim=-1)[..., :n] for i in (0, 1))
    a, beta = -3 * draw(b, l, g, r).square(), draw(b, l, g, r + 1)[..., :r].sigmoid()
    return [q, k, draw(b, l, g, r, m), a, beta, draw(b, g, r, n, m)]


def build(spec: specs.GatedDeltaNet = SPEC) -> GatedDeltaNet:
    torch.manual_seed(1)
    module = GatedDeltaNet(spec).double().requires_grad_(False)
    module.A_log.copy_(torch.linspace(-5, 0, spec.n_v_heads))  # slow enough to see what leaks
    return module


def empty(spec: specs.GatedDeltaNet, b: int) -> dict[str, torch.Tensor]:
    return {x.name: torch.zeros(x.shape, dtype=torch.float64) for x in spec.states(b)}


@pytest.mark.parametrize("l", [1, 7, 8, 23])
@pytest.mark.parametrize("chunk_size", [1, 4, 8, 64])
@pytest.mark.parametrize("r", [1, 2])
def test_chunks_are_the_recurrence(l, chunk_size, r):
    given = tokens(l, r=r)
    want, last = deltanet_recurrent(*given)
    got, end = deltanet_chunked(*given, chunk_size)
    assert error(got, want) < 1e-10
    assert error(end, last) < 1e-10


def test_a_full_correction_overwrites_what_the_key_held():
    """With beta 1 and no decay, reading with the last key gives the last value."""
    q, k, v, a, beta, state = tokens(5)
    k = F.normalize(k, dim=-1)
    y, _ = deltanet_recurrent(k, k, v, 0 * a, torch.ones_like(beta), state)
    assert error(y, v) < 1e-10


def test_gradients():
    spec = specs.GatedDeltaNet(
        d_model=3, n_k_heads=1, n_v_heads=2, head_k_dim=2, head_v_dim=2, d_conv=2, chunk_size=2
    )
    module, x = build(spec).requires_grad_(), draw(1, 5, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *module.parameters()))


def test_bf16_is_stable_at_32k_tokens_with_large_decays():
    spec = SPEC.but(n_v_heads=2, chunk_size=64)
    module = build(spec).bfloat16().requires_grad_()
    with torch.no_grad():
        module.dt_bias.copy_(torch.tensor([-4.0, 40.0]))  # hardly any, and nothing left
    x = (10 * draw(1, 32768, 16)).bfloat16()
    y = module(x)
    y.float().square().mean().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("l", [1, 3, 9])
def test_the_convolution_keeps_its_last_inputs(l):
    x, weight, bias = draw(2, 12, 5), draw(5, 1, 4), draw(5)
    want = F.conv1d(F.pad(x.mT, (3, 0)), weight, bias, groups=5).mT
    state = torch.zeros(2, 5, 4, dtype=torch.float64)
    parts = [short_conv(x[:, i : i + l], weight, bias, state) for i in range(0, 12, l)]
    assert error(torch.cat(parts, 1), want) < 1e-10
    assert torch.equal(state, x[:, -4:].mT)
    one = torch.zeros(2, 12, dtype=torch.long)
    assert error(short_conv(x, weight, bias, seq_idx=one), want) < 1e-10


def theirs():
    """The layer of transformers, ours with its weights, and the config."""
    config = AutoConfig.for_model(
        "qwen3_next",
        hidden_size=16,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=4,
        linear_value_head_dim=6,
        linear_conv_kernel_dim=4,
    )
    torch.manual_seed(2)
    module = qwen3_next.Qwen3NextGatedDeltaNet(config, layer_idx=0).eval().requires_grad_(False)
    ours = GatedDeltaNet(SPEC.but(chunk_size=16)).requires_grad_(False)
    ours.load_state_dict(module.state_dict())
    return module, ours, config


def test_the_functions_are_those_of_transformers():
    q, k, v, a, beta, state = (t.float() for t in tokens(23))
    per_value_head = {"initial_state": state.flatten(1, 2), "output_final_state": True}
    given = (q, k, v.flatten(2, 3), a.flatten(2), beta.flatten(2))
    for form in (
        qwen3_next.torch_recurrent_gated_delta_rule,
        qwen3_next.torch_chunk_gated_delta_rule,
    ):
        want, last = form(*given, **per_value_head)
        got, end = deltanet_chunked(q * 4**-0.5, k, v, a, beta, state, 8)
        assert error(got.flatten(2, 3), want) < 1e-5
        assert error(end.flatten(1, 2), last) < 1e-5


def test_the_layer_is_that_of_transformers():
    module, ours, config = theirs()
    x = draw(2, 23, 16, dtype=torch.float32)
    assert error(ours(x), module(x)) < 1e-5
    mask = torch.ones(2, 23, dtype=torch.bool)
    mask[0, :4] = False
    assert error(ours(x, mask=mask), module(x, attention_mask=mask)) < 1e-5


def test_the_layer_with_a_cache_is_that_of_transformers():
    module, ours, config = theirs()
    x, cache = draw(2, 23, 16, dtype=torch.float32), DynamicCache(config=config)
    state = {s.name: torch.zeros(s.shape) for s in ours.spec.states(2, dtype="fp32")}
    for first, last in pairwise((0, 9, 10, 11, 23)):
        part = x[:, first:last]
        assert error(ours(part, state), module(part, cache_params=cache)) < 1e-5


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="n_v_heads is 3, expected a multiple of n_k_heads"):
        SPEC.but(n_v_heads=3)
