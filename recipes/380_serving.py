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
# # How fast does a hybrid answer, and what fits?
#
# **Goal.** Predict the time to the first token, the time for each further token, the largest batch
# and the longest context of a model on a chip; say where a state beats a cache, and judge a claim
# about speed before you believe it.
# **Needs** a CPU and about fifteen seconds.
#
# An answer has two phases. *Prefill* runs the whole prompt at once: many tokens share each weight
# that is read, so arithmetic is what takes time. *Decoding* runs one token for each sequence: every
# weight and every cache is read for it, so memory is what takes time. The same model on the same
# chip is two different machines.

# %%
from math import comb

import matplotlib.pyplot as plt

from cookbook_lib import plots
from cookbook_lib.calculators.chips import CHIPS, chip
from cookbook_lib.calculators.presets import preset
from cookbook_lib.calculators.serving import Serving, serving_report
from cookbook_lib.calculators.storage import FORMATS, Storage
from cookbook_lib.commands.output import seconds
from cookbook_lib.plots import table

plots.use()
h100 = chip("h100")
zamba2, phi3 = preset("zamba2-2.7b"), preset("phi-3-mini-4k")
serving = Serving(model=zamba2, chip=h100)
report = serving_report(serving, batch=1, prompt=4096, output=512)
rows = []
for name in ("prefill", "decode"):
    bound = report[name]
    rows.append(
        {
            "pass": name,
            "GB": bound["fused_bytes"] / 1e9,
            "FLOPs a byte": bound["intensity"],
            "bound by": bound["bound_by"],
            "at least": seconds(bound["fused"]),
            "op by op": seconds(bound["eager"]),
        }
    )
print(f"{h100.name} needs {h100.ridge:.0f} FLOPs for each byte to be busy with arithmetic")
assert report["decode"]["intensity"] < h100.ridge < report["prefill"]["intensity"]
table(rows)

# %% [markdown]
# *At least* reads each weight, cache, input and output of a block once; *op by op* writes every
# intermediate result to memory and reads it back. A good kernel lies between the two, nearer to the
# first. Both are bounds at the peak rates of a data sheet: launching kernels and sampling are not
# in them. `cookbook serve-cost zamba2-2.7b` prints the same.
#
# ## Look: does the bound hold?
#
# One measurement of Zamba2-1.2B on an RTX 4090 is reported: 4.86 ms for a step of decoding, 25.5 ms
# for a prompt of 1024 tokens. Nothing here is fitted to it.

# %%
small = Serving(model=preset("zamba2-1.2b"), chip=chip("rtx4090"))
rows = []
for what, bound, measured in (
    ("a step of decoding", small.decode(1, 1025), 4.86e-3),
    ("prompt of 1024 tokens", small.prefill(1, 1024), 25.5e-3),
):
    rows.append(
        {
            "what": what,
            "at least": seconds(bound.fused),
            "op by op": seconds(bound.eager),
            "reported": seconds(measured),
            "of the bound": f"{bound.fused / measured:.0%}",
        }
    )
    assert bound.fused < measured
assert small.prefill(1, 1024).eager > 25.5e-3
table(rows)

# %% [markdown]
# The prompt runs close to the arithmetic that the chip can do. A step of decoding takes longer than
# its bound: memory gives less than the data sheet promises, and launching hundreds of small kernels
# takes time that no roofline knows.
#
# ## Batch: weights are read once for all
#
# Decoding one sequence reads all weights for one token. Decoding many reads them once and serves
# each. What does not get cheaper is the cache: every sequence has its own.

# %%
names = ("zamba2-2.7b", "phi-3-mini-4k", "mamba2-2.7b", "nemotron-h-8b")
context, batches = 4096, [2**k for k in range(11)]
fig, ax = plt.subplots()
for name in names:
    s = Serving(model=preset(name), chip=h100)
    fitting = [b for b in batches if s.fits(b, context)]
    times = [s.decode(b, context).fused for b in fitting]
    rates = [b / t for b, t in zip(fitting, times, strict=True)]
    ax.plot([t * 1e3 for t in times], rates, "o-", label=s.model.name)
    assert rates == sorted(rates)
