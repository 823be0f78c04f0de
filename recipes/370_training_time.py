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
# # How long does training take, and what does it cost?
#
# **Goal.** Turn a model, a number of tokens and a cluster into a step time, days, GPU hours and
# energy; name what a step waits for; say what each way of splitting a model puts on the wires.
# **Needs** a CPU and about ten seconds.
# Builds on [chapter 360](360_training_memory.py).
#
# A step has three clocks. Arithmetic takes the FLOPs over the peak rate. Memory takes the bytes
# that are read and written over the bandwidth. The wires take what the GPUs send each other over
# the links. If they overlap perfectly, the step takes the longest of the three,
#
# $$T = \max(T_{\text{math}}, T_{\text{memory}}, T_{\text{communication}}),$$
#
# and if communication waits for the rest, it is added. The truth lies above the first; how far is
# what a measured utilisation says.

# %%
import matplotlib.pyplot as plt

from cookbook_lib import plots
from cookbook_lib.calculators.chips import chip
from cookbook_lib.calculators.collectives import collectives
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.calculators.presets import preset
from cookbook_lib.calculators.step_time import step_time, train_report
from cookbook_lib.commands.output import seconds
from cookbook_lib.plots import table

plots.use()
h100 = chip("h100")
zamba, zamba2, llama = preset("zamba-7b-v1"), preset("zamba2-7b"), preset("llama-3.1-8b")
how = Parallel(gpus=128, zero=1, global_batch=1024)
step = step_time(zamba, h100, how, tokens=4096)
for term in ("math", "memory", "communication", "overlapped", "summed"):
    print(f"{term:>14}: {seconds(getattr(step, term))}")
print(f"{zamba.name} on 128 {h100.name}, 1024 x 4096 tokens: bound by {step.bound_by}")
assert step.overlapped == step.math and step.bound_by == "math"

# %% [markdown]
# `cookbook train-time zamba-7b-v1 --gpus 128 --global-batch 1024` prints the same and what goes
# over the wires.
#
# ## Look: published runs
#
# What share of the peak did real runs reach? Zamba-7B took 128 H100 for 30 days on $10^{12}$
# tokens ([Zyphra, April 2024](https://www.zyphra.com/zamba)). Zamba2-7B is reported with 128 H100
# for 50 days, on two or three times $10^{12}$ tokens: sources disagree. For Llama-3.1-8B, the
# model card gives 1.46 million GPU hours and says "15 trillion" tokens and more.

# %%
RUNS = (  # model, tokens, GPU seconds
    (zamba, 1e12, 128 * 30 * 86400),
    (zamba2, 2e12, 128 * 50 * 86400),
    (zamba2, 3e12, 128 * 50 * 86400),
    (llama, 15e12, 1.46e6 * 3600),
)
rows, mfus = [], []
for model, tokens, gpu_seconds in RUNS:
    rule = 6 * model.params() * tokens / gpu_seconds
    counted = model.step_flops(l=4096, attention="causal") / 4096 * tokens / gpu_seconds
    rows.append(
        {
            "model": model.name,
            "tokens": f"{tokens / 1e12:g}e12",
            "6ND, TFLOP/s": rule / 1e12,
            "of peak": f"{rule / h100.flops:.1%}",
            "rows, TFLOP/s": counted / 1e12,
            "MFU": f"{counted / h100.flops:.1%}",
        }
    )
    mfus.append(counted / h100.flops)
    assert 0.1 < mfus[-1] < 0.6
assert rows[0]["of peak"] == "13.2%"
table(rows)

# %% [markdown]
# By $6ND$, Zamba-7B ran at an eighth of the peak. But a shared block is stored once and computed
# thirteen times; with the FLOPs that were really needed it is a fifth
# ([how wrong is 6ND](355_how_wrong_is_6nd.py)). GPU hours of a model card may hold restarts and
# experiments, days of a post may not: such shares compare runs only roughly.
#
# ## From tokens to days
#
# So plan with a utilisation that someone reached. Here is Zamba2-7B on 128 H100 with a share of
# 40%, as a good run has, and of 20%, as above:

# %%
rows = []
for mfu in (0.4, 0.2):
    r = train_report(zamba2, h100, how, 4096, 2 * 10**12, mfu=mfu, price=2.5)
    rows.append(
        {
            "MFU": f"{mfu:.0%}",
            "step": seconds(r["seconds_per_step"]),
            "tokens/s": round(r["tokens_per_second"]),
            "days": r["days"],
            "GPU hours": round(r["gpu_hours"]),
            "MWh": r["energy_joules"] / 3.6e9,
        }
    )
    assert abs(r["days"] * 128 * 24 / r["gpu_hours"] - 1) < 1e-9
print(f"at 2.50 for a GPU hour, the slower run costs {r['cost']:,.0f}")
table(rows)

# %% [markdown]
# The price is an input: there is none that stays true. The energy is that of the boards at their
# limit; hosts, network and cooling come on top.
#
# ## What goes over the wires
#
# Each way to split a model has its own traffic, and each can be counted from the einsums: an op
# that adds up over an axis of which a GPU holds a part makes a sum over GPUs.

