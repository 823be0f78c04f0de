"""The roofline's two bounds are the byte counts one adds up by hand, and lie in order."""

import pytest

from cookbook_lib.calculators import specs
from cookbook_lib.calculators.chips import CHIPS, Chip
from cookbook_lib.calculators.hardware import roofline
from cookbook_lib.calculators.runs import Run

CHIP = Chip(name="test", flops=100.0, bandwidth=10.0, memory=1.0, source="made for this test")
ATTENTION = specs.Attention(d_model=8, n_heads=4, n_kv_heads=2, head_dim=3)


def test_one_linear():
    run, linear = Run(b=2, l=3), specs.Linear(d_in=5, d_out=7)
    bound = roofline(linear, CHIP, run)
    nbytes = 2 * (2 * 3 * 5 + 5 * 7 + 2 * 3 * 7)
    assert (bound.flops, bound.eager_bytes, bound.fused_bytes) == (420, nbytes, nbytes)
    assert bound.eager == bound.fused == max(4.2, nbytes / 10)


def test_decoding_attention_reads_its_cache_and_weights():
    bound = roofline(ATTENTION, CHIP, Run(b=1, l=1, s=100))
    weights, one = ATTENTION.params(), 2 * 2 * 3  # K and V of one token
    assert bound.fused_bytes == 2 * (weights + 8 + 8) + 2 * one * (99 + 1)


def test_few_tokens_read_few_experts():
    moe = specs.MoE(d_model=8, d_ff=16, n_experts=64, topk=2)
    read = [roofline(moe, CHIP, Run(l=l)).fused_bytes - 2 * 2 * 8 * l for l in (1, 1000)]
    assert read == pytest.approx([2 * moe.params_active(), 2 * moe.params()])


def test_fusing_never_costs_time():
    for chip in CHIPS.values():
        for run in (Run(l=1, s=4096), Run(b=4, l=512), Run(l=4096)):
            for spec in (ATTENTION, specs.Mamba1(d_model=64), specs.Mamba2(d_model=64)):
                bound = roofline(spec, chip, run)
                assert 0 < bound.fused <= bound.eager
