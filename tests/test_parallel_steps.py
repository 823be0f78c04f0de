"""A step that is spread over ranks gives what the whole layer gives, and sends what is counted."""

import pytest

from cookbook_lib.benchmarks.parallel_steps import LAYERS, parallel_steps, predicted
from cookbook_lib.communication.launch import launch

WAYS = [(layer, way) for layer in LAYERS for way in ("dp", "tp")]


@pytest.fixture(scope="module")
def ranks():
    given = {"layers": list(LAYERS), "ways": ["dp", "tp"], "dtypes": ["fp64", "bf16"]}
    return launch(parallel_steps, 2, given)


def of(rows, *key):
    return next(row for row in rows if (row["layer"], row["way"], row["dtype"]) == key)


@pytest.mark.parametrize(("layer", "way"), WAYS)
def test_in_float64_a_rank_has_its_part_of_the_whole_layers_outputs_and_gradients(
    ranks, layer, way
):
    assert all(of(rows, layer, way, "fp64")["apart"] < 1e-12 for rows in ranks)


@pytest.mark.parametrize(("layer", "way"), WAYS)
def test_in_bf16_the_trace_holds_the_collectives_that_the_calculators_count(ranks, layer, way):
    due = sorted(list(one) for one in predicted(layer, way, 2))
    assert due
    for rows in ranks:
        assert sorted(of(rows, layer, way, "bf16")["trace"]) == due


def test_more_ranks_than_key_heads_are_refused():
    given = {"layers": ["mamba2"], "ways": ["tp"], "dtypes": ["fp64"]}
    with pytest.raises(ValueError, match="ranks is 3, expected 2 for tp"):
        launch(parallel_steps, 3, given)