# %%
WAYS = {
    "ZeRO-1": Parallel(gpus=64, zero=1, global_batch=256),
    "ZeRO-3": Parallel(gpus=64, zero=3, global_batch=256),
    "tp 8": Parallel(gpus=64, tp=8, zero=1, global_batch=256),
    "pp 4": Parallel(gpus=64, pp=4, zero=1, global_batch=256),
    "cp 4": Parallel(gpus=64, cp=4, zero=1, global_batch=256),
}
table(
    [
        {
            "way": way,
            "for": c.why,
            "what": c.what,
            "GPUs": c.ranks,
            "times": c.times,
            "GB sent": c.sent / 1e9,
        }
        for way, split in WAYS.items()
        for c in collectives(llama, split, 4096)
    ]
)

# %% [markdown]
# ZeRO-1 sends twice the weights in a step, however many micro-batches it has; ZeRO-3 gathers them
# twice and reduces the gradients for each micro-batch. Tensor parallelism sums two activations a
# layer forward and two backward. Are these the papers' counts?

# %%
one = Parallel(gpus=1024, zero=3, global_batch=1024)
sent = sum(c.sent for c in collectives(llama, one, 4096)) / (2 * llama.params())
print(f"ZeRO-3, one micro-batch, 1024 GPUs: {sent:.3f} times the bytes of the weights")
tp = {c.what: c for c in collectives(llama, Parallel(gpus=8, tp=8), 4096)}
for what, c in tp.items():
    print(f"{what}: {c.times} times {c.nbytes / 1e6:.1f} MB")
assert abs(sent - 3) < 0.01  # 3 Psi: arXiv:1910.02054, section 7
# four all-reduces of b s h a layer (arXiv:1909.08053, section 3); one for the embedding, one for
# the head
assert all(c.times == 2 * 32 + 1 and c.nbytes == 2 * 4096 * 4096 for c in tp.values())

# %% [markdown]
# ## Hybrids on the wires
#
# A hybrid sends other things. A Mamba-2 layer sums once forward, not twice, as it has no MLP
# beside it. Zamba's pipeline carries the embeddings along, since shared blocks read them, and
# stages that use the same block must add up its gradients. With the tokens of a sequence spread
# over GPUs, attention passes keys and values round, an SSM one state of fixed size.

# %%
rows = []
for model in (llama, zamba2, preset("nemotron-h-8b"), preset("mamba2-2.7b")):
    found = {
        (c.why, c.what): c.sent
        for split in (Parallel(gpus=2, tp=2), Parallel(gpus=4, cp=4), Parallel(gpus=2, pp=2))
        for c in collectives(model, split, 32768)
    }
    rows.append(
        {
            "model": model.name,
            "tp sums": (found["tp", "sums forward"] + found["tp", "sums backward"]) / 1e9,
            "cp keys": found.get(("cp", "keys and values"), 0) / 1e9,
            "cp states": found.get(("cp", "states"), 0) / 1e9,
            "pp stream": found["pp", "stream"] / 1e9,
            "pp shared": found.get(("pp", "shared weights"), 0) / 1e9,
        }
    )
table(rows)

# %% [markdown]
# GB that a GPU sends for one sequence of 32,768 tokens, split two ways (tp, pp) or four (cp).
# Spreading a long sequence over GPUs costs an SSM nearly nothing.
#
# ## The bubble
#
# A pipeline of $p$ stages is empty at both ends of a step: with $m$ micro-batches a stage works
# $m$ of $m + p - 1$ slots. What does it cost, and what do more micro-batches cost in return?

# %%
fig, ax = plt.subplots()
batches = [2**k for k in range(7)]
for stages in (2, 4, 8):
    waits = [
        step_time(llama, h100, Parallel(gpus=stages, pp=stages, global_batch=m), 4096).bubble
        for m in batches
    ]
    ax.plot(batches, waits, "o-", label=f"{stages} stages")
    assert waits == [(stages - 1) / (m + stages - 1) for m in batches]
ax.set(xscale="log", xlabel="micro-batches in a step", ylabel="part of the step that is empty")
ax.set_xticks(batches, batches)
ax.minorticks_off()
ax.legend()
plots.show(fig, "The bubble falls with the number of micro-batches and rises with that of stages")

# %% [markdown]
# ## More GPUs
#
# Keep the batch of a step, half a million tokens, and add GPUs. Each computes less; what ZeRO-1
# sends stays as much, because every GPU has all the weights. From some number on, a step waits for
# the wires, and more GPUs bring nothing.

# %%
counts, batch, short = [2**k for k in range(3, 10)], 512, 1024
ways = {
    "ZeRO-1": {"zero": 1},
    "ZeRO-3": {"zero": 3},
    "ZeRO-1, tp 8": {"zero": 1, "tp": 8},
}
fig, ax = plt.subplots()
sums = {}
for way, options in ways.items():
    steps = [
        step_time(llama, h100, Parallel(gpus=n, global_batch=batch, **options), short)
        for n in counts
    ]
    sums[way] = [s.communication for s in steps]
    ax.plot(counts, sums[way], "o-", label=f"wires, {way}")
