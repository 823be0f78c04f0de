"""Serving's bytes are those one adds up by hand, what fits is what counting up finds, and the
bounds lie around what was measured."""

from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import build
from transformers import AutoConfig

from cookbook_lib.calculators import specs
from cookbook_lib.calculators.chips import CHIPS, chip
from cookbook_lib.calculators.configs import from_dict
from cookbook_lib.calculators.hardware import roofline
from cookbook_lib.calculators.presets import entry, names, preset
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.serving import Serving, largest, serving_report
from cookbook_lib.calculators.storage import FORMATS, Storage, picked

D, FF, VOCAB = 8, 16, 32
TINY = from_dict(
    {
        "model_type": "llama",
        "hidden_size": D,
        "intermediate_size": FF,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": VOCAB,
    },
    "tiny",
)
PRODUCTS = 2 * (D * D + 2 * D * D // 2 + D * D + 3 * D * FF)  # of both layers
NORMS, TABLES = 5 * D, 2 * VOCAB * D
CHIP = replace(CHIPS["cpu"], memory=6e4)
STEADY = settings(max_examples=12, deadline=None, derandomize=True, database=None)


def test_four_bits_take_more_than_four():
    sizes = {name: FORMATS[name].mean for name in FORMATS}
    assert sizes["int4"] == 4 + 16 / 128 and sizes["int4-g64"] == 4.25
    assert sizes["int4-g32"] == 18 * 8 / 32  # llama.cpp's block_q4_0 has 18 bytes
    assert sizes["nvfp4"] == 4.5 and sizes["mxfp4"] == 4.25
    assert [sizes[k] for k in ("fp32", "bf16", "fp8")] == [32, 16, 8]


def test_only_large_products_are_quantised():
    few = Storage(weights="int4-g32")
    assert few.weights_nbytes(TINY) == PRODUCTS * 4.5 / 8 + 2 * (NORMS + TABLES)
    all_few = Storage(weights="int4-g32", embed="int4-g32")
    assert all_few.weights_nbytes(TINY) == (PRODUCTS + TABLES) * 4.5 / 8 + 2 * NORMS
    mamba = specs.Mamba2(d_model=64)
    products = 64 * mamba.d_in_proj + 64 * mamba.d_inner
    rest = mamba.params() - products
    assert few.weights_nbytes(mamba) == products * 4.5 / 8 + 2 * rest


@pytest.mark.parametrize("name", ("zamba2-1.2b", "phi-1.5", "llama-3.1-8b", "mamba2-130m"))
def test_bf16_weights_are_the_bytes_of_transformers(name):
    config = dict(entry(name)["config"])
    module = build(AutoConfig.for_model(config.pop("model_type"), **config))
    assert Storage().weights_nbytes(preset(name)) == sum(p.nbytes for p in module.parameters())


def test_an_ssm_keeps_its_state_where_keys_and_values_get_fewer_bits():
    model, few = preset("zamba2-2.7b"), Storage(cache="int4-g64")
    kinds = {k: model.state_bytes(k, b=3, s=100) for k in ("kv", "conv", "ssm")}
    assert Storage().states_nbytes(model, 3, 100) == sum(kinds.values())
    assert (
        few.states_nbytes(model, 3, 100) == kinds["kv"] * 4.25 / 16 + kinds["conv"] + kinds["ssm"]
    )
    half = Storage(ssm="bf16").states_nbytes(model, 3, 100)
    assert half == kinds["kv"] + kinds["conv"] + kinds["ssm"] / 2


@STEADY
@given(experts=st.integers(1, 4), topk=st.integers(1, 3), tokens=st.integers(1, 3))
def test_experts_read_are_the_mean_over_every_routing(experts, topk, tokens):
    topk = min(topk, experts)
    choices = list(combinations(range(experts), topk))
    read = [len(set().union(*routing)) for routing in product(choices, repeat=tokens)]
    moe = specs.MoE(d_model=4, d_ff=4, n_experts=experts, topk=topk)
    run = Run(b=1, l=tokens)
    op = next(op for op in moe.ops(run) if op.gather)
    assert picked(op, moe.size(run)) * experts == pytest.approx(Fraction(sum(read), len(read)))


def test_decoding_reads_weights_cache_and_one_row_of_the_embedding():
    b, s = 3, 11
    bound = roofline(TINY, CHIP, Run(b=b, l=1, s=s))
    weights = 2 * (PRODUCTS + NORMS + VOCAB * D + b * D)
    cache = 2 * 2 * 2 * (D // 2) * s * b  # layers, k and v, bytes: read s - 1, write 1
    # in and out of each block: embedding (out), 5 norms, 2 attentions, 2 MLPs; the head
    passed = 2 * b * (D + 9 * 2 * D + D + VOCAB)
    assert bound.fused_bytes == weights + cache + passed
    assert bound.intensity == bound.flops / bound.fused_bytes


def test_a_prompt_computes_what_the_mask_keeps_and_one_row_of_logits():
    prefill = Serving(model=TINY, chip=CHIP).prefill(2, 7)
    assert prefill.flops == TINY.flops(b=2, l=7, attention="causal", logits="last")
    layers = (2 * PRODUCTS + NORMS + 2 * FF) * 2 * 7 + 2 * 2 * (2 * 2 * D * 7 * 8 // 2)
    assert prefill.flops == layers + 2 * 2 * D * VOCAB


@STEADY
@given(
    memory=st.integers(3000, 5000),  # the weights take 3408, a token 32 in bf16
    n=st.integers(1, 9),
    cache=st.sampled_from(("bf16", "fp8", "int4")),
)
def test_what_fits_is_what_counting_up_finds(memory, n, cache):
    small = replace(CHIP, memory=float(memory))
    serving = Serving(model=TINY, chip=small, store=Storage(cache=cache), usable=1)
    batches = [serving.fits(b, n) for b in range(1, 300)]
    contexts = [serving.fits(n, s) for s in range(1, 300)]
    assert serving.largest_batch(n) == sum(batches)
    assert serving.longest_context(n) == sum(contexts)
    assert batches == sorted(batches, reverse=True) and not batches[-1]


@STEADY
@given(st.integers(0, 10**6))
def test_the_search_finds_the_last_that_fits(most):
    assert largest(lambda n: n <= most) == most


def test_a_model_without_a_growing_cache_has_no_longest_context():
    assert Serving(model=preset("mamba2-2.7b"), chip=chip("h100")).longest_context(1) is None
    assert Serving(model=preset("zamba2-2.7b"), chip=chip("h100")).longest_context(1)


def test_the_time_for_a_token_is_the_mean_over_the_output():
    serving = Serving(model=preset("zamba2-2.7b"), chip=chip("h100"))
    report = serving_report(serving, batch=4, prompt=1000, output=64)
    each = [serving.decode(4, 1000 + n).fused for n in range(1, 64)]
    assert report["tpot_fused"] == pytest.approx(mean(each), rel=1e-9)
    assert report["seconds_fused"] == pytest.approx(report["ttft_fused"] + sum(each))
    assert report["decode_tokens_per_second"] == pytest.approx(4 / mean(each))


def test_fewer_bits_are_never_slower_nor_larger():
    for name in ("zamba2-1.2b", "olmoe-1b-7b-0924"):
        stores = [Storage(weights=f, cache=f, embed=f) for f in ("bf16", "fp8", "int4")]
        servings = [Serving(model=preset(name), chip=chip("h100"), store=s) for s in stores]
        bounds = [serving.decode(8, 4096) for serving in servings]
        assert bounds[0].fused > bounds[1].fused > bounds[2].fused
        assert servings[0].largest_batch(4096) < servings[2].largest_batch(4096)
        assert bounds[0].flops == bounds[2].flops


def test_every_model_lies_between_its_bounds_on_every_chip():
    for name in names():
        for device in ("h100", "cpu"):
            serving = Serving(model=preset(name), chip=chip(device))
            for bound in (serving.prefill(1, 512), serving.decode(2, 512)):
                assert 0 < max(bound.math, bound.memory) <= bound.fused * (1 + 1e-9)
                assert bound.fused <= bound.eager


def test_arithmetic_in_fewer_bits_speeds_up_a_prompt_and_not_attention():
    model = preset("llama-3.1-8b")
    plain, fast = (
        Serving(model=model, chip=chip("h100"), store=Storage(compute=c)).prefill(1, 4096)
        for c in ("bf16", "fp8")
    )
    rows = model.costs(l=4096, attention="causal", logits="last")
    attention = sum(r.flops for r in rows if not r.params) / chip("h100").flops
    assert fast.math - attention == pytest.approx((plain.math - attention) / 2, rel=1e-3)


def test_measured_times_lie_above_the_bound_and_near_it():
    """Zamba2-1.2B on an RTX 4090: a step of decoding in 4.86 ms, 1024 tokens of prompt in 25.5 ms,
    as reported."""
    serving = Serving(model=preset("zamba2-1.2b"), chip=chip("rtx4090"))
    step, prompt = serving.decode(1, 1025), serving.prefill(1, 1024)
    assert 0.7 * 4.86e-3 < step.fused < 4.86e-3
    assert prompt.fused < 25.5e-3 < prompt.eager


def test_what_does_not_fit_says_by_how_much():
    serving = Serving(model=preset("llama-3.1-8b"), chip=chip("rtx4090"))
    with pytest.raises(ValueError, match=r"needs 54.7 GB, 33.1 GB more than the 90% of 24 GB"):
        serving_report(serving, batch=64, prompt=4096, output=512)
    with pytest.raises(ValueError, match="prompt is 0, expected a whole number above 0"):
        serving_report(serving, batch=1, prompt=0, output=1)
    with pytest.raises(ValueError, match="usable is 0, expected a part of the memory"):
        Serving(model=TINY, chip=CHIP, usable=0)
    with pytest.raises(ValueError, match="weights is 'int3', expected one of fp32, bf16, fp16"):
        Storage(weights="int3")
    assert serving.largest_batch(10**9) == 0
