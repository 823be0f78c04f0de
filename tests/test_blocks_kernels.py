"""The scans are mamba_ssm's: its references agree with ours, and can take our place in a block."""

from unittest.mock import create_autospec

import pytest
import torch
import torch.nn.functional as F
from mamba_ssm_reference import reference

from cookbook_lib.blocks import kernels
from cookbook_lib.blocks.mamba1 import Mamba1
from cookbook_lib.blocks.mamba2 import Mamba2
from cookbook_lib.blocks.selective_scan import selective_scan_chunked, selective_scan_step
from cookbook_lib.blocks.short_conv import short_conv
from cookbook_lib.blocks.ssd import ssd_chunked, ssd_step
from cookbook_lib.blocks.trapezoid import total_angles, turned
from cookbook_lib.calculators import specs

MAMBA1 = specs.Mamba1(d_model=16, d_state=5)
MAMBA2 = specs.Mamba2(d_model=16, d_state=6, headdim=4, chunk_size=8, ngroups=2)
MODULES = {
    "mamba1": (Mamba1, MAMBA1),
    "several heads": (Mamba1, MAMBA1.but(nheads=2)),
    "mamba2": (Mamba2, MAMBA2),
}


def draw(*shape: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


def test_the_dual_is_ssd_minimal():
    """In float64, with a state to start from; it takes whole chunks and as many groups as heads."""
    minimal = reference("modules.ssd_minimal", "ssd_minimal_discrete")
    x, dt = draw(2, 24, 4, 5, dtype=torch.float64), draw(2, 24, 4, dtype=torch.float64).abs()
    A, (B, C) = -draw(4, dtype=torch.float64).abs(), draw(2, 2, 24, 4, 3, dtype=torch.float64)
    state = draw(2, 4, 5, 3, dtype=torch.float64)
    want, last = minimal(x * dt[..., None], A * dt, B, C, 8, state[:, None])
    got, end = ssd_chunked(x, dt, A, B, C, state, 6)
    assert error(got, want) < 1e-10
    assert error(end, last) < 1e-10


def test_the_selective_scan_is_selective_scan_ref():
    scan = reference("ops.selective_scan_interface", "selective_scan_ref")
    x, dt, A = draw(2, 23, 1, 7), draw(2, 23, 1, 7).abs(), -draw(1, 7, 3).abs()
    B, C = draw(2, 2, 23, 1, 3)
    want, last = scan(
        *(t[:, :, 0].mT for t in (x, dt)),
        A[0],
        B[:, :, 0].mT,
        C[:, :, 0].mT,
        return_last_state=True,
    )
    got, end = selective_scan_chunked(x, dt, A, B, C, torch.zeros(2, 1, 7, 3))
    assert error(got[:, :, 0].mT, want) < 1e-5
    assert error(end[:, 0], last) < 1e-5


def test_a_step_is_selective_state_update_ref():
    update = reference("ops.triton.selective_state_update", "selective_state_update_ref")
    x, dt, A = draw(2, 4, 5), draw(2, 4, 5).abs(), -draw(4, 5, 3).abs()
    (B, C), state = draw(2, 2, 4, 3), draw(2, 4, 5, 3)
    got, end = selective_scan_step(x, dt, A, B, C, state)
    held = state.clone()
    assert error(got, update(held, x, dt, A, B, C)) < 1e-5
    assert error(end, held) < 1e-5
    got, end = ssd_step(x, dt[..., 0], A[:, 0, 0], B[:, :2], C[:, :2], state)
    wide, held = (dt[..., :1].expand_as(dt), A[:, :1, :1].expand_as(A)), state.clone()
    assert error(got, update(held, x, *wide, B[:, :2], C[:, :2])) < 1e-5
    assert error(end, held) < 1e-5


def test_turns_are_those_of_mamba3():
    rotary = reference(
        "ops.triton.mamba3.mamba3_mimo_rotary_step", "apply_rotary_qk_inference_reference"
    )
    B, C, bias = draw(2, 3, 8), draw(2, 3, 9)[..., :8], draw(2, 1, 3, 8)
    before, angle, dt = draw(2, 3, 2), draw(2, 3, 3)[..., :2], draw(2, 3).abs()
    want = rotary(C[:, None], B[:, None], before, angle, dt, *bias)
    turn = torch.pi * angle.tanh() * dt[..., None]
    angles = total_angles(turn[:, None], before)
    got = (turned((t + b)[:, None], angles)[:, 0] for t, b in zip((C, B), bias, strict=True))
    for x, y in zip(got, want, strict=False):
        assert error(x, y[:, 0]) < 1e-5
    assert error(angles[:, 0].cos(), want[2].cos()) < 1e-5


def convolved(x, weight, bias=None, seq_idx=None, **_):
    """What causal_conv1d_fn says of itself: x (b d l), weight (d taps), none of other documents."""
    y = torch.zeros_like(x) if bias is None else bias[:, None].expand_as(x).clone()
    for t in range(x.shape[2]):
        for back in range(min(weight.shape[1], t + 1)):
            same = 1 if seq_idx is None else (seq_idx[:, t] == seq_idx[:, t - back])[:, None]
            y[:, :, t] += x[:, :, t - back] * weight[:, -1 - back] * same
    return y


@pytest.fixture
def on_a_gpu(monkeypatch) -> list[str]:
    """mamba_ssm's references, called as its kernels are declared; which were, in order."""
    minimal = reference("modules.ssd_minimal", "ssd_minimal_discrete")

    def combined(x, dt, A, B, C, chunk_size, initial_states=None, seq_idx=None, **_):
        l, r = x.shape[1], x.shape[2] // B.shape[2]
        B, C = (t.repeat_interleave(r, 2) for t in (B, C))
        x, a, B, C = (
            F.pad(t, (0, 0) * (t.ndim - 2) + (0, -l % chunk_size))
            for t in (x * dt[..., None], A * dt, B, C)
        )
        if initial_states is not None:
            initial_states = initial_states[:, None]
        y, last = minimal(x, a, B, C, chunk_size, initial_states)
        return y[:, :l], last

    stands_for = {
        "selective_scan_fn": reference("ops.selective_scan_interface", "selective_scan_ref"),
        "selective_state_update": reference(
            "ops.triton.selective_state_update", "selective_state_update_ref"
        ),
        "mamba_chunk_scan_combined": combined,
    }
    called = []

    def found(module: str, name: str, x: torch.Tensor):
        if name == "causal_conv1d_fn":
            called.append(name)
            return convolved
        declared = reference(module.removeprefix("mamba_ssm."), name)
        called.append(name)
        return create_autospec(declared, side_effect=stands_for[name])

    monkeypatch.setattr(kernels, "found", found)
    return called


@pytest.mark.parametrize("name", MODULES)
def test_a_block_is_the_same_with_kernels(name, request):
    module, spec = MODULES[name]
    torch.manual_seed(0)
    module, x = module(spec).requires_grad_(False), draw(2, 17, 16)

    def run() -> list[torch.Tensor]:
        state = {s.name: torch.zeros(s.shape) for s in spec.states(2, dtype="fp32")}
        ys = [module(x)] + [module(x[:, i:j], state) for i, j in ((0, 9), (9, 10), (10, 17))]
        return [*ys, *state.values()]

    want = run()
    called = request.getfixturevalue("on_a_gpu")
    for got, ours in zip(run(), want, strict=True):
        assert error(got, ours) < 1e-5
    scan = "mamba_chunk_scan_combined" if name == "mamba2" else "selective_scan_fn"
    assert set(called) == {"causal_conv1d_fn", scan, "selective_state_update"}


def test_the_convolution_is_the_same_with_its_kernel(monkeypatch):
    x, weight, bias = draw(2, 11, 8), draw(8, 1, 4), draw(8)
    seq_idx = torch.tensor([[0] * 4 + [1] * 7, [0] * 9 + [1] * 2])
    for idx in None, seq_idx:
        states = [draw(2, 8, 4) for _ in "12"]
        want = short_conv(x, weight, bias, states[0], idx)
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "found", lambda *_: convolved)
            assert error(short_conv(x, weight, bias, states[1], idx), want) < 1e-5
        assert torch.equal(*states)


