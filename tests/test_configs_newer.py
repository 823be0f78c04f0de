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


def latent(draw) -> dict:
    """Latent attention with experts: at least two, of which the router adds up the best two."""
    heads = draw(few)
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "q_lora_rank": draw(st.none() | some),
        "kv_lora_rank": draw(some),
        "qk_nope_head_dim": draw(some),
        "qk_rope_head_dim": draw(st.sampled_from((2, 4))),
        "v_head_dim": draw(some),
        "attention_bias": draw(flag),
        "intermediate_size": draw(some),
        "moe_intermediate_size": draw(some),
        "n_shared_experts": draw(few),
        "n_group": 1,
        "topk_group": 1,
    }


def deepseek_v3(draw):
    layers = draw(few)
    config = common(draw, draw(some), layers) | latent(draw)
    config |= routed(draw, "n_routed_experts", draw(st.integers(2, 5)))
    return config | {"first_k_dense_replace": draw(st.integers(0, layers + 1))}


def kimi_linear(draw):
    layers = draw(st.integers(1, 6))
    config = common(draw, draw(some), layers) | latent(draw)
    config |= routed(draw, "num_local_experts", draw(st.integers(2, 5)))
    sizes = {"num_heads": draw(few), "head_dim": draw(some), "short_conv_kernel_size": draw(taps)}
    kinds = either(draw, layers, FULL, LINEAR)
    if draw(flag):  # as the hub's file has it
        numbers = {k: [i + 1 for i in range(layers) if kinds[i] == k] for k in (FULL, LINEAR)}
        lists = {"full_attn_layers": numbers[FULL], "kda_layers": numbers[LINEAR]}
        dense = draw(st.integers(0, layers))
        return config | {"linear_attn_config": sizes | lists, "first_k_dense_replace": dense}
    names = {"num_heads": "linear_num_heads", "head_dim": "linear_head_dim"}
    names["short_conv_kernel_size"] = "linear_conv_kernel_dim"
    config |= {names[k]: n for k, n in sizes.items()} | {"layer_types": kinds}
    return config | {"mlp_layer_types": either(draw, layers, "sparse", "dense")}


def heads(draw) -> dict:
    """Heads of an even size in a width of 24 * k, as rotary embeddings need."""
    kv = draw(st.sampled_from((1, 2)))
    return {"num_key_value_heads": kv, "num_attention_heads": kv * draw(few)}


def lfm2(draw, dense: bool = True):
    layers = draw(st.integers(1, 6))
    config = common(draw, 24 * draw(few), layers) | heads(draw)
    config |= {"intermediate_size": draw(some), "conv_L_cache": draw(taps), "conv_bias": draw(flag)}
    kinds = either(draw, layers, FULL, "conv")
    if not dense or draw(flag):
        config["layer_types"] = kinds
    else:
        config["full_attn_idxs"] = [i for i in range(layers) if kinds[i] == FULL]
    if dense and draw(flag):
        adjust = draw(st.sampled_from((1.0, 1.3, 2)))
        config |= {"block_ff_dim": draw(st.integers(2, 9)), "block_ffn_dim_multiplier": adjust}
        config |= {"block_multiple_of": draw(st.integers(1, 16))}
        config |= {"tie_embedding": draw(flag)}
    elif dense:
        config["block_auto_adjust_ff_dim"] = False
    return config


def lfm2_moe(draw):
    config = lfm2(draw, dense=False) | routed(draw, "num_experts", draw(some))
    layers = config["num_hidden_layers"]
    return config | {
        "moe_intermediate_size": draw(some),
        "num_dense_layers": draw(st.integers(0, layers + 1)),
        "use_expert_bias": draw(flag),
    }


def recurrent_gemma(draw):
    d = 24 * draw(few)
    period = draw(st.lists(st.sampled_from(("recurrent", "attention")), min_size=1, max_size=4))
    layers = draw(st.integers(len(period), 6))
    config = common(draw, d, layers) | heads(draw)
    if draw(flag):
        del config["num_key_value_heads"]
    return config | {
        "block_types": [*period[:-1], "attention"],
        "head_dim": d // config["num_attention_heads"],
        "lru_width": draw(st.sampled_from((None, d))),
        "intermediate_size": draw(st.integers(2, 9)),
        "attention_window_size": draw(st.integers(2, 9)),
        "conv1d_width": draw(taps),
        "attention_bias": draw(flag),
    }


def minimax(draw):
    layers = draw(st.integers(1, 6))
    config = common(draw, 24 * draw(few), layers) | heads(draw)
    config |= routed(draw, "num_local_experts", draw(some))
    config |= draw(st.just({}) | st.just({"layer_types": either(draw, layers, FULL, LINEAR)}))
    config |= draw(st.just({}) | st.builds(dict, head_dim=st.sampled_from((2, 4, 6))))
    return config | {"intermediate_size": draw(some), "block_size": draw(st.integers(2, 9))}


def xlstm(draw):
    """Widths in steps of 64: transformers' cache rounds up to that, its layers do not."""
    d = 128 * draw(st.integers(1, 2))
    return common(draw, d, draw(few)) | {
        "num_heads": draw(st.sampled_from((1, 2, 4))),
        "qk_dim_factor": draw(st.sampled_from((0.5, 1.0))),
        "v_dim_factor": draw(st.sampled_from((0.5, 1.0, 2.0))),
        "ffn_proj_factor": draw(st.floats(0.1, 3)),
        "ffn_round_up_to_multiple_of": draw(st.integers(1, 64)),
        "use_bias": draw(flag),
        "weight_mode": draw(st.sampled_from(("single", "fused"))),
        "chunk_size": draw(st.integers(2, 9)),
    }


FAMILIES = {
    f.__name__: f
    for f in (qwen3_next, deepseek_v3, kimi_linear, lfm2, lfm2_moe, recurrent_gemma, minimax, xlstm)
}


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_random_models_have_the_parameters_and_the_cache_of_transformers(family, folder, data):
    config = FAMILIES[family](data.draw)
    b, s = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 12))
    assert_same(family, config, folder, b=b, s=s)


def read(model_type: str, **fields):
    return from_dict({"model_type": model_type} | fields, "file")


def test_a_recurrence_wider_than_the_model(folder):
    """transformers cannot start such a model with a single token."""
    sizes = {"hidden_size": 24, "num_attention_heads": 4, "num_hidden_layers": 4, "head_dim": 6}
    assert_same("recurrent_gemma", sizes | {"lru_width": 40, "vocab_size": 9}, folder, s=7)
