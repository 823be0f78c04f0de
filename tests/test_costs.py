"""The einsum rules give the numbers that one counts by hand, and conventions keep their word."""

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookbook_lib.calculators import specs
from cookbook_lib.calculators.costs import State
from cookbook_lib.calculators.einsums import Op
from cookbook_lib.calculators.runs import Run

ATTENTION = specs.Attention(d_model=8, n_heads=4, n_kv_heads=2, head_dim=3)
MAMBA2 = specs.Mamba2(d_model=8, d_state=4, headdim=4, ngroups=2, chunk_size=4)


def row(spec, op: str, **run):
    return next(r for r in spec.costs(**run) if r.op == op)


def test_a_matmul_counts_twice_its_axes():
    r = row(specs.Linear(d_in=3, d_out=5), "weight", b=2, l=7)
    assert (r.params, r.flops, r.elements) == (15, 2 * 2 * 7 * 3 * 5, 2 * 7 * 3 + 15 + 2 * 7 * 5)
    assert (r.kind, r.formula) == ("matmul", "2 b l d_in d_out")


def test_an_elementwise_product_counts_once_and_a_lookup_not_at_all():
    assert row(specs.Norm(d_model=5), "weight", b=2, l=7).flops == 2 * 7 * 5
    table = row(specs.Embedding(vocab=11, d_model=5), "weight", b=2, l=7)
    assert (table.params, table.flops, table.kind) == (55, 0, "lookup")
    assert table.elements == 11 * 5 + 2 * 7 * 5  # 14 lookups can touch the whole table
    assert row(specs.Embedding(vocab=99, d_model=5), "weight", b=2, l=7).elements == 2 * 2 * 7 * 5


def test_what_follows_a_plus_is_added():
    r = Op("carry", "b l, b l d + b l d -> b l d").row(
        "x", "carry", {"b": 2, "l": 3, "d": 5}.get, False
    )
    assert r.flops == 2 * 2 * 3 * 5


def test_experts_are_stored_in_full_and_used_in_part():
    moe = specs.MoE(d_model=4, d_ff=6, n_experts=8, topk=2)
    assert moe.params() == 8 * (4 * 12 + 6 * 4) + 4 * 8
    assert moe.params_active() == 2 * (4 * 12 + 6 * 4) + 4 * 8
    up = row(moe, "experts.gate_up_proj", b=1, l=10)
    assert up.flops == 2 * 10 * 2 * 4 * 12
    one = row(moe, "experts.gate_up_proj", b=1, l=1)
    assert one.elements == 2 * 4 + 2 * 4 * 12 + 2 * 12  # two experts are read, not eight


@given(st.integers(1, 20), st.integers(0, 20), st.none() | st.integers(1, 25))
def test_causal_pairs_equal_those_of_the_mask(l, before, window):
    spec = ATTENTION.but(window=window)
    mask = [
        k <= q and (window is None or q - k < window)
        for q in range(before, before + l)
        for k in range(before + l)
    ]
    run = {"b": 3, "l": l, "s": before + l}
    assert row(spec, "scores", **run, attention="causal").flops == 2 * 3 * 4 * 3 * sum(mask)
    held = l + (before if window is None else min(before, window - 1))
    assert row(spec, "scores", **run).flops == 2 * 3 * 4 * 3 * l * held


def test_a_window_keeps_one_token_less():
    k, v = ATTENTION.but(window=5).states(b=2, s=100)
    assert k == State("k", "kv", (2, 2, 4, 3), "bf16") and v.nbytes == 2 * 2 * 4 * 3 * 2
    assert ATTENTION.but(window=5).state_bytes(s=3) == ATTENTION.state_bytes(s=3)


def test_mamba2_in_chunks_costs_what_ssd_multiplies():
    b, l, c, q, g, h, p, n = 2, 10, 3, 4, 2, 4, 4, 4
    want = {
        "scores": 2 * b * c * g * q * q * n,
        "within": 2 * b * c * h * q * q * p,
        "chunk_state": 2 * b * c * h * q * p * n,
        "between": 2 * b * c * h * q * p * n,
    }
    assert {k: row(MAMBA2, k, b=b, l=l).flops for k in want} == want


def test_one_token_recurs_and_more_do_when_asked():
    ops = [r.op for r in MAMBA2.costs(l=1)]
    assert {"write", "carry", "read"} < set(ops) and "scores" not in ops
    one, many = (sum(r.flops for r in MAMBA2.costs(l=l, scan="recurrent")) for l in (1, 9))
    assert many == 9 * one


def test_the_last_logits_cost_one_position():
    head = specs.Head(d_model=4, vocab=9)
    assert head.flops(b=2, l=5, logits="last") * 5 == head.flops(b=2, l=5)


def test_states_have_the_frameworks_dtypes():
    kinds = {s.kind: s.dtype for s in MAMBA2.states(dtype="bf16")}
    assert kinds == {"conv": "bf16", "ssm": "fp32"}
    assert {s.dtype for s in MAMBA2.but(ssm_dtype="").states(dtype="fp16")} == {"fp16"}
    assert State("k", "kv", (3,), "int4").nbytes == 2  # one and a half bytes need two


def test_backward_is_twice_forward_and_recomputing_adds_one():
    run = {"b": 2, "l": 8}
    f = MAMBA2.flops(**run)
    assert (MAMBA2.backward_flops(**run), MAMBA2.step_flops(**run)) == (2 * f, 3 * f)
    assert MAMBA2.step_flops(recompute=True, **run) == 4 * f


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: specs.Linear(d_in=0, d_out=3), "d_in is 0"),
        (lambda: specs.Norm(d_model=-4), "d_model is -4"),
        (
            lambda: ATTENTION.but(n_kv_heads=3),
            "n_heads is 4, expected a multiple of n_kv_heads (3)",
        ),
        (lambda: specs.Mamba1(d_model=5, nheads=3), "d_inner is 10, expected a multiple of nheads"),
        (lambda: MAMBA2.but(headdim=5), "d_inner is 16, expected a multiple of headdim (5)"),
        (lambda: specs.MoE(d_model=4, d_ff=4, n_experts=2, topk=3), "topk is 3"),
        (lambda: ATTENTION.but(gated=True, fused=True), "gated is True, expected False if q, k"),
        (lambda: specs.RGLRU(d_model=9, n_heads=2), "d_inner is 9, expected a multiple of n_h"),
        (lambda: specs.MLSTM(d_model=4, n_heads=4, d_qk=6, d_v=8), "d_qk is 6, expected a mult"),
        (lambda: Run(l=8, s=4), "s is 4, expected at least l (8)"),
        (lambda: Run(b=0), "b is 0"),
        (lambda: Run(attention="sparse"), "attention is 'sparse', expected one of dense, causal"),
        (lambda: MAMBA2.states(dtype="bf17"), "dtype is 'bf17', expected one of fp64"),
    ],
)
def test_nonsense_is_refused_with_its_name_and_value(make, words):
    with pytest.raises(ValueError, match="^" + re.escape(words)) as error:
        make()
    assert "\n" not in str(error.value)


def test_importing_the_calculators_loads_only_the_standard_library():
    program = (
        "import sys; before = set(sys.modules); import cookbook_lib.calculators.presets, "
        "cookbook_lib.calculators.configs, cookbook_lib.calculators.report\n"
        "names = {m.split('.')[0] for m in set(sys.modules) - before} - {'cookbook_lib'}\n"
        "print(sorted(n for n in names if n not in sys.stdlib_module_names))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
