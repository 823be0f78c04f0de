"""Delta rules are flash-linear-attention's: its references agree, and can take the scans' place."""

from unittest.mock import create_autospec

import pytest
import torch
from fla_reference import declared, reference
from test_blocks_deltanet import SPEC as DELTANET
from test_blocks_deltanet import build as deltanet
from test_blocks_deltanet import draw, empty, error
from test_blocks_rwkv7 import SPEC as RWKV7
from test_blocks_rwkv7 import build as rwkv7

from cookbook_lib.blocks import kernels
from cookbook_lib.blocks.deltanet import deltanet_chunked
from cookbook_lib.blocks.wkv7 import rwkv7_chunked


def gated_delta(q, k, v, g, beta, scale, initial_state, output_final_state):
    """The kernel by its reference, which knows no value heads that share a key."""
    naive = reference("ops.gated_delta_rule.naive", "naive_recurrent_gated_delta_rule")
    q, k = (t.repeat_interleave(v.shape[2] // k.shape[2], 2) for t in (q, k))
    return naive(q, k, v, beta, g, scale, initial_state, output_final_state)


def replacing(r, w, k, v, a, b, scale, initial_state, output_final_state):
    """The kernel by the reference of its general form, which has heads before tokens."""
    naive = reference("ops.generalized_delta_rule.dplr.naive", "dplr_recurrence")
    r, w, k, v, a, b = (t.transpose(1, 2) for t in (r * scale * r.shape[-1] ** 0.5, w, k, v, a, b))
    y, last = naive(r, k, v, a, b, w, initial_state, output_final_state)
    return y.transpose(1, 2), last


STANDS_FOR = {
    "chunk_gated_delta_rule": ("ops.gated_delta_rule.chunk", gated_delta),
    "chunk_rwkv7": ("ops.rwkv7.chunk", replacing),
}
BLOCKS = {
    "chunk_gated_delta_rule": (deltanet, DELTANET),
    "chunk_rwkv7": (rwkv7, RWKV7),
}


@pytest.fixture
def on_a_gpu(monkeypatch) -> list[str]:
    """The references, called as the kernels are declared, in float32; which were, in order."""
    called = []

    def found(module: str, name: str, x: torch.Tensor):
        if name not in STANDS_FOR:
            return None
        called.append(name)
        source, stand_in = STANDS_FOR[name]
        return create_autospec(declared(source, name), side_effect=stand_in)

    monkeypatch.setattr(kernels, "found", found)
    monkeypatch.setattr(kernels, "HALF", (torch.float32,))
    return called


def test_the_gated_delta_rule_is_its_reference():
    """In float32, as the reference computes; value heads 2i and 2i + 1 share key head i."""
    q, k = draw(2, 2, 23, 3, 4).float()
    v, a, beta = draw(2, 23, 3, 2, 5).float(), -draw(2, 23, 3, 2).float().abs(), draw(2, 23, 3, 2)
    k, state = k / k.norm(dim=-1, keepdim=True), draw(2, 3, 2, 4, 5).float()
    beta = beta.float().sigmoid()
    flat = (v.flatten(2, 3), a.flatten(2, 3), beta.flatten(2, 3))
    want, last = gated_delta(q, k, *flat, 1.0, state.flatten(1, 2), True)
    y, end = deltanet_chunked(q, k, v, a, beta, state, 8)
    assert error(y.flatten(2, 3), want) < 1e-5 and error(end.flatten(1, 2), last) < 1e-5


def test_rwkv7_is_its_reference():
    r, k, v, kk = draw(4, 2, 23, 3, 4).float()
    w, a = -0.6 * draw(2, 23, 3, 4).float().sigmoid(), draw(2, 23, 3, 4).float().sigmoid()
    kk, state = kk / kk.norm(dim=-1, keepdim=True), draw(2, 3, 4, 4).float()
    want, last = replacing(r, w, k, v, -kk, kk * a, 1.0, state, True)
    y, end = rwkv7_chunked(r, w, k, v, kk, a, state, 8)
    assert error(y, want) < 1e-5 and error(end, last) < 1e-5


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_the_same_with_its_kernel(name, request):
    build, spec = BLOCKS[name]
    module, x = build().float(), draw(2, 17, spec.d_model).float()
    packed = torch.tensor([[0] * 9 + [1] * 8] * 2)

    def run() -> list[torch.Tensor]:
        state = {k: t.float() for k, t in empty(spec, 2).items()}
        ys = [module(x), module(x, seq_idx=packed)]
        ys += [module(x[:, i:j], state) for i, j in ((0, 9), (9, 10), (10, 17))]
        return [*ys, *state.values()]

    want = run()
    called = request.getfixturevalue("on_a_gpu")
    for got, ours in zip(run(), want, strict=True):
        assert error(got, ours) < 1e-5
    assert called == [name] * 3  # not for packed documents, and not for one token


@pytest.mark.gpu
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_on_a_gpu_is_that_on_a_cpu(name):
    pytest.importorskip("triton")
    build, spec = BLOCKS[name]
    here, x = build().bfloat16(), draw(2, 100, spec.d_model).bfloat16()
    want = here(x)
    assert error(here.cuda()(x.cuda()).cpu(), want) < 3e-2