ax.set(xscale="log", yscale="log", xlabel="time for each token (ms)", ylabel="tokens/s of the chip")
ax.set_xticks([2, 5, 10, 20, 50], [2, 5, 10, 20, 50])
ax.minorticks_off()
ax.set_title("Batch 1, 2, 4, … as far as it fits, 4096 tokens of context")
ax.legend(loc="lower right")
plots.show(
    fig, "More sequences give more tokens a second and longer waits; a pure SSM fits the most"
)

# %% [markdown]
# Each curve begins at batch 1 and ends where memory is full. It rises steeply while weights are
# most of what is read, and bends where caches are. So the end of a curve matters as much as its
# beginning:

# %%
rows = []
for name in (*names, "llama-3.1-8b", "zamba2-7b"):
    s = Serving(model=preset(name), chip=h100)
    longest = s.longest_context(1)
    rows.append(
        {
            "model": s.model.name,
            "weights, GB": s.weights / 1e9,
            "cache of 4096, MB": s.cache(1, context) / 1e6,
            "largest batch": s.largest_batch(context),
            "longest context": "no limit" if longest is None else f"{longest:,}",
        }
    )
    assert s.fits(s.largest_batch(context), context)
    assert not s.fits(s.largest_batch(context) + 1, context)
table(rows)

# %% [markdown]
# (Phi-3's window of 2047 tokens stops its cache, and the window of a model is not its memory: it
# forgets what is further back.) Zamba2-7B keeps more for each token than Llama-3.1-8B, because its
# shared attention is twice as wide as the stream and does not share keys between queries. The
# [chapter on hybrids](340_hybrid_costs.py) shows why.
#
# ## Experts: what a batch reads
#
# A mixture of experts computes $k$ of $E$ experts for a token. One token reads $k$ of them. How
# many do $n$ tokens read? If the router chooses evenly and at random, an expert is left out by one
# token with probability $1 - k/E$ and by all of them with $(1 - k/E)^n$, so on average
#
# $$E \left(1 - \left(1 - \tfrac{k}{E}\right)^n\right)$$
#
# are read. (A router that is less even reads fewer.) The cell checks the chance of being left out
# against a count of all choices, $\binom{E-1}{k} / \binom{E}{k}$.

# %%
E, k = 64, 8  # OLMoE
olmoe, mixtral = preset("olmoe-1b-7b-0924"), preset("mixtral-8x7b-v0.1")
fig, ax = plt.subplots()
tokens = [2**i for i in range(9)]
for model in (olmoe, mixtral):
    s = Serving(model=model, chip=chip("h200"))
    each = [s.decode(n, 512).fused_bytes - s.cache(n, 512) for n in tokens]
    ax.plot(tokens, [x / s.weights for x in each], "o-", label=model.name)
ax.set(xscale="log", xlabel="tokens in the batch", ylabel="read, of all weights", ylim=(0, 1.1))
ax.set_xticks([1, 4, 16, 64, 256], [1, 4, 16, 64, 256])
ax.minorticks_off()
ax.legend()
plots.show(fig, "A few dozen tokens read nearly all experts, although each token computes a few")
for n in (1, 8, 32):
    closed = E * (1 - (1 - k / E) ** n)
    assert abs(closed - E * (1 - (comb(E - 1, k) / comb(E, k)) ** n)) < 1e-9
    print(f"{n:3} tokens read {closed:4.1f} of {E} experts")

# %% [markdown]
# A single user gets the speed of the active parameters. A server with a few dozen sequences reads
# everything, and is as slow per step as a dense model of the full size. It still computes less.
#
# ## Four bits are more than four
#
# Decoding waits for memory, so fewer bits are faster as well as smaller. But a format of four bits
# keeps a scale for each group of weights:

