# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What does training take of a GPU's memory?
#
# **Goal.** Say where the bytes of a training step go, for a hybrid as well as for a transformer;
# decide whether a model fits a number of GPUs, and what to change if it does not.
# **Needs** a CPU and about fifteen seconds.
# Builds on [chapter 340](340_hybrid_costs.py).
#
# Weights, gradients and optimizer states are a multiplication. Activations are not: what a layer
# keeps for the backward pass depends on its kind and on the kernels that run it. The known formula
# has a 34 in it, and that 34 belongs to one kind of layer.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import torch

from cookbook_lib import plots
from cookbook_lib.benchmarks.saved import saved
from cookbook_lib.blocks.models.modules import make
from cookbook_lib.blocks.models.options import Options
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.chips import chip
from cookbook_lib.calculators.kept import nbytes, tensors
from cookbook_lib.calculators.memory import Training, activations, memory, stages, states
from cookbook_lib.calculators.memory_plan import PARTS, cheapest
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.calculators.presets import preset
from cookbook_lib.calculators.runs import Run
from cookbook_lib.plots import table
from cookbook_lib.results import committed

plots.use()
torch.manual_seed(0)
BLOCK = specs.Mamba2(d_model=256, d_state=64, headdim=32, chunk_size=64)

# %% [markdown]
# ## Run: one block, asked directly
#
# PyTorch tells what it keeps: every tensor that is saved for the backward pass goes through a hook.
# `saved` collects the storages behind them, each once, and leaves out the weights. Beside it stands
# the prediction: the block's spec declares the tensors that it keeps, with axes and dtypes, as it
# declares its einsums.

# %%
run, rows = Run(b=2, l=500), []
for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
    module = make(BLOCK, Options()).to(dtype)
    x = torch.randn(run.b, run.l, BLOCK.d_model, dtype=dtype, requires_grad=True)
    kept = saved(lambda module=module, x=x: module(x), but=module.parameters())
    said = sum(nbytes(BLOCK, t, run, name) for t in tensors(BLOCK, run, "eager"))
    rows.append(
        {
            "dtype": name,
            "tensors": len(kept.tensors),
            "bytes that autograd keeps": kept.nbytes,
            "bytes predicted": said,
            "times its input": kept.nbytes / x.nbytes,
        }
    )
    assert said == kept.nbytes  # to the byte, and the last chunk is not a full one
table(rows)

# %% [markdown]
# Not a rule of thumb but the same number, to the byte. bf16 does not halve it: this package
# computes the scan in float32, and copies what goes in. Which tensors are the large ones?

# %%
sizes = {t.name: nbytes(BLOCK, t, run, "bf16") for t in tensors(BLOCK, run, "eager")}
largest = sorted(sizes, key=sizes.get, reverse=True)[:8]
axes = {t.name: (t.axes, t.dtype) for t in tensors(BLOCK, run, "eager")}
table(
    [
        {
            "tensor": name,
            "axes": axes[name][0],
            "dtype": "bf16" if axes[name][1] == "" else "fp32",
            "KiB": sizes[name] / 1024,
            "share": f"{sizes[name] / sum(sizes.values()):.0%}",
        }
        for name in largest
    ]
)

# %% [markdown]
# Almost all of it is inside the scan: states of chunks, and B, C and x copied for each head. The
# kernels of `mamba_ssm` keep none of this. Their Mamba-2 keeps what `in_proj` made and what the
# scan makes of it, and computes all between again in the backward pass. FlashAttention does the
# same for attention: queries, keys, values, the output, and one number for each query.

# %%
D = 1024
MIXERS = {
    "attention": specs.Attention(d_model=D, n_heads=16, n_kv_heads=16, head_dim=64),
    "Mamba-1": specs.Mamba1(d_model=D),
    "Mamba-2": specs.Mamba2(d_model=D),
    "gated DeltaNet": specs.GatedDeltaNet(d_model=D, n_k_heads=8, n_v_heads=16),
}


