"""Newer hybrids: a config.json gives the parameters and the cache that transformers builds."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import assert_same

from cookbook_lib.calculators.configs import from_dict

flag = st.booleans()
some = st.integers(1, 9)
few = st.integers(1, 3)
taps = st.integers(2, 5)
FULL, LINEAR = "full_attention", "linear_attention"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("config")


def common(draw, d: int, layers: int) -> dict:
    return {
        "hidden_size": d,
        "num_hidden_layers": layers,
        "vocab_size": draw(st.integers(2, 40)),
        "tie_word_embeddings": draw(flag),
        "pad_token_id": None,  # the default may lie outside a small vocabulary
    }


def either(draw, n: int, first: str, second: str) -> list[str]:
    """A list of layers with at least one of the first kind, which sets the cache's length."""
    chosen = draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=n))
    return [first if i in chosen else second for i in range(n)]


def routed(draw, name: str, experts: int) -> dict:
    return {name: experts, "num_experts_per_tok": draw(st.integers(1, max(1, experts)))}


def qwen3_next(draw):
    layers, kv, keys = draw(st.integers(1, 6)), draw(few), draw(few)
    config = common(draw, draw(some), layers) | routed(draw, "num_experts", draw(some) - 1)
    config |= draw(
        st.just({"layer_types": either(draw, layers, FULL, LINEAR)})
        | st.builds(dict, full_attention_interval=st.integers(1, layers))
    )
    return config | {
        "num_key_value_heads": kv,
        "num_attention_heads": kv * draw(few),
        "head_dim": draw(st.sampled_from((8, 16))),  # a quarter of it rotates
        "attention_bias": draw(flag),
        "intermediate_size": draw(some),
        "moe_intermediate_size": draw(some),
        "shared_expert_intermediate_size": draw(some),
        "decoder_sparse_step": draw(few),
        "mlp_only_layers": draw(st.lists(st.integers(0, layers - 1), max_size=2)),
        "linear_num_key_heads": keys,
        "linear_num_value_heads": keys * draw(few),
        "linear_key_head_dim": draw(some),
        "linear_value_head_dim": draw(some),
        "linear_conv_kernel_dim": draw(taps),
    }


FAMILIES = {f.__name__: f for f in (qwen3_next,)}


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_random_models_have_the_parameters_and_the_cache_of_transformers(family, folder, data):
    config = FAMILIES[family](data.draw)
    b, s = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 12))
    assert_same(family, config, folder, b=b, s=s)


def read(model_type: str, **fields):
    return from_dict({"model_type": model_type} | fields, "file")