# %%
rows = []
one, two = preset("zamba2-1.2b"), preset("zamba2-2.7b")
for name in ("bf16", "int8", "int4", "int4-g64", "int4-g32", "nvfp4"):
    f = FORMATS[name]
    kept, all_of_it = Storage(weights=name), Storage(weights=name, embed=name)
    rows.append(
        {
            "weights": name,
            "bits": f.mean,
            "1.2B, MB": kept.weights_nbytes(one) / 1e6,
            "embedding too": all_of_it.weights_nbytes(one) / 1e6,
            "2.7B, GB": kept.weights_nbytes(two) / 1e9,
        }
    )
table(rows)

# %% [markdown]
# The column *1.2B* leaves the embedding in bf16, as quantisers do by default; *embedding too* does
# not. Zamba2-1.2B is reported to take less than 700 MB in 4 bits. Which choice does that need?

# %%
under = {
    name: [
        s.weights_nbytes(one) < 700e6
        for s in (Storage(weights=name), Storage(weights=name, embed=name))
    ]
    for name in ("int4", "int4-g64", "int4-g32", "nvfp4")
}
for name, (kept, everything) in under.items():
    print(f"{name:9} under 700 MB: {kept!s:5} with the embedding in bf16, {everything} without")
assert not any(kept for kept, _ in under.values())
assert all(everything for _, everything in under.values())

# %% [markdown]
# Every format keeps the promise if the embedding is quantised as well, and none if it is not.
# Activations, the convolution's state and the state of the SSM stay wide here. Zyphra's posts are
# reported to do the same: an error in a state is carried to every later token.
#
# What do few bits do to speed, and on which chip?

# %%
rows = []
for name, c in CHIPS.items():
    wide, few = (
        Serving(model=one, chip=c, store=Storage(weights=w, embed=w)) for w in ("bf16", "int4")
    )
    rows.append(
        {
            "chip": name,
            "TPOT, bf16": seconds(wide.decode(1, 2048).fused),
            "int4": seconds(few.decode(1, 2048).fused),
            "TTFT of 2048": seconds(few.prefill(1, 2048).fused),
            "estimate": "yes" if c.estimate else "",
        }
    )
    assert few.decode(1, 2048).fused < wide.decode(1, 2048).fused
table(rows)

# %% [markdown]
# The last column marks chips with a number that is not the vendor's own. Four bits make decoding
# less than four times as fast, because cache, states and activations are read as before. They do
# nothing for the prompt: weights are unpacked and multiplied in bf16.
#
# ## Claims, predicted
#
# What do the published comparisons of Zamba2 say, and what does the roofline predict for the same
# pair? Their settings (chip, batch, lengths, kernels) were not found, so these are ours: an H100,
# bf16, one sequence, 2048 tokens. Llama-3.1-8B stands for Llama-3-8B: the shapes are the same.

# %%
CLAIMS = (  # ours, theirs, times faster TTFT, part less memory, times faster decoding
    ("zamba2-2.7b", "phi-3-mini-4k", 2.0, 0.27, 1.29),  # zyphra.com/post/zamba2-small
    ("zamba2-1.2b", "phi-1.5", 1.67, 0.233, None),  # as reported
    ("zamba2-7b", "llama-3.1-8b", 1 / 0.75, None, 1.20),  # as reported
)


def compare(name, other, prompt):
    """How many times faster the first token and each further one, and the part of memory saved."""
    a, b = (Serving(model=preset(n), chip=h100) for n in (name, other))
    first = b.prefill(1, prompt).fused / a.prefill(1, prompt).fused
    further = b.decode(1, prompt).fused / a.decode(1, prompt).fused
    memory = [s.weights + s.cache(1, prompt) for s in (a, b)]
    return first, further, 1 - memory[0] / memory[1]


rows = []
for name, other, ttft, saved, tpot in CLAIMS:
    first, further, less = compare(name, other, 2048)
    rows.append(
        {
            "pair": f"{name} / {other}",
            "TTFT": f"{first:.2f} ({ttft:.2f} claimed)",
            "decoding": f"{further:.2f}" + (f" ({tpot:.2f} claimed)" if tpot else ""),
            "memory": f"-{less:.0%}" + (f" (-{saved:.0%} claimed)" if saved else ""),
        }
    )
    assert first < 1 < ttft and further < 1.01
    assert saved is None or abs(less - saved) < 0.1