math = [3 * llama.flops(b=batch, l=short, attention="causal") / (n * h100.flops) for n in counts]
ax.plot(counts, math, color=plots.INK, label="arithmetic")
ax.set(xscale="log", yscale="log", xlabel="H100 GPUs", ylabel="seconds in a step, at best")
ax.set_xticks(counts, counts)
ax.minorticks_off()
ax.legend(fontsize=8)
plots.show(
    fig, "Arithmetic falls with the number of GPUs; what ZeRO-1 sends does not, and they cross"
)
takes_over = next(n for n, m, w in zip(counts, math, sums["ZeRO-1"], strict=True) if w > m)
print(f"with ZeRO-1 on {takes_over} GPUs, the wires take longer than the arithmetic")
assert takes_over > 128 and all(w > m for w, m in zip(sums["ZeRO-3"], math, strict=True))

# %% [markdown]
# ZeRO-3 with one short sequence at a time never hides: it gathers all weights for a thousand
# tokens. Tensor parallelism sends less of the weights and more of the activations.
#
# ## Exercises
#
# **1.** How many days does Zamba2-2.7B take on $3 \cdot 10^{12}$ tokens with 64 A100 at 40%? How
# many H100 at the same share finish in 30 days?

# %% tags=["answer"]
small, a100 = preset("zamba2-2.7b"), chip("a100")
run = train_report(small, a100, Parallel(gpus=64, global_batch=512), 4096, 3 * 10**12, mfu=0.4)
needed = run["flops"] / (0.4 * h100.flops * 30 * 86400)
print(f"{run['days']:.0f} days; {needed:.0f} H100")
assert abs(run["flops"] / (64 * 0.4 * a100.flops * 86400) - run["days"]) < 1e-6

# %% [markdown]
# **2.** With how many sequences in a step does ZeRO-3 hide behind arithmetic for Llama-3.1-8B on 64
# H100, one sequence of 4096 tokens at a time for each GPU? And of 1024 tokens?

# %% tags=["answer"]
for tokens in (4096, 1024):
    s = step_time(llama, h100, Parallel(gpus=64, zero=3, global_batch=64), tokens)
    print(f"{tokens} tokens: math {seconds(s.math)}, wires {seconds(s.communication)}", end=" ")
    print(f"-> {s.bound_by}")
    more = step_time(llama, h100, Parallel(gpus=64, zero=3, global_batch=640), tokens)
    assert abs(more.math / more.communication - s.math / s.communication) < 1e-9
assert s.bound_by == "communication"
print("more sequences do not help: each micro-batch gathers the weights anew; larger ones do")

# %% [markdown]
# **3.** Tensor parallelism over 16 GPUs leaves the node of eight. What does that do to a step of
# Nemotron-H-8B on 64 H100, compared with 4 and 8?

# %% tags=["answer"]
nemotron, wires = preset("nemotron-h-8b"), {}
for n in (4, 8, 16):
    s = step_time(nemotron, h100, Parallel(gpus=64, tp=n, global_batch=256), 4096)
    wires[n] = sum(c.seconds(h100) for c in s.wires if c.why == "tp")
    print(f"tp {n:2}: math {seconds(s.math)}, sums over the channels {seconds(wires[n])}")
print("a rank sums as many activations as before, over fewer and slower lanes")
assert wires[4] < wires[8] and wires[16] > 2 * wires[8]

# %% [markdown]
# **4.** How much longer does a step of Zamba2-7B take with full recomputation, and why not quite a
# third? And with selective recomputation, which repeats only products without weights?

# %% tags=["answer"]
plain, light, again = (
    step_time(zamba2, h100, how, 4096, recompute=r) for r in ("none", "selective", "full")
)
print(f"full: {again.overlapped / plain.overlapped:.3f} times, since the head is not repeated")
print(f"selective: {light.overlapped / plain.overlapped:.3f} times")
assert 1 < light.math / plain.math < again.math / plain.math < 4 / 3

# %% [markdown]
# ## Find the bug
#
# `calculate_mfu` of [NeMo Automodel](https://github.com/NVIDIA-NeMo/Automodel) (read at `b3711ff`)
# divides the FLOPs of a step by the number of GPUs, the time and the peak. The formula is right.
# Its peak, "Peak TFLOPs of the hardware (default: H100)", is 1979. A run of Llama-3.1-8B on 8 H100
# takes 3.2 seconds for 64 sequences of 4096 tokens in bf16. What does the function report, and
# what is right?

# %% tags=["bug"]
tflop = llama.step_flops(b=64, l=4096, attention="causal") / 1e12
print(f"{tflop:,.0f} TFLOP in a step; reported: {100 * tflop / (8 * 3.2) / 1979.0:.1f}%")

# %% tags=["answer"]
right = tflop * 1e12 / (8 * 3.2) / h100.flops
print(f"right for bf16: {right:.1%}; 1979 is the rate with 2:4 sparsity, or that of fp8")
assert abs(h100.flops / 1979e12 - 0.5) < 1e-3 and abs(h100.rate("fp8") / 1979e12 - 1) < 1e-3
