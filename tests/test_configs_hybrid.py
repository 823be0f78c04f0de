"""A hybrid's config.json gives the parameters of transformers by name, and its cache in bytes."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import assert_same

from cookbook_lib.calculators.configs import from_dict

flag = st.booleans()
some = st.integers(1, 9)
few = st.integers(1, 3)


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


def kinds(draw, n: int, attention: str, other: str, least: int = 1) -> list[str]:
    """A list of layers; transformers cannot run a hybrid that has attention in none of them."""
    chosen = draw(st.sets(st.integers(0, n - 1), min_size=least, max_size=n))
    return [attention if i in chosen else other for i in range(n)]


def mamba(draw):
    d = draw(some)
    return common(draw, d, draw(few)) | {
        "state_size": draw(some),
        "expand": draw(few),
        "conv_kernel": draw(st.integers(2, 5)),
        "time_step_rank": draw(st.just("auto") | some),
        "use_bias": draw(flag),
        "use_conv_bias": draw(flag),
        **draw(st.just({}) | st.builds(dict, intermediate_size=some)),  # Falcon-Mamba's files
    }


def mamba2(draw):
    sizes = ssd(draw)
    return common(draw, sizes["d"], draw(few)) | {
        "expand": sizes["expand"],
        "num_heads": sizes["heads"],
        "head_dim": sizes["dim"],
        "n_groups": sizes["groups"],
        "state_size": draw(some),
        "conv_kernel": draw(st.integers(2, 5)),
        "chunk_size": draw(st.integers(2, 9)),
        "use_bias": draw(flag),
        "use_conv_bias": draw(flag),
    }


def ssd(draw, multiple: int = 1) -> dict:
    """Sizes of a Mamba-2 that fit: expand * d = heads * dim, and groups divide the heads."""
    groups, expand = draw(few), draw(few)
    heads = groups * draw(few)
    d = heads * draw(few) * multiple
    return {"d": d, "expand": expand, "groups": groups, "heads": heads, "dim": expand * d // heads}


def zamba(draw):
    kv, per_kv, nheads = draw(few), draw(few), draw(few)
    d = kv * per_kv * nheads * draw(few)
    layers = draw(st.integers(4, 6))
    config = common(draw, d, layers) | {
        "num_attention_heads": kv * per_kv,
        "num_key_value_heads": kv,
        "attention_head_dim": draw(st.none() | some),
        "intermediate_size": draw(some),
        "n_mamba_heads": nheads,
        "mamba_d_state": draw(some),
        "mamba_d_conv": draw(st.integers(2, 5)),
        "mamba_expand": draw(few),
        "mamba_dt_rank": draw(st.just("auto") | some),
        "mamba_conv_bias": draw(flag),
        "mamba_proj_bias": draw(flag),
    }
    config["tie_word_embeddings"] = True  # see zamba2
    if draw(flag):  # transformers cannot tie the one shared block to itself, so two must use it
        names = draw(st.sampled_from((("hybrid", "mamba"), ("hybrid", "linear_attention"))))
        config["layers_block_type"] = kinds(draw, layers, *names, least=2)
    else:
        period = draw(st.integers(1, layers - 3))
        config |= {
            "attn_layer_period": period,
            "attn_layer_offset": draw(st.integers(0, period - 1)),
        }
    return config


def zamba2(draw):
    kv, per_kv, sizes = draw(few), draw(few), ssd(draw)
    d, layers = sizes["d"] * kv * per_kv, draw(st.integers(1, 9))
    names = draw(st.sampled_from((("hybrid", "mamba"), ("hybrid", "linear_attention"))))
    adapter = draw(flag)  # as wide as the queries, so every head has keys of its own
    return common(draw, d, layers) | {
        "num_attention_heads": kv * per_kv,
        "num_key_value_heads": draw(
            st.sampled_from((None, kv * per_kv) if adapter else (None, kv))
        ),
        "intermediate_size": draw(st.none() | some),
        "layers_block_type": kinds(draw, layers, *names),
        "num_mem_blocks": draw(few),
        "adapter_rank": draw(few),
        "use_shared_attention_adapter": adapter,
        "n_mamba_heads": sizes["heads"],
        "mamba_ngroups": sizes["groups"],
        "mamba_expand": sizes["expand"],
        "mamba_d_state": draw(some),
        "mamba_d_conv": draw(st.integers(2, 5)),
        "chunk_size": draw(st.integers(2, 9)),
        "add_bias_linear": draw(flag),
        "tie_word_embeddings": True,  # or transformers ties none of the shared blocks either
    }


def attention(draw, null_kv: bool = True) -> dict:
    """Heads of an even size, as rotary embeddings need, where the width is a multiple of 24."""
    kv, per_kv = draw(st.sampled_from((1, 2))), draw(few)
    fields = {
        "num_attention_heads": kv * per_kv,
        "num_key_value_heads": draw(st.sampled_from((None, kv))) if null_kv else kv,
    }
    return fields | draw(st.just({}) | st.builds(dict, head_dim=st.sampled_from((2, 4, 6))))


def jamba(draw):
    d, experts = 24 * draw(few), draw(st.integers(1, 5))
    period, expert_period = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    return (
        common(draw, d, draw(st.integers(period, 6)))
        | attention(draw, null_kv=False)
        | {
            "intermediate_size": draw(some),
            "num_experts": experts,
            "num_experts_per_tok": draw(st.integers(1, experts)),
            "attn_layer_period": period,
            "attn_layer_offset": draw(st.integers(0, period - 1)),
            "expert_layer_period": expert_period,
            "expert_layer_offset": draw(st.integers(0, expert_period - 1)),
            "mamba_d_state": draw(some),
            "mamba_d_conv": draw(st.integers(2, 5)),
            "mamba_expand": draw(few),
            "mamba_dt_rank": draw(st.just("auto") | some),
            "mamba_conv_bias": draw(flag),
            "mamba_proj_bias": draw(flag),
        }
    )


def mamba2_fields(draw, sizes: dict) -> dict:
    return {
        "mamba_n_heads": sizes["heads"],
        "mamba_n_groups": sizes["groups"],
        "mamba_expand": sizes["expand"],
        "mamba_d_head": draw(st.sampled_from(("auto", sizes["dim"]))),
        "mamba_d_state": draw(some),
        "mamba_d_conv": draw(st.integers(2, 5)),
        "mamba_chunk_size": draw(st.integers(2, 9)),
        "mamba_conv_bias": draw(flag),
        "mamba_proj_bias": draw(flag),
        "attention_bias": draw(flag),
    }


def bamba(draw):
    sizes, layers = ssd(draw, 24), draw(st.integers(1, 6))
    config = common(draw, sizes["d"], layers) | attention(draw)
    indices = st.lists(st.integers(0, layers - 1), min_size=1, max_size=layers)
    return (
        config
        | mamba2_fields(draw, sizes)
        | {
            "intermediate_size": draw(some),
            "attn_layer_indices": draw(indices),
            "mlp_bias": draw(flag),
        }
    )


def granitemoehybrid(draw):
    sizes, layers, experts = ssd(draw, 24), draw(st.integers(1, 6)), draw(st.integers(0, 5))
    names = draw(st.sampled_from((("attention", "mamba"), ("full_attention", "linear_attention"))))
    config = common(draw, sizes["d"], layers) | attention(draw)
    return (
        config
        | mamba2_fields(draw, sizes)
        | {
            "intermediate_size": draw(some),
            "shared_intermediate_size": draw(some),
            "num_local_experts": experts,
            "num_experts_per_tok": draw(st.integers(1, max(1, experts))),
            "layer_types": kinds(draw, layers, *names),
            "position_embedding_type": draw(st.sampled_from((None, "rope"))),
        }
    )


def falcon_h1(draw):
    sizes = ssd(draw, 24)
    config = common(draw, sizes["d"], draw(few)) | attention(draw)
    config |= mamba2_fields(draw, sizes) | {
        "mamba_d_ssm": None,
        "intermediate_size": draw(some),
        "mamba_rms_norm": draw(flag),
        "projectors_bias": draw(flag),
        "mlp_bias": draw(flag),
    }
    if draw(flag):  # an inner width of its own
        dim = draw(some)
        config |= {"mamba_d_ssm": sizes["heads"] * dim, "mamba_d_head": dim}
    return config


def nemotron_h(draw):
    groups, experts = draw(few), draw(st.integers(2, 5))
    letters = draw(st.text("M*-E", min_size=1, max_size=5)) + draw(st.sampled_from(("M*", "*")))
    words = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
    return (
        common(draw, draw(some), len(letters))
        | attention(draw, null_kv=False)
        | {
            "layers_block_type": [words[x] for x in letters],
            "head_dim": draw(st.sampled_from((2, 4))),
            "intermediate_size": draw(some),
            "mamba_num_heads": groups * draw(few),
            "mamba_head_dim": draw(some),
            "n_groups": groups,
            "ssm_state_size": draw(some),
            "conv_kernel": draw(st.integers(2, 5)),
            "chunk_size": draw(st.integers(2, 9)),
            "use_bias": draw(flag),
            "use_conv_bias": draw(flag),
            "mlp_bias": draw(flag),
            "n_routed_experts": experts,
            "num_experts_per_tok": draw(st.integers(1, experts)),
            "moe_intermediate_size": draw(some),
            "moe_shared_expert_intermediate_size": draw(some),
            "moe_latent_size": draw(st.none() | some),
        }
    )


FAMILIES = {
    f.__name__: f
    for f in (zamba, zamba2, mamba, mamba2, jamba, bamba, granitemoehybrid, nemotron_h, falcon_h1)
} | {"falcon_mamba": mamba}


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_random_models_have_the_parameters_and_the_cache_of_transformers(family, folder, data):
    config = FAMILIES[family](data.draw)
    b, s = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 12))
    assert_same(family, config, folder, b=b, s=s)


def read(model_type: str, **fields):
    return from_dict({"model_type": model_type} | fields, "file")


def test_a_letter_says_what_a_layer_holds():
    patterns = {
        "zamba": read("zamba", num_hidden_layers=16).pattern,
        "zamba2": read("zamba2", num_mem_blocks=2).pattern,
        "jamba": read("jamba", num_hidden_layers=8).pattern,
        "bamba": read("bamba", num_hidden_layers=4, attn_layer_indices=[2]).pattern,
        "granitemoehybrid": read("granitemoehybrid", num_hidden_layers=3).pattern,
        "nemotron_h": read("nemotron_h", hybrid_override_pattern="M-M*E").pattern,
        "falcon_h1": read("falcon_h1", num_hidden_layers=2).pattern,
        "mamba2": read("mamba2", num_hidden_layers=2).pattern,
    }
    assert patterns == {
        "zamba": "mmAmmmmAmmmmmAmm",
        "zamba2": "m" + "mmmmmAmmmmmB" * 3 + "mmmmmAmmmmBmmmAmm",
        "jamba": "mnmnanmn",
        "bamba": "mmam",
        "granitemoehybrid": "nnn",
        "nemotron_h": "m-m*E",
        "falcon_h1": "hh",
        "mamba2": "mm",
    }


@pytest.mark.parametrize("family", ["zamba", "zamba2"])
def test_blocks_stay_shared_where_the_head_is_not_tied(family):
    """transformers 5.23 would copy the shared blocks with the head; the architecture does not."""
    tied, untied = (read(family, tie_word_embeddings=tie) for tie in (True, False))
    assert untied.weights().keys() - tied.weights().keys() == {"lm_head.weight"}
    assert untied.params() == tied.params() + tied.params_embedding()


def test_one_use_of_a_shared_block_is_one_block():
    """transformers refuses such a model; its weights are those of more uses, less their linears."""
    d, kinds = 12, ["mamba", "hybrid", "mamba", "hybrid"]
    sizes = {"hidden_size": d, "num_attention_heads": 4, "num_key_value_heads": 4}
    two = read("zamba", num_hidden_layers=4, layers_block_type=kinds, **sizes)
    one = read("zamba", num_hidden_layers=4, layers_block_type=[*kinds[:3], "mamba"], **sizes)
    assert two.params() == one.params() + d * d
    assert two.state_bytes("kv", s=9) == 2 * one.state_bytes("kv", s=9)