table(rows)

# %% [markdown]
# Memory comes out within ten points of the claims. Speed does not: the roofline expects every
# Zamba2 to read a prompt more slowly than its rival, and to decode no faster. The reason is the
# lesson of the [chapter on hybrids](340_hybrid_costs.py): a shared block is stored once and
# computed at every use. So the parameters that a token *uses* decide:

# %%
rows = [
    {
        "model": m.name,
        "stored, G": m.params() / 1e9,
        "used, G": m.params_used() / 1e9,
        "GFLOP a token": m.flops(l=1) / 1e9,
    }
    for pair in CLAIMS
    for m in map(preset, pair[:2])
]
assert zamba2.params() < phi3.params() < zamba2.params_used()
table(rows)

# %% [markdown]
# Who is wrong? Not the arithmetic: neither model can beat its bound. A claim of a speed-up can
# still be true as measured, if the rival ran further from its bound: with attention op by op, with
# keys and values copied at each step, or with a server's padding. Vary the prompt, and take the
# rival op by op:

# %%
prompts = [2**k for k in range(10, 17)]
fig, ax = plt.subplots()
for (name, other, claim, _, _), color in zip(CLAIMS, plots.COLORS, strict=False):
    fused, apart = [], []
    for n in prompts:
        a, b = (Serving(model=preset(x), chip=h100).prefill(1, n) for x in (name, other))
        fused.append(b.fused / a.fused)
        apart.append(b.eager / a.fused)
    ax.plot(prompts, fused, "-", color=color, label=f"{name} against {other}")
    ax.plot(prompts, apart, ":", color=color)
    ax.plot(1150, claim, ">", color=color, ms=8)
    assert max(fused) < claim < max(apart)
ax.axhline(1, color=plots.INK, lw=0.8)
ax.set(xscale="log", yscale="log", xlabel="prompt (tokens)", ylabel="TTFT of the rival / TTFT")
ax.set_xticks([1024, 4096, 16384, 65536], ["1k", "4k", "16k", "64k"])
ax.set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
ax.minorticks_off()
ax.legend(fontsize=8, loc="upper left")
plots.show(
    fig, "Fused, Zamba2 is slower at most prompts; against a rival run op by op it is faster"
)

# %% [markdown]
# Solid: both fused. Dotted: the rival op by op. Triangles: the claims. At long enough prompts each
# claimed speed-up lies between its two lines: it is possible there, and says as much about kernels
# as about architectures. Before you repeat such a number, ask for the chip, the batch, both
# lengths, and the attention kernel of each side.
#
# ## Exercises
#
# **1.** A chat server has an H100 and wants 30 tokens/s for each user at 8192 tokens of context.
# How many users of Zamba2-2.7B can it serve at best, in bf16 and with weights and cache in 8 bits?


# %% tags=["answer"]
def users(store, context=8192, rate=30):
    """The largest batch that fits and is fast enough."""
    s = Serving(model=zamba2, chip=h100, store=store)
    return max(
        b for b in range(1, s.largest_batch(context) + 1) if s.decode(b, context).fused * rate <= 1
    )


plain, eight = users(Storage()), users(Storage(weights="fp8", cache="fp8"))
print(f"{plain} users in bf16, {eight} in 8 bits; memory is what limits both")
assert plain == serving.largest_batch(8192)
assert eight == Serving(
    model=zamba2, chip=h100, store=Storage(weights="fp8", cache="fp8")
).largest_batch(8192)

# %% [markdown]
# **2.** At which batch does decoding Llama-3.1-8B on an H100 stop waiting for memory, if the
# context is short (128 tokens)? Compare with the chip's ridge.