def per_token(block, l, kernels):
    """Bytes that a block keeps for each token, in bf16."""
    once = Run(b=1, l=l)
    return sum(nbytes(block, t, once, "bf16") for t in tensors(block, once, kernels)) / l


rows = [
    {
        "mixer": name,
        "fused, KiB a token": per_token(block, 4096, "fused") / 1024,
        "plain PyTorch": per_token(block, 4096, "eager") / 1024,
        "each op alone": per_token(block, 4096, "unfused") / 1024,
    }
    for name, block in MIXERS.items()
]
assert all(row["fused, KiB a token"] < row["plain PyTorch"] for row in rows)
table(rows)

# %% [markdown]
# ## Look: what grows with the length
#
# The bytes of one token do not depend on how many come before it, with one exception: attention
# that keeps its scores. This is why it took a kernel to make long sequences trainable, while a
# scan was never quadratic.

# %%
lengths = [2**k for k in range(8, 16)]
fig, ax = plt.subplots(figsize=(6, 3.7))
curves = [
    ("attention", "unfused", "attention, scores kept"),
    ("Mamba-1", "eager", "Mamba-1, plain"),
]
curves += [(name, "fused", f"{name}, fused") for name in ("Mamba-1", "Mamba-2", "attention")]
for i, (name, kernels, words) in enumerate(curves):
    mib = [per_token(MIXERS[name], l, kernels) * l / 2**20 for l in lengths]
    ax.plot(lengths, mib, "o-" if kernels == "fused" else "--", label=words, color=plots.COLORS[i])
ax.set(xscale="log", yscale="log", xlabel="tokens", ylabel="kept for the backward pass (MiB)")
ax.set_xticks(lengths[::2], [f"{l:,}" for l in lengths[::2]])
ax.minorticks_off()
ax.set_title(f"One mixer of width {D}, bf16")
ax.legend()
plots.show(fig, "Kept bytes against length: linear for all mixers but attention that keeps scores")

# %%
double = {
    words: per_token(MIXERS[name], 32768, k) / per_token(MIXERS[name], 16384, k)
    for name, k, words in curves
}
print("with twice the tokens, a token keeps")
for words, times in double.items():
    print(f"{times:.2f} times as many bytes: {words}")
assert double["attention, scores kept"] > 1.9 and max(list(double.values())[1:]) < 1.01

# %% [markdown]
# ## Where the 34 comes from, and where it ends
#
# [arXiv:2205.05198](https://arxiv.org/abs/2205.05198) counts a transformer layer of width $h$ with
# $a$ heads, $s$ tokens and $b$ sequences: $sbh\,(34 + 5as/h)$ bytes, $34\,sbh$ if the scores are
# not kept, and $2\,sbh$ if only the layer's input is. Here is that layer, from our declarations.
# Two of the 34 are dropout masks and three of the five belong to dropout on the scores; models of
# today have neither.