def test_no_kernel_runs_on_a_cpu():
    assert kernels.found("mamba_ssm", "anything", torch.zeros(1)) is None


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODULES)
def test_a_block_on_a_gpu_is_that_on_a_cpu(name):
    """To within the TF32 products of the kernels, in values and in gradients of the weights."""
    pytest.importorskip("mamba_ssm.ops.selective_scan_interface")
    pytest.importorskip("causal_conv1d")
    module, spec = MODULES[name]
    torch.manual_seed(0)
    spec = spec.but(d_model=128, d_state=16, **({} if module is Mamba1 else {"headdim": 32}))
    here = module(spec)
    there = module(spec).cuda()
    there.load_state_dict(here.state_dict())
    x = draw(2, 100, 128)
    y, z = here(x), there(x.cuda())
    assert error(z.cpu(), y) < 1e-2
    y.square().sum().backward()
    z.square().sum().backward()
    for p, q in zip(here.parameters(), there.parameters(), strict=True):
        assert error(q.grad.cpu(), p.grad) < 3e-2
    states = [{s.name: torch.zeros(s.shape) for s in spec.states(2, dtype="fp32")} for _ in "12"]
    states[1] = {name: t.cuda() for name, t in states[1].items()}
    with torch.no_grad():
        for i, j in (0, 50), (50, 51), (51, 100):
            assert (
                error(there(x[:, i:j].cuda(), states[1]).cpu(), here(x[:, i:j], states[0])) < 1e-2
            )
