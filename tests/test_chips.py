"""Chips hold dense peaks with their source, and what is not stated is not guessed."""

import re

import pytest

from cookbook_lib.calculators.chips import CHIPS, Chip, chip

SPARSE = (1979e12, 624e12, 4500e12, 2614.9e12, 733e12)  # bf16 as printed with 2:4 sparsity


def test_the_bf16_rates_are_dense():
    assert not {c.flops for c in CHIPS.values()} & set(SPARSE)
    names = ("h100", "a100", "b200", "mi300x", "l40s")
    for name, sparse in zip(names, SPARSE, strict=True):
        assert chip(name).flops == pytest.approx(sparse / 2, rel=0.02)


def test_the_dense_rate_follows_from_cores_and_clock():
    """Tensor cores x FLOPs in a cycle x clock: the white papers' own derivation."""
    assert chip("h100").flops == pytest.approx(132 * 4096 * 1.83e9, rel=1e-3)
    assert chip("a100").flops == pytest.approx(108 * 2048 * 1.41e9, rel=1e-3)
    assert chip("rtx4090").flops == pytest.approx(128 * 512 * 2.52e9, rel=1e-3)
    assert chip("mi300x").flops == pytest.approx(304 * 2048 * 2.1e9, rel=1e-3)
    assert chip("m4max").flops == pytest.approx(40 * 256 * 1.8e9, rel=2e-3)
    assert chip("cpu").flops == 2 * 2 * 8 * 2 * 3e9


def test_the_bandwidth_follows_from_the_bus():
    """Bits of the bus / 8 x transfers a second."""
    assert chip("b200").bandwidth == pytest.approx(7680 / 8 * 2 * 3996e6, rel=1e-3)
    assert chip("rtx4090").bandwidth == 384 / 8 * 21e9
    assert chip("l40s").bandwidth == 384 / 8 * 18e9
    assert chip("m4max").bandwidth == pytest.approx(512 / 8 * 8.533e9, rel=1e-3)
    assert chip("phone").bandwidth == 64 / 8 * 9.6e9
    assert chip("cpu").bandwidth == 2 * 64 / 8 * 3.2e9


def test_fewer_bits_are_never_slower():
    for c in CHIPS.values():
        assert all(c.flops <= c.rate(dtype) for dtype in ("bf16", "fp8", "int8", "fp4", "int4"))
    assert chip("h100").rate("bf16") == chip("h100").rate("int4") == chip("h100").flops
    assert chip("b200").rate("fp4") == 4 * chip("b200").flops


def test_every_chip_names_its_source_and_its_date_or_what_is_estimated():
    for c in CHIPS.values():
        assert c.source and (re.search(r"\(20\d\d(-\d\d){0,2}\)", c.source) or c.estimate)


def test_rates_are_in_base_units():
    for c in CHIPS.values():
        assert 1e11 < c.flops < 1e16 and 1e10 < c.bandwidth < 1e14 and 1e10 <= c.memory < 1e12
        for rate in filter(None, (c.link, c.network)):
            assert 1e10 < rate < c.bandwidth


def test_memory_is_faster_than_links_and_links_than_the_network():
    for c in CHIPS.values():
        assert c.network is None or c.network < c.link
        assert (c.link is None) == (c.node == 1)


def test_an_unknown_chip_is_answered_with_the_list():
    with pytest.raises(ValueError, match="chip is 'h1000', expected one of b200, h200, h100, "):
        chip("h1000")
    assert chip("H100") is CHIPS["h100"]


def test_the_ridge_is_where_both_take_as_long():
    c = Chip(name="", flops=100.0, bandwidth=10.0, memory=1.0, source="")
    assert c.ridge == 10 and c.power is None and c.rate("fp8") == 100
