"""Gated DeltaNet and RWKV-7 keep one state, however a sequence is cut, packed or padded."""

from itertools import pairwise

import pytest
import torch
from test_blocks_deltanet import SPEC as DELTANET
from test_blocks_deltanet import build as deltanet
from test_blocks_deltanet import draw, empty, error
from test_blocks_rwkv7 import SPEC as RWKV7
from test_blocks_rwkv7 import build as rwkv7


@pytest.fixture(params=[(DELTANET, deltanet), (RWKV7, rwkv7)], ids=["deltanet", "rwkv7"])
def block(request):
    """A spec of width 16 and its module."""
    spec, build = request.param
    return spec, build()


@pytest.mark.parametrize("cuts", [range(24), (0, 9, 10, 23), (0, 23)])
def test_steps_with_a_state_are_the_chunked_form(block, cuts):
    spec, module = block
    x, state = draw(2, 23, 16), empty(spec, 2)
    storage = {name: t.data_ptr() for name, t in state.items()}
    ys = [module(x[:, first:last], state) for first, last in pairwise(cuts)]
    assert error(torch.cat(ys, 1), module(x)) < 1e-10
    assert {name: t.data_ptr() for name, t in state.items()} == storage
    whole = empty(spec, 2)
    module(x, whole)
    for name in state:
        assert error(state[name], whole[name]) < 1e-10


@pytest.mark.parametrize("cut", [1, 8, 11, 19])
def test_packed_documents_do_not_leak(block, cut):
    spec, module = block
    x = draw(2, 20, 16)
    seq_idx = torch.tensor([[0] * cut + [1] * (20 - cut), [0] * 6 + [1] * 3 + [2] * 11])
    state = empty(spec, 2)
    y = module(x, state, seq_idx=seq_idx)
    for row, cuts in enumerate([(0, cut, 20), (0, 6, 9, 20)]):
        own = None
        for first, last in pairwise(cuts):
            own = empty(spec, 1)
            want = module(x[row : row + 1, first:last], own)
            assert error(y[row : row + 1, first:last], want) < 1e-10
        assert error(state["ssm"][row : row + 1], own["ssm"]) < 1e-10


def test_an_initial_state_belongs_to_the_first_document(block):
    spec, module = block
    x, state = draw(1, 20, 16), empty(spec, 1)
    seq_idx = torch.tensor([[0] * 12 + [1] * 8])
    want = torch.cat([module(x[:, :12]), module(x[:, 12:])], 1)
    first = module(x[:, :5], state)
    got = torch.cat([first, module(x[:, 5:], state, seq_idx=seq_idx[:, 5:])], 1)
    assert error(got, want) < 1e-10


def test_left_padding_changes_nothing(block):
    spec, module = block
    x, state = draw(2, 12, 16), empty(spec, 2)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, :5] = False
    y = torch.cat([module(x[:, :9], state, mask=mask[:, :9]), module(x[:, 9:], state)], 1)
    assert error(y[:1], module(x[:1])) < 1e-10
    assert error(y[1:, 5:], module(x[1:, 5:])) < 1e-10
