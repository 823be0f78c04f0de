"""Training memory is what papers print, what autograd keeps, and what common sense demands."""

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import saved as save_config
from tiny import CHECKPOINTS, one_thread  # noqa: F401 (a fixture)
from transformers import AutoConfig, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from cookbook_lib.benchmarks.saved import saved
from cookbook_lib.benchmarks.tracked import tracked_peak
from cookbook_lib.blocks.cache import DTYPES
from cookbook_lib.blocks.models import build
from cookbook_lib.calculators.memory import LOSS, Training, activations, memory, stages, states
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.calculators.presets import preset
from cookbook_lib.calculators.runs import BITS
from cookbook_lib.calculators.specs import MLA, MLP, Attention, Linear, Norm

LLAMA = preset("llama-2-7b")


@pytest.mark.parametrize("zero, gb", [(0, 120), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_zero_takes_what_its_paper_says(zero, gb):
    """arXiv:1910.02054, figure 1: 7.5 B parameters on 64 GPUs, mixed precision with Adam."""
    layout = (("w", Linear(d_in=75_000, d_out=100_000)),)
    how = Training(dtype="fp16", parallel=Parallel(gpus=64, zero=zero))
    assert round(sum(states(layout, how)) / 1e9, 0 if zero == 0 else 1) == gb


B, S, H, HEADS = 2, 256, 64, 4
GPT_LAYER = (
    ("ln_1", Norm(d_model=H, bias=True)),
    ("attn", Attention(d_model=H, n_heads=HEADS, n_kv_heads=HEADS, head_dim=H // HEADS)),
    ("ln_2", Norm(d_model=H, bias=True)),
    ("mlp", MLP(d_model=H, d_ff=4 * H, gated=False)),
)
MASKS = 2  # bytes of sbh for the two dropout masks of a layer, which no model here has
STATISTICS = 2 * 2 * 2 * S * B  # two numbers of each norm and token, which the paper leaves out


def gpt(**how) -> int:
    p = Parallel(gpus=how.get("tp", 1), micro_batch=B, **how)
    run = Training(tokens=S, kernels="unfused", parallel=p)
    return activations(GPT_LAYER, run) - STATISTICS // (p.tp if p.sp else 1)


def test_a_transformer_layer_keeps_what_its_paper_counts():
    """arXiv:2205.05198, equations 1, 2 and 4, less dropout.

    Dropout adds a mask of one byte to each score and keeps the scores twice: 5as/h is 2as/h here.
    """
    sbh = S * B * H
    scores = 5 - 1 - 2
    assert gpt() == sbh * (34 - MASKS) + scores * HEADS * S * S * B
    tp = sbh * (10 - MASKS + 24 / 2) + scores * HEADS * S * S * B / 2
    assert gpt(tp=2) == tp
    assert gpt(tp=2, sp=True) == (sbh * (34 - MASKS) + scores * HEADS * S * S * B) / 2


def test_without_scores_a_transformer_layer_keeps_34_sbh_and_fused_attention_does_so():
    """Equation 6 is selective recomputation of the scores alone, less dropout."""
    fused = Training(tokens=S, parallel=Parallel(micro_batch=B))
    rest = B * S * (HEADS + 4) * 4  # float32: a sum for each score's row, and the statistics
    assert activations(GPT_LAYER, fused) - rest == S * B * H * (34 - MASKS)
    again = activations(GPT_LAYER, fused, again=True)  # nor the activation's result, nor a norm's
    assert again - rest == S * B * H * (34 - MASKS - 8 - 2 * 2)


def test_latent_attention_keeps_what_its_paper_counts():
    """arXiv:2502.07846, section 5.1, less its scores and its dropout.

    The paper leaves out what the norms of the latents read, and takes a rank to hold all of the
    latents where sequence parallelism gives it, in Megatron-Core, those of its tokens.
    """
    mla = MLA(d_model=H, n_heads=HEADS, q_lora_rank=24, kv_lora_rank=16)
    layout = (("norm", Norm(d_model=H)), ("attn", mla))
    h, q, kv = H, mla.q_lora_rank, mla.kv_lora_rank
    d, rope, sb = mla.v_head_dim, mla.qk_rope_head_dim, S * B
    assert mla.qk_nope_head_dim == d
    inputs = 2 * sb * (q + kv + rope) + 3 * 4 * sb  # of the norms, and three of their statistics
    rows = 4 * sb * HEADS  # float32: a sum for each row of the scores
    for tp in (1, 2):
        heads = HEADS / tp
        wide = 4 * (d + rope) * heads + 2 * d * heads + 2 * d * heads
        paper = sb * (4 * h + 2 * (q + kv) + wide)
        whole = Training(tokens=S, parallel=Parallel(gpus=tp, tp=tp, micro_batch=B))
        assert activations(layout, whole) == paper + inputs + rows / tp
        split = replace(whole, parallel=replace(whole.parallel, sp=True))
        paper = sb * (4 * h / tp + 2 * (q + kv) / tp + wide)
        assert activations(layout, split) == paper + inputs / tp + rows / tp


def test_full_recomputation_keeps_two_bytes_of_each_number_that_enters_a_layer():
    how = Training(recompute="full")
    ends = memory(LLAMA.but(pattern="a"), how).activations - 2 * 4096 * 4096
    assert memory(LLAMA, how).activations == 32 * 2 * 4096 * 4096 + ends


def left_out(spec, options, b: int, l: int, dtype: str) -> int:
    """What a model keeps beyond what its specs declare, since they do not know its options."""
    size, more = BITS[dtype] // 8, 0
    for _, block in spec.layout:
        if block.component == "attention":
            tables = 2 * l * block.head_dim * size
            copied = 0 if block.qk_norm == "head" else b * l * block.d_q * size
            more += tables if options.rope else -copied
        if block.component == "moe" and not options.normalise:
            more -= b * l * 4 * (1 + block.topk)
    return more


FAMILIES = ["llama", "llama tied, biased, llama3", "mistral", "qwen3", "mixtral", "olmoe", "jamba"]
FAMILIES += ["mamba", "mamba2", "zamba", "zamba2", "zamba2 groups, rope, lora"]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_whole_model_keeps_what_is_said_byte_for_byte(name, dtype, tmp_path):
    config = AutoConfig.for_model(name.split()[0], **CHECKPOINTS[name])
    save_config(config, tmp_path, full=True)
    model = build(tmp_path).to(DTYPES[dtype])
    for b, l in ((2, 32), (3, 22)):
        tokens = torch.zeros(b, l, dtype=torch.long)
        found = saved(lambda tokens=tokens: model(tokens), but=model.parameters()).nbytes
        p = Parallel(micro_batch=b)
        how = Training(tokens=l, dtype=dtype, kernels="eager", parallel=p)
        more = left_out(model.spec, model.options, b, l, dtype)
        assert memory(model.spec, how).activations + more == found


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_llama_layer_of_transformers_keeps_what_is_said(attention):
    """To the byte in float32; with fused attention it makes no copy of the output."""
    b, l, d, heads = 2, 64, 64, 4
    config = LlamaConfig(
        hidden_size=d,
        intermediate_size=160,
        num_attention_heads=heads,
        num_key_value_heads=2,
        attn_implementation=attention,
    )
    layer, x = LlamaDecoderLayer(config, 0), torch.randn(b, l, d, requires_grad=True)
    tables = LlamaRotaryEmbedding(config)(x, torch.arange(l)[None])
    mask = torch.full((1, 1, l, l), -1e9).triu(1) if attention == "eager" else None
    found = saved(
        lambda: layer(x, attention_mask=mask, position_embeddings=tables),
        but=(*layer.parameters(), *tables),
    )
    norm, mlp = Norm(d_model=d), MLP(d_model=d, d_ff=160)
    mixer = Attention(d_model=d, n_heads=heads, n_kv_heads=2, head_dim=d // heads)
    layout = (("1", norm), ("2", mixer), ("3", norm), ("4", mlp))
    kernels = {"eager": "unfused", "sdpa": "eager"}[attention]
    how = Training(tokens=l, dtype="fp32", kernels=kernels, parallel=Parallel(micro_batch=b))
    copied = 0 if attention == "eager" else b * l * d * 4
    assert activations(layout, how) - copied == found.nbytes


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_loss_needs_three_times_the_logits_in_float32(dtype):
    x, w = (torch.randn(n, 8, dtype=DTYPES[dtype], requires_grad=True) for n in (256, 4096))
    target = torch.zeros(256, dtype=torch.long)

    def step():
        F.cross_entropy(F.linear(x, w).float(), target).backward()

    assert tracked_peak(step) == pytest.approx(LOSS * 256 * 4096, rel=1e-3)


PRESETS = ["zamba2-2.7b", "zamba-7b-v1", "blackmamba-1.5b", "jamba-v0.1", "llama-3.1-8b"]
PRESETS += ["mixtral-8x7b-v0.1", "mamba-130m", "falcon-h1-0.5b", "nemotron-h-8b"]
PRESETS += ["deepseek-v3", "kimi-linear-48b-a3b", "lfm2-1.2b", "minimax-m1", "qwen3-next-80b-a3b"]
PRESETS += ["recurrentgemma-2b", "xlstm-7b", "rwkv7-goose-world3-1.5b"]
SIZES = st.sampled_from([1, 2, 4])


CHOICES = st.fixed_dictionaries(
    {
        "model": st.sampled_from(PRESETS),
        "split": st.fixed_dictionaries({k: SIZES for k in ("tp", "pp", "cp", "ep")}),
        "dp": SIZES,
        "sp": st.booleans(),
        "zero": st.integers(0, 3),
        "micro_batch": st.integers(1, 2),
        "tokens": st.sampled_from([512, 4096]),
        "dtype": st.sampled_from(["bf16", "fp32"]),
        "optimizer": st.sampled_from(["adamw", "muon", "sgd", "adam8bit"]),
        "recompute": st.sampled_from(["none", "selective", "full"]),
        "kernels": st.sampled_from(["eager", "fused", "unfused"]),
    }
)


def chosen(c: dict) -> tuple[Model, Training]:
    """The model and the way to train it, if there is such a way."""
    model, split = preset(c["model"]), c["split"]
    gpus = split["tp"] * split["pp"] * split["cp"] * c["dp"]
    if not any(hasattr(block, "n_experts") for _, block in model.layout):
        split = split | {"ep": 1}
    try:
        p = Parallel(gpus=gpus, **split, **{k: c[k] for k in ("sp", "zero", "micro_batch")})
        p.check(model)
    except ValueError:
        assume(False)
    names = ("tokens", "dtype", "optimizer", "recompute", "kernels")
    return model, Training(parallel=p, **{k: c[k] for k in names})


def but(how: Training, **parallel) -> Training:
    return replace(how, parallel=replace(how.parallel, **parallel))


many = settings(max_examples=40, deadline=None)


@many
@given(CHOICES)
def test_all_gpus_together_hold_the_model(choices):
    model, how = chosen(choices)
    p = how.parallel
    together = sum(m.weights for m in stages(model, how)) * p.tp * p.cp * p.dp
    assert together >= model.params() * BITS[how.dtype] // 8


@many
@given(CHOICES)
def test_a_higher_stage_of_zero_never_takes_more(choices):
    model, how = chosen(choices)
    totals = [memory(model, but(how, zero=z)).total for z in range(4)]
    assert totals == sorted(totals, reverse=True)
    if how.parallel.shared_by == 1:
        assert len(set(totals)) == 1


@many
@given(CHOICES)
def test_making_more_again_never_takes_more(choices):
    model, how = chosen(choices)
    each = {r: stages(model, replace(how, recompute=r)) for r in ("full", "selective", "none")}
    for full, some, none in zip(*each.values(), strict=True):
        assert full.activations <= some.activations <= none.activations
        assert full.total <= some.total <= none.total


@many
@given(CHOICES)
def test_splitting_more_never_takes_more_of_a_gpu(choices):
    model, how = chosen(choices)
    p = how.parallel
    now = stages(model, how)
    assert memory(model, but(how, sp=True)).total <= memory(model, how).total
    for field in ("tp", "dp", "cp"):
        halves = {"gpus": 2 * p.gpus} | ({} if field == "dp" else {field: 2 * getattr(p, field)})
        halves |= {"micro_batch": p.micro_batch}
        try:
            more = but(how, **halves)
            more.parallel.check(model)
        except ValueError:
            continue
        for a, b in zip(stages(model, more), now, strict=True):
            assert a.weights <= b.weights and a.optimizer <= b.optimizer
            assert a.activations <= b.activations and a.total <= b.total, field


@many
@given(CHOICES)
def test_fused_kernels_keep_the_least(choices):
    model, how = chosen(choices)
    each = [memory(model, replace(how, kernels=k)).total for k in ("fused", "eager", "unfused")]
    run, norms = how.run, [b for _, b in model.layout if isinstance(b, Norm) and b.bias]
    exact = 4 * run.b * run.l * len(norms) * how.parallel.pp  # a GPU's LayerNorms keep float32
    assert each[0] <= each[1] + exact and each[1] <= each[2]


def test_a_pipeline_holds_a_micro_batch_for_each_stage_to_come():
    how = Training(parallel=Parallel(gpus=4, pp=4))
    first, second, third, last = stages(LLAMA, how)
    ends = 4096 * 8 + 4096 * (2 * 4096 * 2 + 4)  # the tokens' numbers; final norm and head
    one = last.activations - ends + 4096 * 8
    assert (second.activations, third.activations) == (3 * one, 2 * one)
    assert first.activations == 4 * (one + 4096 * 8)


def test_muon_keeps_one_number_for_a_matrix_and_two_for_the_rest():
    rest = LLAMA.params_embedding() + 32000 * 4096 + 65 * 4096
    pure = {"master": False, "dtype": "fp32"}
    muon, adamw, sgd = (
        memory(LLAMA, Training(optimizer=name, **pure)).optimizer
        for name in ("muon", "adamw", "sgd")
    )
    assert adamw == 2 * sgd == 8 * LLAMA.params()
    assert muon == 4 * (LLAMA.params() - rest) + 8 * rest


@pytest.mark.parametrize("bits, each", [("fp32", 16), ("bf16", 8)])
def test_without_a_master_copy_states_have_the_dtype_of_the_weights(bits, each):
    m = memory(LLAMA, Training(master=False, dtype=bits))
    assert m.weights + m.gradients + m.optimizer == each * LLAMA.params()


def test_a_peer_s_memory_for_eight_way_tensor_parallelism_was_eight_times_too_high():
    """EleutherAI/cookbook at c2af7db, calc_transformer_mem.py: 25.17 and 75.50 GiB for 6.76 B."""
    m = memory(LLAMA, Training(gradients="fp32", parallel=Parallel(gpus=8, tp=8)))
    params = m.weights / 2
    assert 8 * params == pytest.approx(LLAMA.params(), rel=1e-3)  # norms are on each rank
    assert m.gradients / 2**30 == pytest.approx(3.15, abs=0.02)
    assert m.optimizer / 2**30 == pytest.approx(9.44, abs=0.03)


@pytest.mark.parametrize(
    "how, words",
    [
        ({"tokens": 0}, "tokens is 0, expected a whole number above 0"),
        ({"tokens": 3, "parallel": Parallel(gpus=2, cp=2)}, "tokens is 3, expected a multiple"),
        ({"dtype": "int8"}, "dtype is 'int8', expected one of fp32, bf16, fp16"),
        ({"optimizer": "lion"}, "optimizer is 'lion', expected one of adamw"),
        ({"recompute": "some"}, "recompute is 'some', expected one of none, selective, full"),
        ({"kernels": "cuda"}, "kernels is 'cuda', expected one of eager, unfused, fused"),
    ],
)
def test_nonsense_is_refused(how, words):
    with pytest.raises(ValueError, match="^" + re.escape(words)):
        Training(**how)
