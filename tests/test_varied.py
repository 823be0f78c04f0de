"""A size of a model can be changed, and the products that change with it are all of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookbook_lib.calculators import presets, specs
from cookbook_lib.calculators.gemms import SMS, TILES, gemms, products
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.sizing import UNALIGNED, useful
from cookbook_lib.calculators.varied import SIZES, own, uses, varied, vary

ZAMBA2 = presets.preset("zamba2-2.7b")
VECTORS = {("mamba", "read"), ("rwkv7", "held"), ("mlstm", "between_norm"), ("gate", "weight")}


def vector(row):
    """A product with a vector, which fills no tile."""
    return (row.component, row.op) in VECTORS


@pytest.mark.parametrize("name", presets.names())
def test_the_products_of_a_model_are_all_its_matmuls(name):
    """But for a matrix that meets one vector: what reads a state or makes a gate of one number."""
    run = Run(b=2, l=300)
    for _, block in dict(presets.preset(name).layout).items():
        rows = [r for r in block.rows(run) if r.kind == "matmul" and not vector(r)]
        found = products(block, run)
        assert [g.op for g in found] == [r.op for r in rows]
        if not any(op.gather for op in block.ops(run)):  # experts are dealt out evenly, rounded up
            assert sum(g.flops for g in found) == sum(r.flops for r in rows)
        assert [g for g in found if g in gemms(block, run)] == gemms(block, run)


def test_attention_and_a_scan_hold_batched_products():
    attention = specs.Attention(d_model=64, n_heads=8, n_kv_heads=2, head_dim=16)
    scores, values = products(attention, Run(b=3, l=10, s=30))[3:5]
    assert scores[1:5] == (3 * 2, 4 * 10, 30, 16) and values[1:5] == (3 * 2, 4 * 10, 16, 30)
    scan = products(specs.Mamba2(d_model=64, d_state=32, headdim=16, chunk_size=20), Run(l=60))
    shapes = {g.op: g[1:5] for g in scan}
    assert shapes["scores"] == (3, 20, 20, 32) and shapes["within"] == (3 * 8, 20, 16, 20)
    assert shapes["chunk_state"] == (3, 32, 8 * 16, 20) and shapes["between"] == (3, 20, 128, 32)


@pytest.mark.parametrize("name", presets.names())
def test_a_model_with_its_own_sizes_is_itself(name):
    model = presets.preset(name)
    assert own(model, "d_model") == dict(model.layout)[model.before[0][0]].d_model
    assert vary(model, "d_model", own(model, "d_model")) == model


@pytest.mark.parametrize("size, value", [("nheads", 96), ("n_heads", 40), ("head_dim", 128)])
@pytest.mark.parametrize("name", ["zamba2-2.7b", "bamba-9b"])
def test_heads_change_where_they_are(name, size, value):
    changed = vary(presets.preset(name), size, value)
    assert own(changed, size) == value and changed.pattern == presets.preset(name).pattern


def test_what_a_spec_derives_follows_and_what_it_states_stays():
    wider = vary(ZAMBA2, "d_model", 2816)
    blocks = {type(block): block for _, block in wider.layout}
    assert blocks[specs.Mamba2].d_inner == 2 * 2816
    attention = blocks[specs.Attention]
    assert (attention.d_x, attention.d_q) == (2 * 2816, 32 * 160)
    assert blocks[specs.MLP].d_ff == 10240 and blocks[specs.Linear].d_out == 2816
    norms = {b.d_model for _, b in wider.layout if isinstance(b, specs.Norm)}
    assert norms == {2816, 2 * 2816}


def test_queries_share_keys_as_before():
    with pytest.raises(ValueError, match="n_heads is 34, expected a multiple of 4"):
        vary(presets.preset("llama-3.1-8b"), "n_heads", 34)
    changed = vary(presets.preset("llama-3.1-8b"), "n_heads", 36)
    assert own(changed, "n_heads") == 36
    (kv,) = {b.n_kv_heads for _, b in changed.layout if isinstance(b, specs.Attention)}
    assert kv == 9


@pytest.mark.parametrize("size", SIZES)
def test_what_does_not_change_is_left_out_and_nothing_else(size):
    run, value = Run(l=256), own(ZAMBA2, size)
    found = varied(ZAMBA2, size, [value, 2 * value], run)
    whole = {v: set(uses(vary(ZAMBA2, size, v), run)) for v in found}
    left = [whole[v] - set(found[v]) for v in found]
    assert left[0] == left[1] and all(set(found[v]) <= whole[v] for v in found)
    assert found[value] and not set(found[value]) & set(found[2 * value])


def test_a_size_that_no_block_has_is_named():
    with pytest.raises(ValueError, match="vary is 'nheads', which no block of Llama"):
        own(presets.preset("llama-3.1-8b"), "nheads")


def test_one_value_alone_keeps_every_product():
    (found,) = varied(ZAMBA2, "vocab", [32000], Run(l=64)).values()
    assert found == uses(ZAMBA2, Run(l=64))
    assert sum(use.flops for use in found) == sum(
        r.flops for r in ZAMBA2.rows(Run(l=64)) if r.kind == "matmul" and not vector(r)
    )


@given(st.integers(1, 9000), st.integers(1, 9000), st.sampled_from(sorted(SMS)))
def test_a_tiling_covers_the_product_in_whole_waves(m, n, chip):
    (product,) = gemms(specs.Linear(d_in=64, d_out=n), Run(l=m))
    best = product.tiling(SMS[chip])
    assert len(product.tilings(SMS[chip])) == len(TILES)
    rows, columns = best.tile
    assert best.tiles * rows * columns >= m * n and (best.waves - 1) * SMS[chip] < best.tiles
    assert best.waves * SMS[chip] >= best.tiles
    slow = UNALIGNED if n % 8 else 1
    assert useful(product, chip) == best.efficiency * slow
