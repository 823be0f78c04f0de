"""The parts that GPUs hold make up the model: shards are blocks, stages cover each layer once."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cookbook_lib.blocks.models.modules import make
from cookbook_lib.blocks.models.options import Options
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.calculators.presets import preset

D = 64
BLOCKS = {  # block -> its weights that every rank holds whole; all others are split
    specs.Attention(d_model=D, n_heads=8, n_kv_heads=4, head_dim=8, qkv_bias=True): "",
    specs.Attention(d_model=D, n_heads=8, n_kv_heads=4, head_dim=8, qk_norm="head"): ".*_norm.*",
    specs.Attention(d_model=D, n_heads=8, n_kv_heads=8, head_dim=8, d_conv=4, fused=True): "",
    specs.MLP(d_model=D, d_ff=96): "",
    specs.MLP(d_model=D, d_ff=96, gated=False, bias=True): "down_proj.bias",
    specs.Mamba1(d_model=D): "",
    specs.Mamba1(d_model=D, nheads=4, dt_norm=True): ".*layernorm.*",
    specs.Mamba2(d_model=D, d_state=8, headdim=8, ngroups=4): "",
    specs.Mamba3(d_model=D, d_state=8, headdim=8, norm=True): "[BC]_norm.*|in_proj.*",
    specs.GatedDeltaNet(d_model=D, n_k_heads=4, n_v_heads=8, head_k_dim=8): "norm.weight",
    specs.RWKV7(d_model=D, headdim=8): r"x_.*|.*lora\.0.*",
    specs.RWKV7ChannelMix(d_model=D, d_ff=96): "x_k",
    specs.LoRA(d_in=D, rank=4, d_out=96): "0.weight",
    specs.Linear(d_in=D, d_out=D): ".*",
    specs.Norm(d_model=D): ".*",
    specs.Embedding(vocab=100, d_model=D): "",
    specs.Head(d_model=D, vocab=100): "",
}
LATENTS = ".*_a_(proj|layernorm).*|kv_a_proj_with_mqa.*"
NO_MODULE = {  # blocks, or shards of them, that are counted but not built on their own
    specs.ShortConv(d_model=D, d_conv=4): "",
    specs.MoE(d_model=D, d_ff=96, n_experts=8, topk=2): "router.*",
    specs.Attention(d_model=D, n_heads=8, n_kv_heads=4, head_dim=8, gated=True): "",
    specs.MLA(d_model=D, n_heads=8, q_lora_rank=24, kv_lora_rank=16): LATENTS,
    specs.MLA(d_model=D, n_heads=8, kv_lora_rank=16): LATENTS,
    specs.KDA(d_model=D, n_heads=8, head_dim=8): r".*_a_proj.*|o_norm.*",
    specs.GatedConv(d_model=D, bias=True): "out_proj.bias",
    specs.RGLRU(d_model=D, n_heads=8): "linear_out.bias",
    specs.Lightning(d_model=D, n_heads=8, head_dim=8): "",
    specs.MLSTM(d_model=D, n_heads=8, d_qk=32, d_v=64): "",
    specs.MLSTM(d_model=D, n_heads=8, d_qk=32, d_v=64, fused=True, bias=True): "out_proj.bias",
    specs.Gate(d_model=D): ".*",
}
ALL = BLOCKS | NO_MODULE


def test_no_block_is_whole_on_every_rank_but_those_meant_to_be():
    """What a norm, a gate or Zamba's linear holds is small beside what it reads."""
    assert {type(block).__name__ for block in ALL} == set(specs.__all__)
    whole = {type(block) for block in ALL if block.shard(tp=2) == block}
    assert whole == {specs.Norm, specs.Gate, specs.Linear}


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.component)
@pytest.mark.parametrize("tp", [2, 4])
def test_a_shard_holds_its_part_of_each_weight(block, tp):
    whole, part = block.weights(), block.shard(tp=tp).weights()
    assert list(part) == list(whole)
    for name, n in whole.items():
        if name == "in_proj.weight" and isinstance(block, specs.Mamba3):  # B, C, angles are copied
            copied = 2 * block.ngroups * block.d_state + block.n_angles
            n = (n - copied * D) // tp + copied * D
        elif not re.fullmatch(ALL[block], name):
            n //= tp
        assert part[name] == n, name


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.component)
def test_a_shard_is_a_block_that_runs(block):
    shard = block.shard(tp=2)
    with torch.device("meta"):
        module = make(shard, Options())
    assert {k: p.numel() for k, p in module.named_parameters()} == shard.weights()


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.component)
def test_ranks_share_the_work_and_the_state(block):
    for tp in (2, 4):
        shard = block.shard(tp=tp)
        assert tp * shard.flops(l=7) >= block.flops(l=7)
        assert tp * shard.state_bytes(s=7) >= block.state_bytes(s=7)
    assert block.shard() == block or block.shard().costs() == block.costs()


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.component)
def test_a_split_that_leaves_a_rest_is_refused_in_one_line(block):
    if block.shard(tp=2) == block or isinstance(block, specs.Embedding | specs.Head):  # padded
        return
    with pytest.raises(ValueError, match="^tp is 5, expected a divisor of [a-z_]+ ") as error:
        block.shard(tp=5)
    assert "\n" not in str(error.value)


