"""Native files and older spellings mean what the code that reads them builds, or get one line."""

import json
from math import ceil, prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mamba_ssm_reference import reference

from cookbook_lib.calculators import presets
from cookbook_lib.calculators.configs import from_dict, read_config

flag = st.booleans()
few = st.integers(1, 3)
some = st.integers(1, 9)


def sizes(shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    return {name: prod(shape) for name, shape in shapes.items()}


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_mamba_ssm_and_transformers_describe_one_model(data):
    """The reader of transformers' files is held against transformers; so this one is too."""
    draw = data.draw
    heads, dim, groups, expand = draw(few), draw(few), draw(few), draw(few)
    d, layers, vocab, pad = expand * heads * groups * dim, draw(few), draw(some), draw(few)
    ssm = {
        "expand": expand,
        "d_state": draw(some),
        "d_conv": draw(some),
        "bias": draw(flag),
        "conv_bias": draw(flag),
    }
    theirs = {
        "hidden_size": d,
        "num_hidden_layers": layers,
        "vocab_size": ceil(vocab / pad) * pad,
        "tie_word_embeddings": draw(flag),
        "expand": expand,
        "state_size": ssm["d_state"],
        "conv_kernel": ssm["d_conv"],
        "use_bias": ssm["bias"],
        "use_conv_bias": ssm["conv_bias"],
    }
    if draw(flag):
        headdim = expand * d // (heads * groups)
        ssm |= {"layer": "Mamba2", "headdim": headdim, "ngroups": groups}
        theirs |= {"model_type": "mamba2", "num_heads": heads * groups, "head_dim": headdim}
        theirs |= {"n_groups": groups}
    else:
        rank = draw(st.just("auto") | some)
        ssm |= {"dt_rank": rank}
        theirs |= {"model_type": "mamba", "time_step_rank": rank}
    native = {
        "d_model": d,
        "n_layer": layers,
        "vocab_size": vocab,
        "ssm_cfg": ssm,
        "pad_vocab_size_multiple": pad,
        "tie_embeddings": theirs["tie_word_embeddings"],
    }
    a, b = from_dict(native, "native"), from_dict(theirs, "theirs")
    renamed = {k.replace("embedding.", "embeddings."): n for k, n in a.weights().items()}
    assert renamed == b.weights()
    assert a.state_bytes("conv", b=2) == b.state_bytes("conv", b=2)
    assert 2 * a.state_bytes("ssm", b=2) == b.state_bytes("ssm", b=2)  # bf16, not fp32


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_mamba3_has_the_parameters_and_the_cache_of_mamba_ssm(data):
    draw = data.draw
    groups, expand, dim = draw(few), draw(few), draw(some)
    ssm = {
        "d_state": draw(st.integers(4, 9)),
        "expand": expand,
        "headdim": dim,
        "ngroups": groups,
        "rope_fraction": draw(st.sampled_from((0.5, 1.0))),
        "is_outproj_norm": draw(flag),
    }
    d = groups * dim * draw(few)
    native = {"d_model": d, "n_layer": 2, "vocab_size": 9, "ssm_cfg": ssm | {"layer": "Mamba3"}}
    model, module = from_dict(native, "native"), reference("modules.mamba3", "Mamba3")
    with torch.device("meta"):
        mixer = module(d_model=d, **ssm)
        cache = mixer.allocate_inference_cache(3, 8, dtype=torch.bfloat16)
    theirs = {f"backbone.layers.1.mixer.{k}": p.numel() for k, p in mixer.named_parameters()}
    assert theirs == {k: n for k, n in model.weights().items() if "layers.1.mixer." in k}
    assert model.state_bytes(b=3) == 2 * sum(t.nbytes for t in cache)


def test_mamba_ssm_puts_attention_and_mlps_where_the_file_says():
    model = from_dict(
        {
            "d_model": 6,
            "n_layer": 2,
            "vocab_size": 9,
            "d_intermediate": 129,
            "ssm_cfg": {"d_state": 3, "dt_rank": 2},
            "attn_layer_idx": [1],
            "attn_cfg": {"num_heads": 4, "num_heads_kv": 2, "head_dim": 5, "d_conv": 4},
            "rms_norm": False,
            "tie_embeddings": False,
        },
        "native",
    )
    own, mlp = "backbone.layers.{}.mixer.", 256  # d_intermediate in multiples of 128
    inner, qkv = 12, (4 + 2 * 2) * 5
    expected = {
        "backbone.embedding.weight": (16, 6),  # the vocabulary in multiples of 8
        own.format(0) + "in_proj.weight": (2 * inner, 6),
        own.format(0) + "conv1d.weight": (inner, 4),
        own.format(0) + "conv1d.bias": (inner,),
        own.format(0) + "x_proj.weight": (2 + 2 * 3, inner),
        own.format(0) + "dt_proj.weight": (inner, 2),
        own.format(0) + "dt_proj.bias": (inner,),
        own.format(0) + "A_log": (inner, 3),
        own.format(0) + "D": (inner,),
        own.format(0) + "out_proj.weight": (6, inner),
        own.format(1) + "in_proj.weight": (qkv, 6),
        own.format(1) + "in_proj.bias": (qkv,),
        own.format(1) + "conv1d.weight": (qkv, 4),
        own.format(1) + "conv1d.bias": (qkv,),
        own.format(1) + "out_proj.weight": (6, 20),
        own.format(1) + "out_proj.bias": (6,),
        "backbone.norm_f.weight": (6,),
        "backbone.norm_f.bias": (6,),
        "lm_head.weight": (16, 6),
    }
    for i in range(2):
        layer = f"backbone.layers.{i}."
        expected |= {layer + f"mlp.fc{k}.weight": (2 * mlp // k, 6) for k in (1, 2)}
        expected |= {layer + f"norm{k}.{x}": (6,) for k in ("", 2) for x in ("weight", "bias")}
    assert model.weights() == sizes(expected)
    assert model.pattern == "ma"
    assert model.state_bytes("kv", b=3, s=7) == 2 * prod((3, 7, 2, 2, 5))
    assert model.state_bytes("conv", b=3, s=7) == 2 * prod((3, 4, inner + qkv))


BLACK = {
    "num_layers": 3,
    "hidden_size": 4,
    "state_size": 3,
    "conv_dimension": 2,
    "expansion_factor": 2,
    "ffn_hidden_size": 5,
    "vocab_size": 7,
    "swiglu": True,
    "add_bias_linear": False,
    "mamba_moe_layers": ["r", "8", "1"],
}


def test_blackmamba_has_the_parameters_of_its_code():
    own = "decoder.layers.{}."
    expected = {
        "embedding.weight": (8, 4),
        **{own.format(i) + "norm.weight": (4,) for i in range(3)},
        own.format(0) + "mixer.in_proj.weight": (16, 4),
        own.format(0) + "mixer.conv1d.weight": (8, 2),
        own.format(0) + "mixer.conv1d.bias": (8,),
        own.format(0) + "mixer.x_proj.weight": (1 + 2 * 3, 8),
        own.format(0) + "mixer.dt_proj.weight": (8, 1),
        own.format(0) + "mixer.dt_proj.bias": (8,),
        own.format(0) + "mixer.A_log": (8, 3),
        own.format(0) + "mixer.D": (8,),
        own.format(0) + "mixer.out_proj.weight": (4, 8),
        own.format(1) + "mixer.router.weight": (8, 4),
        own.format(1) + "mixer.router.bias": (8,),
        own.format(1) + "mixer.local_experts.*.linear_fc1.weight": (8, 10, 4),
        own.format(1) + "mixer.local_experts.*.linear_fc2.weight": (8, 4, 5),
        own.format(2) + "mixer.linear_fc1.weight": (10, 4),
        own.format(2) + "mixer.linear_fc2.weight": (4, 5),
        "decoder.final_layernorm.weight": (4,),
        "decoder.final_layernorm.bias": (4,),
    }
    model = from_dict(BLACK | {"padded_vocab_size": 8}, "black")
    assert model.weights() == sizes(expected)
    assert model.pattern == "mE-"
    assert model.params() - model.params_active() == 7 * (10 * 4 + 4 * 5)
    assert model.state_bytes("conv", b=3) == 2 * prod((3, 8, 2))
    assert model.state_bytes("ssm", b=3) == 2 * prod((3, 8, 3))
    assert model.state_bytes("kv") == 0


def test_blackmamba_without_a_list_is_mamba_alone():
    assert from_dict(BLACK | {"mamba_moe_layers": []}, "black").pattern == "mmm"


ZAMBA2 = {  # Zamba2-7B's file before transformers had the family; without what does not count
    "model_type": "zamba2",
    "add_bias_linear": False,
    "conv_dimension": 4,
    "expansion_factor": 2,
    "ffn_hidden_size": 14336,
    "gated_linear_unit": True,
    "hidden_size": 3584,
    "kv_channels": 112,
    "lora_rank": 128,
    "mamba_headdim": 64,
    "mamba_ngroups": 2,
    "num_attention_heads": 32,
    "num_hidden_layers": 81,
    "num_key_value_heads": 32,
    "num_mem_blocks": 2,
    "num_query_groups": 32,
    "sliding_window": None,
    "state_size": 64,
    "use_shared_attention_lora": False,
    "use_shared_block_lora": True,
    "vocab_size": 32000,
}


def test_old_zamba2_names_mean_the_new_ones():
    new = presets.preset("zamba2-7b")
    listed = ["g" if k in "AB" else "m" for k in new.pattern]
    old = from_dict(ZAMBA2 | {"layers_block_type": listed}, "old")
    assert old.weights() == new.weights() and old.states(s=9) == new.states(s=9)
    no_dim = {k: v for k, v in ZAMBA2.items() if k != "mamba_headdim"}  # 64 was its default
    assert from_dict(no_dim | {"layer_mapping": listed}, "old").weights() == new.weights()
    bare = from_dict(ZAMBA2 | {"layer_types": listed, "use_shared_block_lora": False}, "old")
    lora = sum(r.params for r in new.costs() if r.component == "lora")
    assert bare.params() == new.params() - lora
    numbers = [i for i, k in enumerate(listed) if k == "g"]
    assert from_dict(ZAMBA2 | {"hybrid_layer_ids": numbers}, "old").weights() == new.weights()


FOUR = {"num_hidden_layers": 4}
SAME = [
    ("zamba", FOUR | {"layers_block_type": ["mamba", "mamba", "hybrid", "mamba"]}, FOUR),
    (
        "jamba",
        FOUR | {"layers_block_type": ["mamba", "attention", "mamba", "attention"]},
        FOUR | {"attn_layer_period": 2, "attn_layer_offset": 1},
    ),
    (
        "bamba",
        FOUR | {"layer_types": ["linear_attention", "full_attention"] * 2},
        FOUR | {"attn_layer_indices": [3, 1]},
    ),
    (
        "granitemoehybrid",
        FOUR | {"layers_block_type": ["mamba", "attention"] * 2},
        FOUR | {"layer_types": ["linear_attention", "full_attention"] * 2},
    ),
    (
        "nemotron_h",
        {"hybrid_override_pattern": "M-E*"},
        {"layers_block_type": ["mamba", "mlp", "moe", "attention"], **FOUR},
    ),
    (
        "nemotron_h",
        {"mamba_n_groups": 4, "mamba_d_conv": 3, "mamba_conv_bias": False},
        {"n_groups": 4, "conv_kernel": 3, "use_conv_bias": False},
    ),
    ("falcon_mamba", {"expand": 16, "intermediate_size": 1536}, {"expand": 2}),
    ("mamba", {"hidden_size": 64.0, "expand": 2.0}, {"hidden_size": 64}),
    ("zamba", {"attention_hidden_size": None}, {}),
    ("falcon_h1", {"mamba_d_head": 8}, {"mamba_d_head": "auto"}),
]


@pytest.mark.parametrize(
    ("family", "one", "other"), SAME, ids=[f"{x[0]}-{i}" for i, x in enumerate(SAME)]
)
def test_spellings_mean_the_same(family, one, other):
    a, b = (from_dict({"model_type": family} | x, "file") for x in (one, other))
    assert a.weights() == b.weights() and a.states(s=9) == b.states(s=9)


MAMBA = {"model_type": "mamba"}
ZAMBA = {"model_type": "zamba", "num_hidden_layers": 4}
SSM = {"d_model": 6, "n_layer": 2, "vocab_size": 9}
MHA = SSM | {"attn_layer_idx": [1]}
BAMBA = {"model_type": "bamba", "num_hidden_layers": 4}
NEMOTRON = {"model_type": "nemotron_h"}
JAMBA = {"model_type": "jamba"}
WRONG = [
    (MAMBA, {"time_step_rank": "full"}, "time_step_rank is 'full', expected a whole number"),
    (MAMBA, {"intermediate_size": 0}, "intermediate_size is 0, expected a whole number of at"),
    (MAMBA, {"state_size": [16]}, "state_size is [16], expected a whole number of at least 1"),
    ({"model_type": "mamba2"}, {"num_heads": 100}, "num_heads is 100, expected expand * hidden_"),
    ({"model_type": "mamba2"}, {"n_groups": 3}, "n_groups is 3, expected a number that divides"),
    (ZAMBA, {"num_hidden_layers": 2}, "num_hidden_layers is 2, expected a whole number of at le"),
    (ZAMBA, {"layers_block_type": ["mamba"]}, "is a list of 1, expected a list of 4 names"),
    (ZAMBA, {"layers_block_type": ["moe"] * 4}, "holds 'moe', expected only mamba, linear_atten"),
    (ZAMBA, {"attention_hidden_size": 3712}, "is 3712, expected 2 * hidden_size (7424)"),
    (ZAMBA, {"n_mamba_heads": 3}, "n_mamba_heads is 3, expected a number that divides mamba_ex"),
    (ZAMBA2, {"num_hidden_layers": 5}, "expected a list of 5 names, as num_hidden_layers says"),
    (ZAMBA2, {"n_mamba_heads": 56}, "mamba_headdim is 64, expected mamba_expand * hidden_size / "),
    (ZAMBA2, {"hybrid_layer_ids": [81]}, "hybrid_layer_ids holds 81, expected 0 to 80"),
    (ZAMBA2, {"num_mem_blocks": 27}, "num_mem_blocks is 27, expected at most 26"),
    (ZAMBA2, {"mamba_ngroups": 5}, "is 5, expected a number that divides the number of Mamba h"),
    (JAMBA, {"attn_layer_offset": 8}, "is 8, expected less than attn_layer_period (8)"),
    (JAMBA, {"num_experts_per_tok": 17}, "num_experts_per_tok is 17, expected at most num_exper"),
    (JAMBA, {"num_experts": 0}, "num_experts is 0, expected a whole number of at least 1"),
    (BAMBA, {"attn_layer_indices": [4]}, "attn_layer_indices holds 4, expected 0 to 3"),
    (BAMBA, {"mamba_d_head": 65}, "mamba_d_head is 65, expected mamba_expand * hidden_size / ma"),
    (BAMBA, {"mamba_n_heads": 3}, "is 3, expected a number that divides mamba_expand * hidden_"),
    (NEMOTRON, {"hybrid_override_pattern": "M-X"}, "is 'M-X', expected only M, *, -, E, not 'X'"),
    (NEMOTRON, {"hybrid_override_pattern": ""}, "is '', expected a letter for each layer: M, *, "),
    (NEMOTRON, {"num_hidden_layers": 9}, "expected a list of 9 names, as num_hidden_layers says"),
    (NEMOTRON, {"n_groups": 3}, "n_groups is 3, expected a number that divides mamba_num_heads"),
    (SSM, {"ssm_cfg": {"layer": "Mamba9"}}, "ssm_cfg: layer is 'Mamba9', expected one of Mamba1"),
    (SSM, {"ssm_cfg": {"layer": "Mamba2"}}, "headdim is 64, expected a number that divides expan"),
    (SSM, {"ssm_cfg": [1]}, "ssm_cfg is [1], expected a JSON object"),
    (SSM, {"attn_layer_idx": [2]}, "attn_layer_idx holds 2, expected 0 to 1"),
    (SSM, {"attn_layer_idx": "1"}, "attn_layer_idx is '1', expected a list of layer numbers"),
    (SSM, {"pad_vocab_size_multiple": 0}, "is 0, expected a whole number of at least 1"),
    (MHA, {}, "attn_cfg: num_heads is missing; it has no default"),
    (MHA, {"attn_cfg": {"num_heads": 4}}, "num_heads is 4, expected a number that divides d_mode"),
    (MHA, {"attn_cfg": {"num_heads": 2, "mlp_dim": 9}}, "mlp_dim is 9, expected 0: the MLP insi"),
    (BLACK, {"mamba_moe_layers": ["r", "8"]}, "is a list of 2, expected a list of 3 names"),
    (BLACK, {"mamba_moe_layers": ["r", "x", "8"]}, "mamba_moe_layers holds 'x', expected only r"),
    (BLACK, {"add_bias_linear": True}, "add_bias_linear is True, expected false, as in the pub"),
    (BLACK, {"state_size": None}, "state_size is None, expected a whole number of at least 1"),
]


@pytest.mark.parametrize(("base", "fields", "says"), WRONG, ids=[x[2] for x in WRONG])
def test_a_wrong_value_is_named_with_what_is_supported(base, fields, says, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(base | fields))
    with pytest.raises(ValueError) as error:
        read_config(tmp_path)
    line = str(error.value)
    assert line.startswith(f"{tmp_path}: ") and says in line and "\n" not in line


@pytest.mark.parametrize("base", [SSM, MHA | {"attn_cfg": {"num_heads": 2}}, BLACK])
def test_nonsense_in_a_native_file_ends_in_one_line(base):
    nonsense = ("8", "", None, -1, 0.5, float("nan"), True, [], [None], {}, 10**30)
    base = base | {"ssm_cfg": {"d_state": 3, "expand": 2}} if "d_model" in base else base
    refused = set()
    for field in base:
        for value in nonsense:
            try:
                from_dict(base | {field: value}, "the/file")
            except ValueError as error:
                line = str(error)
                assert line.startswith("the/file: ") and "\n" not in line
                refused.add(field)
    assert refused == base.keys()
