"""Mamba-1, 2 and 3 step as they scan, leak nothing and stay finite; 1 and 2 are transformers'."""

from dataclasses import fields
from itertools import pairwise

import pytest
import torch
from transformers import AutoConfig
from transformers.cache_utils import DynamicCache
from transformers.models.bamba.modeling_bamba import BambaMixer
from transformers.models.falcon_h1.modeling_falcon_h1 import FalconH1Mixer
from transformers.models.falcon_mamba.modeling_falcon_mamba import FalconMambaMixer
from transformers.models.jamba.modeling_jamba import JambaMambaMixer
from transformers.models.mamba.modeling_mamba import MambaMixer
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHMamba2Mixer
from transformers.models.zamba.modeling_zamba import ZambaMambaMixer
from transformers.models.zamba2.modeling_zamba2 import Zamba2MambaMixer

from cookbook_lib.blocks.mamba1 import Mamba1
from cookbook_lib.blocks.mamba2 import Mamba2
from cookbook_lib.blocks.mamba3 import Mamba3
from cookbook_lib.blocks.ssm_parts import draw_dt_bias
from cookbook_lib.calculators import specs

MAMBA1 = specs.Mamba1(d_model=16, d_state=5)
MAMBA2 = specs.Mamba2(d_model=16, d_state=6, headdim=4, chunk_size=8)
MAMBA3 = specs.Mamba3(d_model=16, d_state=8, headdim=4, chunk_size=8)
HEADS = (
    ("x_proj.weight", "x_proj_weight"),
    ("dt_proj.weight", "dt_proj_weight"),
    ("dt_proj.bias", "dt_proj_bias"),
)
SPECS = {
    "mamba1": (MAMBA1, Mamba1),
    "several heads": (MAMBA1.but(nheads=2, names=HEADS), Mamba1),
    "norms": (MAMBA1.but(dt_norm=True, bias=True, conv_bias=False), Mamba1),
    "mamba2": (MAMBA2, Mamba2),
    "groups": (MAMBA2.but(ngroups=4, norm=False, bias=True), Mamba2),
    "mamba3": (MAMBA3, Mamba3),
    "groups of mamba3": (MAMBA3.but(ngroups=2, norm=True, rope_fraction=1.0), Mamba3),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """So small are these tensors that threads wait for each other more than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(*shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


def stir(module: torch.nn.Module) -> torch.nn.Module:
    """Move every weight, so that none is where it would not matter: at 0 or 1."""
    torch.manual_seed(1)
    for p in module.requires_grad_(False).parameters():
        p.add_(0.2 * torch.randn_like(p))
    return module


def build(name: str) -> torch.nn.Module:
    spec, module = SPECS[name]
    torch.manual_seed(0)
    return stir(module(spec).double())


def empty(module, b: int, dtype=torch.float64) -> dict[str, torch.Tensor]:
    return {x.name: torch.zeros(x.shape, dtype=dtype) for x in module.spec.states(b)}


@pytest.fixture(params=SPECS)
def module(request) -> torch.nn.Module:
    return build(request.param)


@pytest.mark.parametrize("cuts", [range(24), (0, 9, 10, 23), (0, 1, 23)])
def test_steps_with_a_state_are_the_chunked_form(module, cuts):
    x, state = draw(2, 23, 16), empty(module, 2)
    storage = {name: t.data_ptr() for name, t in state.items()}
    ys = [module(x[:, first:last], state) for first, last in pairwise(cuts)]
    assert error(torch.cat(ys, 1), module(x)) < 1e-10
    assert {name: t.data_ptr() for name, t in state.items()} == storage
    whole = empty(module, 2)
    module(x, whole)
    for name in state:
        assert error(state[name], whole[name]) < 1e-10


def test_a_state_keeps_no_graph(module):
    """It outlives the call: what it held on to would pile up."""
    state = empty(module, 1)
    y = module.requires_grad_()(draw(1, 9, 16), state)
    assert y.requires_grad and not any(t.requires_grad for t in state.values())


def test_no_token_sees_those_after_it(module):
    x, changed = draw(1, 12, 16), draw(1, 12, 16)
    changed[:, 7:] += 1
    y, other = module(x), module(changed)
    assert error(other[:, :7], y[:, :7]) < 1e-10
    assert not torch.isclose(y[:, 7:], other[:, 7:]).all(-1).any()


@pytest.mark.parametrize("cut", [1, 8, 11, 19])
def test_packed_documents_do_not_leak(module, cut):
    x = draw(2, 20, 16)
    seq_idx = torch.tensor([[0] * cut + [1] * (20 - cut), [0] * 6 + [1] * 3 + [2] * 11])
    y = module(x, seq_idx=seq_idx)
    for row, cuts in enumerate([(0, cut, 20), (0, 6, 9, 20)]):
        for first, last in pairwise(cuts):
            want = module(x[row : row + 1, first:last])
            assert error(y[row : row + 1, first:last], want) < 1e-10


def test_an_initial_state_belongs_to_the_first_document(module):
    x, state = draw(1, 20, 16), empty(module, 1)
    seq_idx = torch.tensor([[0] * 12 + [1] * 8])
    want = torch.cat([module(x[:, :12]), module(x[:, 12:])], 1)
    first = module(x[:, :5], state)
    got = torch.cat([first, module(x[:, 5:], state, seq_idx=seq_idx[:, 5:])], 1)
    assert error(got, want) < 1e-10


def test_left_padding_changes_nothing(module):
    x, state = draw(2, 12, 16), empty(module, 2)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, :5] = False
    y = torch.cat([module(x[:, :9], state, mask=mask[:, :9]), module(x[:, 9:], state)], 1)
    assert error(y[:1], module(x[:1])) < 1e-10
    assert error(y[1:, 5:], module(x[1:, 5:])) < 1e-10


def test_gradients(module):
    small = {"d_model": 4, "d_state": 4, "chunk_size": 2, "headdim": 2, "dt_rank": 2, "d_conv": 2}
    small = {f.name: small[f.name] for f in fields(module.spec) if f.name in small}
    torch.manual_seed(0)
    module = type(module)(module.spec.but(**small)).double()
    x = draw(1, 5, 4).requires_grad_()
    inputs = (x, *module.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: module(x), inputs, fast_mode=True)


@pytest.mark.parametrize("kind", ["mamba1", "mamba2", "mamba3"])
def test_bf16_is_stable_at_32k_tokens_with_large_steps(kind):
    spec, make = SPECS[kind]
    wide = {"d_model": 8} | ({"chunk_size": 64} if kind != "mamba1" else {})
    torch.manual_seed(0)
    module = make(spec.but(**wide)).bfloat16()
    bias = module.weight("dt_proj.bias") if kind == "mamba1" else module.dt_bias
    with torch.no_grad():
        bias.copy_(torch.linspace(-6, 40, len(bias)))  # hardly any step, and nothing left
    y = module((10 * draw(1, 32768, 8)).bfloat16())
    y.float().square().mean().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_bf16_is_near_float32(module):
    x, rounded = draw(1, 300, 16).bfloat16(), module.bfloat16()
    low = rounded(x).double()
    assert error(low, rounded.double()(x.double())) < 0.05


def test_time_steps_start_between_their_bounds():
    dt = torch.nn.functional.softplus(draw_dt_bias(4, 1000))
    assert 1e-3 * 0.99 < dt.min() < 1.1e-3 and 0.09 < dt.max() < 0.1 * 1.01


WIDE = {"hidden_size": 16, "num_hidden_layers": 3}
NAMED = {"mamba_d_state": 6, "mamba_n_heads": 8, "mamba_d_head": 4, "mamba_chunk_size": 8}
MAMBAS = {  # what transformers calls it, its mixer, its sizes; ours and its options
    "mamba": (MambaMixer, {"state_size": 5}, Mamba1, MAMBA1, {}),
    "mamba with biases": (
        MambaMixer,
        {"state_size": 5, "use_bias": True, "use_conv_bias": False, "time_step_rank": 3},
        Mamba1,
        MAMBA1.but(bias=True, conv_bias=False, dt_rank=3),
        {},
    ),
    "falcon_mamba": (
        FalconMambaMixer,
        {"state_size": 5, "intermediate_size": 32, "mixer_rms_eps": 1e-3},
        Mamba1,
        MAMBA1,
        {"eps": 1e-3, "plain_norms": True},
    ),
    "jamba": (
        JambaMambaMixer,
        {"mamba_d_state": 5, "mamba_dt_rank": 2, "rms_norm_eps": 1e-3},
        Mamba1,
        MAMBA1.but(dt_norm=True, dt_rank=2),
        {"eps": 1e-3},
    ),
    "zamba": (
        ZambaMambaMixer,
        {"mamba_d_state": 5, "n_mamba_heads": 2, "mamba_dt_rank": 3},
        Mamba1,
        MAMBA1.but(nheads=2, dt_rank=3, names=HEADS),
        {},
    ),
    "zamba of one head": (
        ZambaMambaMixer,
        {"mamba_d_state": 5, "n_mamba_heads": 1, "mamba_dt_rank": 3},
        Mamba1,
        MAMBA1.but(dt_rank=3, names=HEADS),
        {"interleaved": True},
    ),
    "mamba2": (
        Mamba2Mixer,
        {"state_size": 6, "num_heads": 8, "head_dim": 4, "n_groups": 2, "chunk_size": 16}
        | {"use_bias": True, "layer_norm_epsilon": 1e-3, "time_step_limit": (0.01, 0.3)},
        Mamba2,
        MAMBA2.but(ngroups=2, bias=True),
        {"eps": 1e-3, "dt_limit": (0.01, 0.3)},
    ),
    "zamba2": (
        Zamba2MambaMixer,
        {"mamba_d_state": 6, "n_mamba_heads": 8, "mamba_ngroups": 2, "chunk_size": 4}
        | {"num_attention_heads": 4, "layers_block_type": ["mamba"] * 3, "time_step_min": 0.2},
        Mamba2,
        MAMBA2.but(ngroups=2),
        {"dt_limit": (0.2, torch.inf)},
    ),
    "bamba": (BambaMixer, NAMED | {"mamba_n_groups": 2}, Mamba2, MAMBA2.but(ngroups=2), {}),
    "nemotron_h": (
        NemotronHMamba2Mixer,
        {"ssm_state_size": 6, "mamba_num_heads": 8, "mamba_head_dim": 4, "n_groups": 4}
        | {"chunk_size": 8, "layers_block_type": ["mamba"] * 3},
        Mamba2,
        MAMBA2.but(ngroups=4),
        {"dt_limit": (1e-3, torch.inf)},
    ),
    "falcon_h1": (
        FalconH1Mixer,
        NAMED | {"mamba_n_groups": 2, "mamba_d_ssm": 32, "mamba_rms_norm": False},
        Mamba2,
        MAMBA2.but(ngroups=2, norm=False),
        {},
    ),
    "falcon_h1 with a norm": (
        FalconH1Mixer,
        NAMED
        | {"mamba_n_groups": 2, "mamba_d_ssm": 32, "mamba_rms_norm": True}
        | {"mamba_norm_before_gate": True},
        Mamba2,
        MAMBA2.but(ngroups=2),
        {"norm_before_gate": True},
    ),
}


def beside(name: str):
    """The mixer of transformers, ours with its weights, and the config."""
    mixer, sizes, make, spec, options = MAMBAS[name]
    config = AutoConfig.for_model(name.split()[0], **(WIDE | sizes))
    own = {"initialize_mixer_weights": False} if mixer is FalconMambaMixer else {}
    theirs = mixer(config, layer_idx=0, **own).eval().requires_grad_(False)
    torch.manual_seed(2)
    for p in theirs.parameters():
        p.normal_(std=0.5)
    if mixer is FalconH1Mixer:  # its model sets the multipliers, all 1 by default
        theirs.mup_vector = torch.ones(theirs.in_proj.out_features)
    ours = make(spec, **options).requires_grad_(False)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours, config


@pytest.mark.parametrize("name", MAMBAS)
def test_the_mixer_is_that_of_transformers(name):
    theirs, ours, _ = beside(name)
    x = draw(2, 37, 16, dtype=torch.float32)
    assert error(ours(x), theirs(x)) < 1e-5
    if not ours.spec.bias:  # transformers masks what goes into in_proj, not what comes out
        mask = torch.ones(2, 37, dtype=torch.bool)
        mask[0, :9] = False
        want = theirs(x, attention_mask=mask)
        assert error(ours(x, mask=mask)[mask], want[mask]) < 1e-5


@pytest.mark.parametrize("name", ["mamba", "jamba", "zamba", "bamba", "falcon_h1"])
def test_the_mixer_with_a_cache_is_that_of_transformers(name):
    theirs, ours, config = beside(name)
    x, cache = draw(2, 23, 16, dtype=torch.float32), DynamicCache(config=config)
    state = empty(ours, 2, torch.float32)
    for first, last in pairwise((0, 9, 10, 11)):
        part = x[:, first:last]
        assert error(ours(part, state), theirs(part, cache_params=cache)) < 1e-5


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="rope_fraction is 0.3, expected 0.5 or 1.0"):
        MAMBA3.but(rope_fraction=0.3)
    with pytest.raises(ValueError, match="d_state is 2, expected at least 4"):
        MAMBA3.but(d_state=2)
    with pytest.raises(ValueError, match="nheads is 8, expected a multiple of ngroups"):
        MAMBA2.but(ngroups=3)