# %%
h, heads = 4096, 32
GPT = (
    ("ln_1", specs.Norm(d_model=h, bias=True)),
    ("attn", specs.Attention(d_model=h, n_heads=heads, n_kv_heads=heads, head_dim=h // heads)),
    ("ln_2", specs.Norm(d_model=h, bias=True)),
    ("mlp", specs.MLP(d_model=h, d_ff=4 * h, gated=False)),
)
s = 4096
scores = activations(GPT, Training(tokens=s, kernels="unfused"))
fused = activations(GPT, Training(tokens=s))
print(f"each op alone {scores / (s * h):.2f} sbh = 32 + 2as/h = {32 + 2 * heads * s / h:.0f}")
print(f"fused {fused / (s * h):.2f} sbh: 32, and one float32 number per query")
assert round(scores / (s * h), 2) == 32 + 2 * heads * s / h and round(fused / (s * h), 1) == 32

# %% [markdown]
# And now the layers of published models, in the same unit: bytes for each token and channel.

# %%
NAMES = {
    "llama-2-7b": "Llama-2-7B",
    "mixtral-8x7b-v0.1": "Mixtral-8x7B",
    "mamba-2.8b": "Mamba-2.8B",
    "mamba2-2.7b": "Mamba-2-2.7B",
    "zamba2-7b": "Zamba2-7B",
    "jamba-v0.1": "Jamba",
    "nemotron-h-8b": "Nemotron-H-8B",
}
rows = []
for name, words in NAMES.items():
    model, how = preset(name), Training(tokens=s)
    width = model.before[0][1].d_model
    unit = s * width
    layers = {k: model.layer(model.pattern.index(k)) for k in dict.fromkeys(model.pattern)}
    for letter, blocks in layers.items():
        rows.append(
            {
                "model": words,
                "layer": letter,
                "holds": ", ".join(dict.fromkeys(b.component for _, b in blocks)).replace(
                    "norm, ", ""
                ),
                "kept, bytes / sbh": activations(blocks, how) / unit,
                "selective": activations(blocks, how, again=True) / unit,
            }
        )
spread = [row["kept, bytes / sbh"] for row in rows]
print(f"from {min(spread):.0f} to {max(spread):.0f}, where the formula says 34 for each")
assert max(spread) > 3 * min(spread)
table(rows)

# %% [markdown]
# One layer of Zamba2 that asks the shared block keeps several times what its neighbours keep: it
# runs attention of twice the width *and* an MLP *and* a Mamba layer. Sharing weights shares no
# activations. An MoE layer keeps its MLP once for each expert that a token picks.
#
# ## Zamba2-7B on eight GPUs
#
# Weights and gradients take two bytes each in bf16; AdamW with a float32 copy of the weights takes
# twelve. ZeRO splits the twelve (stage 1), the gradients (2) and the weights (3) over the GPUs that
# would hold the same. The paper's own example comes out as printed there:

# %%
billions = (("w", specs.Linear(d_in=75_000, d_out=100_000)),)  # 7.5 of them
paper = [120, 31.4, 16.6, 1.9]  # GB of each of 64 GPUs: arXiv:1910.02054, figure 1
rows = []
for zero, printed in enumerate(paper):
    parts = states(billions, Training(dtype="fp16", parallel=Parallel(gpus=64, zero=zero)))
    weights, gradients, optimizer = (n / 1e9 for n in parts)
    total = weights + gradients + optimizer
    assert round(total, 1) == printed
    rows.append(
        {
            "ZeRO": zero,
            "weights, GB": weights,
            "gradients": gradients,
            "optimizer": optimizer,
            "total": total,
            "the paper": printed,
        }
    )
table(rows)

# %%
zamba = preset("zamba2-7b")
EIGHT = Training(parallel=Parallel(gpus=8))
GB = chip("h100").memory / 1e9


def with_(how, **changes):
    """The same training with other fields, of its own or of its `Parallel`."""
    own = {k: v for k, v in changes.items() if hasattr(how, k)}
    rest = {k: v for k, v in changes.items() if k not in own}
    return replace(how, **own, parallel=replace(how.parallel, **rest))


cases = {
    f"ZeRO-{zero}{words}": with_(EIGHT, zero=zero, recompute=recompute)
    for recompute, words in (("none", ""), ("full", ", full"))
    for zero in range(4)
}
fig, ax = plt.subplots(figsize=(6, 4))
for y, how in enumerate(cases.values()):
    m, left = memory(zamba, how), 0
    for part, color in zip(PARTS, plots.COLORS, strict=False):
        size = getattr(m, part) / 1e9
        ax.barh(-y, size, left=left, height=0.8, color=color, label=part if y == 0 else None)
        left += size
    ax.text(left + 1, -y, f"{left:.0f}", va="center")
ax.axvline(GB, color=plots.INK, ls=":")
ax.text(GB + 1, 1 - len(cases), "one H100", va="center")
ax.set_yticks([-y for y in range(len(cases))], cases)
ax.set(xlabel="memory of one GPU (GB)", xlim=(0, 175))
ax.grid(axis="y", visible=False)
ax.legend(loc="lower right")
ax.set_title("Zamba2-7B on eight H100, 1 x 4096 tokens each")
plots.show(fig, "Without ZeRO Zamba2-7B does not fit an H100; with ZeRO-1 it does")

# %%
plain, one = (memory(zamba, cases[f"ZeRO-{zero}"]) for zero in (0, 1))
change = cheapest(zamba, EIGHT, chip("h100").memory)
print(f"data parallel alone: {plain.total / 1e9:.1f} GB; ZeRO-1: {one.total / 1e9:.1f} GB")
print(f"the cheapest change that the calculator finds: {change[0]}")
assert plain.total > GB * 1e9 > one.total and change[0] == "--zero 1"
assert plain.optimizer == 12 * zamba.params() and plain.weights == 2 * zamba.params()

# %% [markdown]
# ZeRO-1 sends no more than plain data parallelism does, so it comes first. Zyphra reports that
# it trained Zamba-7B so. The same on the command line:
# `cookbook memory zamba2-7b --gpus 8 --zero 1`.
#
# ## What computing again buys
#
# *Selective* keeps nothing that a norm, an activation function, or an attention or scan kernel
# gives again from what is kept. *Full* keeps what enters a layer, and makes a whole layer again
# before its backward pass: it buys the most, and takes one more forward pass of all layers.

# %%
tokens = 4096
none = zamba.step_flops(l=tokens)
rows = []
for recompute in ("none", "selective", "full"):
    m = memory(zamba, with_(EIGHT, zero=1, recompute=recompute))
    more = zamba.step_flops(l=tokens, recompute=recompute == "full") / none - 1
    rows.append(
        {
            "recompute": recompute,
            "activations, GB": m.activations / 1e9,
            "temporary, GB": m.temporary / 1e9,
            "total, GB": m.total / 1e9,
            "FLOPs": "elementwise only" if recompute == "selective" else f"+{more:.0%}",
        }
    )
assert rows[0]["total, GB"] > rows[1]["total, GB"] > rows[2]["total, GB"]
table(rows)

# %% [markdown]
# ## A pipeline and shared weights
#
# A pipeline splits the layers, and Zamba2 shares blocks among its layers. Each stage that uses a
# shared block has a copy of its own, and so has the last stage of the embedding, which is also the
# head. What the stages hold together is more than the model. And the first stage has the most
# micro-batches on their way.

# %%
four = Training(parallel=Parallel(gpus=4, pp=4))
rows, together = [], 0
for m in stages(zamba, four):
    together += m.weights
    row = {"stage": m.stage} | {part: getattr(m, part) / 1e9 for part in ("weights", "optimizer")}
    rows.append(row | {"activations": m.activations / 1e9, "total, GB": m.total / 1e9})
print(f"the stages hold {together / 2e9:.2f} B weights, the model has {zamba.params() / 1e9:.2f} B")
assert together > 2 * zamba.params()
shards = [stages(zamba, Training(parallel=Parallel(gpus=4, tp=4)))[0].weights * 4]
print(f"split by channels instead: {shards[0] / 2e9:.2f} B")
assert 2 * zamba.params() <= shards[0] < together
table(rows)

# %% [markdown]
# ## Does it hold for a whole step?
#
# `cookbook bench memory` runs two training steps of a model, cut to its first layers so that a CPU
# can do it, and counts the bytes of all tensors alive. Plain PyTorch needs something beside the
# five parts: a gradient is whole before it is added to the one that is there, and one of the head's
# size counts. With that, the committed measurements and the prediction agree:

# %%
measured = committed("memory")
rows = [
    {
        "model": row["model"],
        "layers": row["layers"],
        "tokens": row["tokens"],
        "dtype": row["dtype"],
        "predicted, GB": row["plain"] / 1e9,
        "measured, GB": row["measured"]["total"] / 1e9,
    }
    for row in measured
]
assert all(abs(row["ratio"] - 1) < 0.01 for row in measured)
versions = sorted({row["versions"]["torch"] for row in measured})
print("measured on a CPU with PyTorch", ", ".join(versions))
table(rows)

# %% [markdown] tags=["note"]
# **What is left out.** Gaps between the allocator's blocks, buffers of the network library, what
# the driver takes for itself, and what an operation needs only while it runs. Together they are
# gigabytes, not percents, so a plan should leave some room. The parts are added as if all peaks
# met, which is so when the backward pass begins. Experts are taken to be balanced. RoPE's tables
# are not counted, nor a second stream in float32. RWKV-7 has no fused declaration here: its
# numbers are those of plain PyTorch.

# %% [markdown]
# ## Exercises
#
# **1.** How many sequences of 4,096 tokens can a GPU run at once when Zamba2-7B trains on eight
# H100 with ZeRO-1, with each kind of recomputation?

# %% tags=["answer"]
largest = {}
for recompute in ("none", "selective", "full"):
    fits = [
        b
        for b in range(1, 65)
        if memory(zamba, with_(EIGHT, zero=1, recompute=recompute, micro_batch=b)).total <= GB * 1e9
    ]
    largest[recompute] = max(fits, default=0)
print(", ".join(f"{recompute}: {most}" for recompute, most in largest.items()))
assert largest["none"] <= largest["selective"] < largest["full"]

# %% [markdown]
# **2.** Which optimizer saves the most on one GPU without ZeRO, and what is Muon's share of the
# weights?

# %% tags=["answer"]
rows = []
for optimizer in ("adamw", "muon", "adam8bit", "sgd"):
    m = memory(zamba, replace(Training(), optimizer=optimizer))
    rows.append({"optimizer": optimizer, "bytes a weight": m.optimizer / zamba.params()})
muon = 12 - rows[1]["bytes a weight"]  # of the 12, 4 less for each weight in a matrix
print(f"matrices hold {muon / 4:.1%} of the weights; 4 of the bytes are the float32 copy")
assert rows[2]["bytes a weight"] < rows[3]["bytes a weight"] < rows[1]["bytes a weight"] < 12
table(rows)

# %% [markdown]
# **3.** One sequence must be twice as long each time. Up to which length do Mamba-2-2.7B and
# Llama-2-7B train on eight H100 with ZeRO-3 and full recomputation? And with context parallelism
# over all eight?

# %% tags=["answer"]
rows = []
for name in ("mamba2-2.7b", "llama-2-7b"):
    row = {"model": name}
    for cp in (1, 8):
        how = with_(EIGHT, zero=3, recompute="full", cp=cp)
        fits = [
            2**k
            for k in range(10, 24)
            if memory(preset(name), replace(how, tokens=2**k)).total <= GB * 1e9
        ]
        row[f"tokens, cp {cp}"] = max(fits)
    assert row["tokens, cp 8"] == 8 * row["tokens, cp 1"]
    rows.append(row)
table(rows)

# %% [markdown]
# **4.** Jamba has 52 billion weights. What is the fewest H100 (a power of two) that train it with
# 4,096 tokens, and how?

# %% tags=["answer"]
jamba = preset("jamba-v0.1")
found = None
for gpus in (8, 16, 32):
    start = Training(parallel=Parallel(gpus=gpus))
    found = cheapest(jamba, with_(start), chip("h100").memory)
    if found and found[1].parallel.gpus == gpus:
        break
print(f"{gpus} GPUs with {found[0]}: {found[2].total / 1e9:.1f} GB each")
least = 16 * jamba.params() / gpus
print(f"weights, gradients and states alone are {least / 1e9:.1f} GB each if all are split")
assert found[2].total <= GB * 1e9 and 16 * jamba.params() / (gpus / 2) > GB * 1e9

# %% [markdown]
# ## Find the bug
#
# `calc/calc_transformer_mem.py` of [EleutherAI/cookbook](https://github.com/EleutherAI/cookbook)
# (at `c2af7db`) sizes the training of transformers. It knows ZeRO, expert parallelism, DeepSpeed's
# buffers and both rows of the formula above, and its comments say where each term is from.
# The function below follows its lines for a dense model, with the same divisions. The parameters
# are those that it counts for Llama-2-7B.


# %%
def peers_parts(params, gpus, tp, pp, zero, grad_bytes=4):
    """Bytes of a GPU: weights, gradients, optimizer."""
    weights = params * 2 / (tp * pp)
    if zero == 3:
        weights /= gpus
    gradients, optimizer = params * grad_bytes, params * 12
    if zero >= 2:
        gradients /= gpus
    if zero >= 1:
        optimizer /= gpus
    return weights, gradients, optimizer


PARAMS = 6.756e9
rows = []
for zero in (0, 3):
    for tp in (1, 8):
        parts = [n / 2**30 for n in peers_parts(PARAMS, gpus=8, tp=tp, pp=1, zero=zero)]
        names = ("weights, GiB", "gradients", "optimizer")
        rows.append({"ZeRO": zero, "tp": tp} | dict(zip(names, parts, strict=True)))
table(rows)

# %% [markdown] tags=["bug"]
# **A.** Eight GPUs, eight-way tensor parallelism, no ZeRO. Which of the three numbers are right?

# %% tags=["answer"]
llama = preset("llama-2-7b")
right = memory(llama, Training(gradients="fp32", parallel=Parallel(gpus=8, tp=8)))
theirs = peers_parts(PARAMS, gpus=8, tp=8, pp=1, zero=0)
mine = (right.weights, right.gradients, right.optimizer)
for name, theirs_, ours_ in zip(PARTS[:3], theirs, mine, strict=True):
    print(f"{name:>10}: theirs {theirs_ / 2**30:6.2f} GiB, right {ours_ / 2**30:6.2f} GiB")
print("the weights are split over tp and pp; gradients and states of a split weight are split too")
assert abs(theirs[0] / right.weights - 1) < 0.01 and theirs[1] / right.gradients > 7.9

# %% [markdown] tags=["bug"]
# **B.** The same with ZeRO-3: what do all eight GPUs hold together?

# %% tags=["answer"]
held = 8 * peers_parts(PARAMS, gpus=8, tp=8, pp=1, zero=3)[0]
print(f"{held / 2**30:.2f} GiB of weights on all GPUs, and the model has {2 * PARAMS / 2**30:.2f}")
print(
    "ZeRO splits over the copies, gpus / (tp * pp), of which there is one here: not over all GPUs"
)
ours = memory(llama, Training(parallel=Parallel(gpus=8, tp=8, zero=3)))
assert 8 * ours.weights >= 2 * llama.params() > 7.9 * held

# %% [markdown] tags=["bug"]
# **C.** With `--checkpoint-activations` it computes $34\,sbhL$, and quotes the table for it. For 32
# layers of width 4,096 and 4,096 tokens:

# %%
theirs = 34 * 4096 * 4096 * 32
print(f"{theirs / 2**30:.1f} GiB, with one stage of a pipeline and with eight")

# %% tags=["answer"]
full = memory(llama, Training(recompute="full"))
print(f"only what enters a layer is kept, 2 sbh of each: {full.activations / 2**30:.2f} GiB,")
print(f"and one layer at a time is made again: {full.temporary / 2**30:.2f} GiB with the loss")
print("34 is the row without the scores, which FlashAttention gives without computing layers again")
eighth = stages(llama, Training(recompute="full", parallel=Parallel(gpus=8, pp=8)))
print(
    f"a stage of eight with 8 micro-batches on their way: {eighth[0].activations / 2**30:.2f} GiB"
)
assert 2 * 4096 * 4096 * 32 <= full.activations < 1.07 * 2 * 4096 * 4096 * 32