# %% tags=["answer"]
llama = Serving(model=preset("llama-3.1-8b"), chip=h100)
turn = next(b for b in range(1, 2000) if llama.decode(b, 128).bound_by == "math")
print(f"at a batch of {turn}; the ridge is {h100.ridge:.0f} FLOPs a byte")
print("two bytes and two FLOPs for each weight: the batch is the intensity, less what caches cost")
assert h100.ridge < turn < 2 * h100.ridge

# %% [markdown]
# **3.** From which context on does Zamba2-2.7B read more cache than weights at a step of decoding
# with batch 16? And Llama-3.1-8B?


# %% tags=["answer"]
def crossing(name, batch=16):
    s = Serving(model=preset(name), chip=h100)
    read = 2 * s.model.params_used()
    return next(n for n in range(256, 10**6, 256) if s.cache(batch, n) > read)


for name in ("zamba2-2.7b", "llama-3.1-8b"):
    print(f"{name}: from about {crossing(name):,} tokens on")
assert crossing("zamba2-2.7b") < crossing("llama-3.1-8b")

# %% [markdown]
# **4.** `mxfp4` and `nvfp4` both are four bits with scales of eight. Why do they differ, and what
# do they cost for Llama-3.1-8B in bytes?

# %% tags=["answer"]
for name in ("mxfp4", "nvfp4"):
    f, s = FORMATS[name], Storage(weights=name)
    nbytes = s.weights_nbytes(llama.model)
    print(f"{name}: {f.bits} + {f.scale}/{f.group} = {f.mean} bits; {nbytes / 1e9:.2f} GB")
assert FORMATS["nvfp4"].mean - FORMATS["mxfp4"].mean == 8 / 16 - 8 / 32

# %% [markdown]
# **5.** Zamba2-2.7B-Instruct is reported to shrink from 5.38 GB to 1.55 GB in 4 bits. 5.38 GB is
# the total of Zyphra's own code, 2,688,756,640 parameters, in bf16. Which of our formats, with the
# embedding left in bf16, gives the second number?

# %% tags=["answer"]
total, embedding = 2_688_756_640, zamba2.params_embedding()
assert round(2 * total / 1e9, 2) == 5.38
for name in ("int4", "int4-g64", "int4-g32"):
    size = ((total - embedding) * FORMATS[name].mean + embedding * 16) / 8
    print(f"{name}: {size / 1e9:.2f} GB")
print("groups of 64 fit the report; that is no proof that these were used")
assert round(((total - embedding) * 4.25 + embedding * 16) / 8 / 1e9, 2) == 1.55

# %% [markdown]
# ## Find the bug
#
# `calc/calc_transformer_mem.py` of [EleutherAI's cookbook](https://github.com/EleutherAI/cookbook)
# (read at `069ae2e`) estimates memory for inference. It knows that activations of one layer are
# enough, and it counts the tokens that are still to come. Its cache is below, for Llama-2-7B and
# for Llama-3.1-8B with 4096 tokens in bf16. Two things are missing. Which?


# %% tags=["bug"]
def their_cache(hidden_size, num_layers, sequence_length, output_tokens, batch, nbytes=2):
    return nbytes * hidden_size * num_layers * (sequence_length + output_tokens) * batch


rows = []
for name in ("llama-2-7b", "llama-3.1-8b"):
    rows.append(
        {
            "model": name,
            "theirs, GiB": their_cache(4096, 32, 4096, 0, 1) / 2**30,
            "the rows, GiB": preset(name).state_bytes("kv", s=4096) / 2**30,
        }
    )
table(rows)

# %% tags=["answer"]
two_seven, three_one = (preset(n).state_bytes("kv", s=4096) for n in ("llama-2-7b", "llama-3.1-8b"))
theirs = their_cache(4096, 32, 4096, 0, 1)
print(f"keys and values are two tensors: {two_seven / theirs:.0f} times for Llama-2-7B")
print(f"and Llama-3.1 has 8 heads of them for 32 of queries: {three_one / theirs:.1f} times")
print("one error makes the cache too small, the other too large: together they hide")
assert two_seven == 2 * theirs and three_one == 2 * theirs * 8 / 32
