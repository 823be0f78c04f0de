"""A mistake in a config.json is one line: the file, the field, its value, what is supported."""

import json

import pytest
from transformers import AutoConfig

from cookbook_lib.calculators.configs import READERS, from_dict, read_config

SIZES = {
    "hidden_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 12,
    "num_hidden_layers": 3,
    "vocab_size": 20,
}
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
    ("phi", {"qk_layernorm": True}, "qk_layernorm is True, expected false: norms of q and k"),
    ("phi", {"tie_word_embeddings": True}, "expected false: a tied head that has a bias is not"),
    ("gpt2", {"n_head": 3}, "n_head is 3, expected a number that divides hidden_size (16)"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention is True, expected false"),
    (
        "nemotron_h",
        {"expand": -1, "num_hidden_layers": 4},
        "expand is -1, expected no negative size",
    ),  # not needed
    ("llama", {"rope_theta": float("nan")}, "rope_theta is nan, expected a number"),  # nor this
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


@pytest.mark.parametrize("family", sorted(READERS))
def test_no_wrong_value_ends_in_anything_but_one_line(family):
    """Every field that a file may hold, with every kind of nonsense."""
    nonsense = (0.5, "8", "", -1, 0, float("nan"), float("inf"), True, [], [None], {}, 10**30)
    whole = AutoConfig.for_model(family).to_dict() | {"model_type": family}
    read = set()
    for field in whole.keys() - {"model_type"}:
        for value in nonsense:
            try:
                from_dict(whole | {field: value}, "the/file")
            except ValueError as error:
                line = str(error)
                assert line.startswith("the/file: ") and field in line and "\n" not in line
                read.add(field)
            if field not in read:  # nobody asks for it: half of it was taken
                break
    counted = {"vocab_size", "hidden_size", "n_embd", "num_hidden_layers", "n_layer"}
    assert counted & whole.keys() <= read
