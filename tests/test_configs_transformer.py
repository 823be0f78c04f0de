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
        *(phi3, gemma2, olmoe, gpt_neox, gpt2),
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


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_no_wrong_value_ends_in_anything_but_one_line(family):
    """Every field that a file may hold, with every kind of nonsense."""
    nonsense = ("8", "", -1, 0, 0.5, float("nan"), float("inf"), True, [], [None], {}, 10**30)
    whole = AutoConfig.for_model(family).to_dict() | {"model_type": family}
    refused = set()
    for field in whole.keys() - {"model_type"}:
        for value in nonsense:
            try:
                from_dict(whole | {field: value}, "the/file")
            except ValueError as error:
                line = str(error)
                assert line.startswith("the/file: ") and field in line and "\n" not in line
                refused.add(field)
    counted = {"vocab_size", "hidden_size", "n_embd", "num_hidden_layers", "n_layer"}
    assert counted & whole.keys() <= refused


FULL, SLIDING = "full_attention", "sliding_attention"
WRONG = [
    ("llama", {"hidden_size": -16}, "hidden_size is -16, expected a whole number of at least 1"),
    ("llama", {"hidden_size": None}, "hidden_size is None, expected a whole number of at least 1"),
    ("llama", {"hidden_size": float("nan")}, "hidden_size is nan, expected a whole number"),
    ("llama", {"hidden_size": {"__float__": "Infinity"}}, "hidden_size is {'__float__': 'Inf"),
    ("llama", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, expected at most"),
    ("llama", {"num_attention_heads": 5}, "num_attention_heads is 5, expected a number that divi"),
    ("llama", {"num_key_value_heads": 3}, "divides num_attention_heads (4)"),
    ("llama", {"mlp_bias": "no"}, "mlp_bias is 'no', expected true or false"),
    ("llama", {"attention_chunk_size": 8}, "attention_chunk_size is 8, expected null"),
    ("llama", {"per_layer_config": {"1": {"head_dim": 8}}}, "expected null: changing single"),
    ("gemma2", {"head_dim": None}, "head_dim is None, expected a whole number of at least 1"),
    ("gemma2", {"sliding_window": None}, "sliding_window is None, expected a number of tokens"),
    ("mistral", {"sliding_window": 1}, "sliding_window is 1, expected a whole number of at leas"),
    ("qwen2", {"num_attention_heads": 5, "num_key_value_heads": 5}, "divides hidden_size (16)"),
    ("qwen2", {"layer_types": [FULL] * 2}, "layer_types is a list of 2, expected a list of 3"),
    (
        "qwen2",
        {"layer_types": [FULL, FULL, "conv"]},
        "layer_types holds 'conv', expected only",
    ),
    ("qwen2", {"layer_types": [SLIDING] * 3}, "in use, for the layers of sliding_attention"),
    ("mixtral", {"layer_types": [SLIDING] * 3, "sliding_window": None}, "in use, for the layers"),
    (
        "mixtral",
        {"layer_types": [FULL] * 3, "sliding_window": 4},
        "expected one kind for all",
    ),
    ("mixtral", {"num_experts_per_tok": 9}, "is 9, expected at most num_local_experts (8)"),
    ("mixtral", {"num_experts": 3, "num_experts_per_tok": 4}, "expected at most num_experts (3)"),
    ("olmoe", {"num_experts": 3, "num_local_experts": 4}, "the same field, says (3)"),
    (
        "olmoe",
        {"head_dim": 8},
        "expected hidden_size / num_attention_heads (16 / 4)",
    ),
    ("qwen3_moe", {"decoder_sparse_step": 0}, "decoder_sparse_step is 0, expected a whole number"),
    ("qwen3_moe", {"mlp_only_layers": [3]}, "mlp_only_layers holds 3, expected 0 to 2"),
    ("gpt2", {"n_head": 3}, "n_head is 3, expected a number that divides hidden_size (16)"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention is True, expected false"),
    ("gpt5", {}, "model_type is 'gpt5', expected one of bamba, "),
    (None, {}, "model_type is None, expected one of bamba, "),
]


@pytest.mark.parametrize(("family", "fields", "says"), WRONG, ids=[x[2] for x in WRONG])
def test_a_wrong_value_is_named_with_what_is_supported(family, fields, says, tmp_path):
    sizes = {k: v for k, v in SIZES.items() if family != "gpt2" or not k.startswith("num_")}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family} | sizes | fields))
    with pytest.raises(ValueError) as error:
        read_config(tmp_path)
    line = str(error.value)
    assert line.startswith(f"{tmp_path}: ") and says in line and "\n" not in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON: Expecting value"),
        ("[1]", "holds a list, expected a JSON object"),
        ("[" * 100_000, "not JSON: "),
        ('{"model_type": "llama", "vocab_size": ' + "9" * 5000 + "}", "not JSON: "),
        (b"\xff\xfe\x00", "cannot be read as text: "),
        (None, "no such file, expected a config.json or its folder"),
    ],
    ids=["empty", "list", "deep", "long", "binary", "missing"],
)
def test_what_is_not_a_config_is_refused(text, says, tmp_path):
    file = tmp_path / "config.json"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as error:
        read_config(file)
    line = str(error.value)
    assert line.startswith(f"{file}: ") and says in line and "\n" not in line
