"""A transformer's config.json gives the parameters and the cache of transformers, or one line."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import assert_same, build, cache_bytes, parameters
from transformers import AutoConfig

from cookbook_lib.calculators.configs import from_dict, read_config

flag = st.booleans()
some = st.integers(1, 9)
windows = st.none() | st.integers(2, 9)  # transformers keeps every token where the window is 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("config")


def sizes(draw, head_dim=None, divides=False, null_kv=False) -> dict:
    """The sizes that the families share; heads have an even width, as rotary embeddings need.

    head_dim: what to draw it from where it is free; divides: the heads divide the width even then;
    null_kv: the number of key-value heads may be null.
    """
    kv, per_kv, dim = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3)) * 2
    heads = kv * per_kv
    config = {
        "num_attention_heads": heads,
        "num_key_value_heads": None if null_kv and draw(flag) else kv,
        "hidden_size": heads * dim,
        "intermediate_size": draw(some),
        "num_hidden_layers": draw(st.integers(1, 4)),
        "vocab_size": draw(st.integers(2, 40)),
        "tie_word_embeddings": draw(flag),
        "pad_token_id": None,  # the default may lie outside a small vocabulary
    }
    if head_dim is not None and (dim := draw(head_dim)):
        config["head_dim"] = dim
        config["hidden_size"] = heads * draw(some) if divides else draw(some)
    return config


FREE = st.none() | st.sampled_from((2, 4, 6))
FIXED = st.sampled_from((2, 4, 6))


def kinds(draw, layers: int, window: int | None) -> dict:
    """A list of layers, or none; some slide if there is a window."""
    if draw(flag):
        return {}
    choice = st.sampled_from(("full_attention", "sliding_attention")[: 1 + bool(window)])
    return {"layer_types": draw(st.lists(choice, min_size=layers, max_size=layers))}


def qwen_window(draw, config: dict) -> dict:
    use, window = draw(flag), draw(windows)
    config |= {"use_sliding_window": use, "sliding_window": window}
    config |= {"max_window_layers": draw(st.integers(0, 5))}
    return config | kinds(draw, config["num_hidden_layers"], window if use else None)


def routed(draw, experts: str, low: int = 1) -> dict:
    n = draw(st.integers(low, 5))
    return {experts: n, "num_experts_per_tok": draw(st.integers(1, max(n, 1)))}


def llama(draw):
    biases = {"attention_bias": draw(flag), "mlp_bias": draw(flag)}
    return sizes(draw, FREE, divides=True, null_kv=True) | biases


def mistral(draw):
    return sizes(draw, FREE) | {"sliding_window": draw(windows)}


def mixtral(draw):
    return mistral(draw) | routed(draw, "num_local_experts")


def qwen2(draw):
    return qwen_window(draw, sizes(draw, FREE, null_kv=True))


def qwen3(draw):
    config = sizes(draw, FIXED, null_kv=True) | {"attention_bias": draw(flag)}
    return qwen_window(draw, config)


def qwen3_moe(draw):
    config = sizes(draw, FREE) | routed(draw, "num_experts", low=0)
    layers = st.integers(0, config["num_hidden_layers"] - 1)
    return config | {
        "attention_bias": draw(flag),
        "use_sliding_window": draw(flag),
        "sliding_window": draw(windows),
        "moe_intermediate_size": draw(some),
        "decoder_sparse_step": draw(st.integers(1, 3)),
        "mlp_only_layers": draw(st.none() | st.lists(layers, max_size=2)),
    }


def phi3(draw):
    return sizes(draw, FREE, null_kv=True) | {"sliding_window": draw(windows)}


def phi(draw):
    rotated = st.sampled_from((4, 8))  # half of a head rotates, in pairs
    return sizes(draw, rotated, null_kv=True) | {"tie_word_embeddings": False}


def gemma2(draw):
    config = sizes(draw, FIXED, divides=True) | {"attention_bias": draw(flag)}
    window = draw(st.integers(2, 9))  # by default every other layer slides, so there must be one
    return config | {"sliding_window": window} | kinds(draw, config["num_hidden_layers"], window)


def olmoe(draw):
    config = sizes(draw, null_kv=True) | routed(draw, "num_experts")
    return config | {"attention_bias": draw(flag)}


def gpt_neox(draw):
    config = sizes(draw) | {"attention_bias": draw(flag)}
    del config["num_key_value_heads"]
    return config


def gpt2(draw):
    heads = draw(st.integers(1, 4))
    return {
        "n_head": heads,
        "n_embd": heads * draw(some),
        "n_layer": draw(st.integers(1, 4)),
        "n_inner": draw(st.none() | some),
        "n_positions": draw(st.integers(12, 30)),
        "vocab_size": draw(st.integers(2, 40)),
        "tie_word_embeddings": draw(flag),
    }


FAMILIES = {
    f.__name__: f
    for f in (
        *(llama, mistral, mixtral, qwen2, qwen3, qwen3_moe),
        *(phi, phi3, gemma2, olmoe, gpt_neox, gpt2),
    )
}


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_random_models_have_the_parameters_and_the_cache_of_transformers(family, folder, data):
    config = FAMILIES[family](data.draw)
    b, s = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 12))
    assert_same(family, config, folder, b=b, s=s)


SIZES = {
    "hidden_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 12,
    "num_hidden_layers": 3,
    "vocab_size": 20,
    "pad_token_id": None,
}
SPELLINGS = [
    # fields that a class does not list but obeys all the same
    ("llama", {"sliding_window": 4}),
    ("llama", {"sliding_window": 4, "layer_types": ["full_attention", *["sliding_attention"] * 2]}),
    ("phi", {"head_dim": 8}),
    ("phi3", {"head_dim": 8}),
    ("qwen2", {"head_dim": 8}),
    ("gpt_neox", {"sliding_window": 4}),
    ("gpt_neox", {"head_dim": 8, "num_key_value_heads": 1}),  # these it does not obey
    # the other name of a field
    ("mixtral", {"num_experts": 3}),
    ("qwen3_moe", {"num_local_experts": 9}),
    ("olmoe", {"num_local_experts": 9}),
    ("gpt2", {"max_position_embeddings": 30}),
    ("qwen2", {"layer_types": ["attention"] * 3}),
    # null where it says something
    ("mistral", {"sliding_window": None}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": None}),
]


@pytest.mark.parametrize(("family", "fields"), SPELLINGS, ids=str)
def test_a_file_is_read_as_transformers_reads_it(family, fields, folder):
    file = folder / "config.json"
    file.write_text(json.dumps({"model_type": family} | SIZES | fields))
    module = build(AutoConfig.for_model(family, **SIZES | fields))
    model = read_config(file)
    assert model.weights() == parameters(module)
    assert model.state_bytes(b=2, s=9) == cache_bytes(module, 2, 9)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_field_left_out_has_the_default_of_its_class(family):
    whole = AutoConfig.for_model(family).to_dict() | {"model_type": family}
    assert from_dict({"model_type": family}, "x") == from_dict(whole, "x")
    wide = SIZES | {  # so that each default number of heads divides what it must
        "hidden_size": 192,
        "num_attention_heads": 32,
        "num_key_value_heads": 2,
    }
    small = AutoConfig.for_model(family, **wide).to_dict()
    small.pop("layer_types", None)
    changed = set()
    for field in small.keys() - {"model_type"}:
        rest = {k: v for k, v in small.items() if k != field}
        filled = from_dict(AutoConfig.for_model(**rest).to_dict(), "x")
        assert from_dict(rest, "x") == filled, field
        if filled != from_dict(small, "x"):
            changed.add(field)
    assert len(changed) >= 4


def test_numbers_may_be_written_with_a_point():
    config = {"model_type": "llama"} | SIZES
    assert from_dict(config | {"hidden_size": 16.0}, "x") == from_dict(config, "x")


def test_a_null_number_of_key_value_heads_means_as_many_as_heads():
    for family in ("mistral", "mixtral", "gemma2", "qwen3_moe"):  # whose default is another
        config = {"model_type": family} | SIZES
        all_heads = from_dict(config | {"num_key_value_heads": 4}, "x")
        assert from_dict(config | {"num_key_value_heads": None}, "x") == all_heads


def test_a_letter_says_what_a_layer_holds():
    qwen = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    moe = {"decoder_sparse_step": 2}
    patterns = [
        from_dict({"model_type": family} | SIZES | fields, "x").pattern
        for family, fields in (("llama", {}), ("qwen2", qwen), ("gemma2", {}), ("qwen3_moe", moe))
    ]
    assert patterns == ["aaa", "aww", "waw", "aea"]