def test_few_key_heads_and_groups_are_copied():
    attention = specs.Attention(d_model=D, n_heads=8, n_kv_heads=2, head_dim=8).shard(tp=4)
    assert (attention.n_heads, attention.n_kv_heads) == (2, 1)
    mamba = specs.Mamba2(d_model=D, d_state=8, headdim=8).shard(tp=4)
    assert (mamba.nheads, mamba.ngroups, mamba.d_in_proj) == (4, 1, 2 * 32 + 2 * 8 + 4)


def test_a_rank_holds_the_latents_maps_whole_as_published():
    """arXiv:2502.07846, section 3.2: four layers of DeepSeek-V3 over two ranks, 318,767,104 numbers
    of split weights and 110,886,912 of whole ones. Among the latter it counts W^QR, 8192 x 1536,
    which belongs to the heads; Megatron-Core keeps it in the weight that it splits."""
    (mla,) = {b for _, b in preset("deepseek-v3").layout if isinstance(b, specs.MLA)}
    held = {k: n for k, n in mla.shard(tp=2).weights().items() if "layernorm" not in k}
    assert 4 * sum(held.values()) == 318_767_104 + 110_886_912 - 4 * 8192 * 1536 // 2


def test_experts_are_dealt_out_and_the_router_stays_whole():
    moe = specs.MoE(d_model=D, d_ff=96, n_experts=8, topk=2)
    shard = moe.shard(tp=2, ep=4)
    assert (shard.n_experts, shard.d_ff) == (2, 48)
    assert shard.weights()["router.weight"] == moe.weights()["router.weight"]
    assert 8 * shard.weights()["experts.down_proj"] == moe.weights()["experts.down_proj"]
    assert 2 * shard.flops(l=6) - moe.flops(l=6) == 6 * (2 * D * 8 + 2 * D * 2)  # router, combine


def test_an_odd_vocabulary_is_padded():
    assert specs.Embedding(vocab=101, d_model=D).shard(tp=4).vocab == 26
    assert specs.Head(vocab=101, d_model=D).shard(tp=4).vocab == 26


NAMES = ("zamba2-2.7b", "zamba-7b-v1", "blackmamba-2.8b", "jamba-v0.1", "llama-3.1-8b")
NAMES += ("kimi-linear-48b-a3b", "recurrentgemma-2b", "qwen3-next-80b-a3b")


@given(st.sampled_from(NAMES), st.integers(1, 24))
def test_stages_cover_each_layer_once_and_in_order(name, pp):
    model = preset(name)
    stages = Parallel(gpus=pp, pp=pp).stages(model)
    assert sum((stage.layout for stage in stages), ()) == model.layout
    sizes = [len(stage.layers) for stage in stages]
    assert len(sizes) == pp and sum(sizes) == len(model.pattern)
    assert sizes == sorted(sizes) or max(sizes) - min(sizes) == 1
    assert [bool(stage.before) for stage in stages] == [True] + [False] * (pp - 1)


def test_a_shared_block_is_on_each_stage_that_uses_it():
    model = preset("zamba2-2.7b")
    held = [{name for name, _ in stage.layout} for stage in Parallel(gpus=3, pp=3).stages(model)]
    attention = "model.layers.6.shared_transformer.self_attn"
    assert all(attention in names for names in held)
    assert "model.embed_tokens" in held[0] & held[2]  # the head is the embedding
    assert "model.embed_tokens" not in held[1]


def test_the_first_stage_holds_the_most_micro_batches():
    p = Parallel(gpus=8, pp=4, micro_batch=2, global_batch=12)
    assert (p.dp, p.micro_batches) == (2, 3)
    assert [p.in_flight(i) for i in range(4)] == [3, 3, 2, 1]
    assert Parallel(gpus=8, pp=4).micro_batches == 4


def refused(words, model="llama-3.1-8b", tokens=None, **how):
    with pytest.raises(ValueError, match="^" + re.escape(words)) as error:
        p = Parallel(**how)
        p.check(preset(model))
        p.tokens(tokens)
    assert "\n" not in str(error.value)


def test_each_refusal_names_the_number_to_change():
    refused("gpus is 6, expected a multiple of tp * pp * cp (4)", gpus=6, tp=2, pp=2)
    refused("tp is 0, expected a whole number above 0", tp=0)
    refused("zero is 4, expected 0, 1, 2 or 3", zero=4)
    refused("ep is 3, expected a divisor of dp * cp (4)", gpus=4, ep=3)
    refused(
        "global_batch is 6, expected a multiple of dp * micro_batch (4 * 1)", gpus=4, global_batch=6
    )
    refused("tp is 3, expected a divisor of n_heads (32) of the attention", gpus=3, tp=3)
    refused("ep is 2, expected 1: Llama-3.1-8B has no experts", gpus=2, ep=2)
    refused(
        "ep is 16, expected a divisor of n_experts (8) of the moe",
        "mixtral-8x7b-v0.1",
        gpus=16,
        ep=16,
    )
    refused("pp is 33, expected at most the model's 32 layers", gpus=33, pp=33)
    refused("tokens is 4097, expected a multiple of cp (2)", tokens=4097, gpus=2, cp=2)
    odd = specs.Attention(d_model=D, n_heads=24, n_kv_heads=6, head_dim=8)
    with pytest.raises(
        ValueError, match="^tp is 4, expected a divisor or a multiple of n_kv_heads"
    ):
        odd.shard(tp=4)
