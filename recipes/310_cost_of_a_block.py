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
# # What does a block cost?
#
# **Goal.** Say, before anything is trained, what each ingredient of a hybrid costs in parameters,
# FLOPs, bytes and state, and where the cost sits.
# **Needs** a CPU and a few seconds.
#
# Every architecture in this book is a stack of blocks, and every block here is declared once, as a
# list of einsums. An einsum such as `b l d_model, d_model d_inner -> b l d_inner` says which axes
# meet. The number of multiplications is the product of those axes; a weight is an operand without
# the batch axis `b`. Nothing else is needed: the
# [counting conventions](../docs/conventions.md) list five rules and the switches.

# %%
import matplotlib.pyplot as plt

from cookbook_lib import plots
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.chips import chip
from cookbook_lib.calculators.hardware import roofline
from cookbook_lib.calculators.presets import preset
from cookbook_lib.calculators.runs import Run
from cookbook_lib.plots import table

plots.use()

# %% [markdown]
# ## Run: one layer, row by row
#
# Zamba2-1.2B has 38 Mamba-2 layers. Here is one of them while it reads a prompt of 4096 tokens.

# %%
zamba2 = preset("zamba2-1.2b")
(_, norm), (_, mamba2) = zamba2.letters["m"]
print(f"d_model {mamba2.d_model}, d_inner {mamba2.d_inner}, {mamba2.nheads} heads", end=" ")
print(f"of {mamba2.headdim}, d_state {mamba2.d_state}, chunks of {mamba2.chunk_size} tokens")

rows = mamba2.costs(b=1, l=4096)
total = sum(r.flops for r in rows)
table(
    [
        {
            "op": r.op,
            "parameters": r.params,
            "MFLOP": round(r.flops / 1e6),
            "share": f"{r.flops / total:.1%}",
            "FLOPs: product of": r.formula,
        }
        for r in rows
    ]
)

# %% [markdown]
# Read the column of shares. The two projections `in_proj` and `out_proj` do most of the work, as in
# an MLP; what makes the layer a sequence mixer, the scan, is the small rest. And each row with
# parameters is one weight of the checkpoint, under its own name.

# %%
d, n = mamba2.d_model, mamba2.d_state
inner, heads = mamba2.d_inner, mamba2.nheads
by_hand = (
    d * (2 * inner + 2 * n + heads)  # in_proj: z, x, B, C, dt
    + (inner + 2 * n) * (4 + 1)  # convolution: four taps and a bias
    + 3 * heads  # dt_bias, A_log, D
    + inner  # norm
    + inner * d  # out_proj
)
projections = sum(r.flops for r in rows if "proj" in r.op) / total
print(f"{mamba2.params():,} parameters, by hand {by_hand:,}; projections do {projections:.0%}")
assert mamba2.params() == by_hand
assert projections > 0.8

# %% [markdown]
# ## Look: the ingredients side by side
#
# The same width, six ways to spend a layer. *Used* is what one token multiplies with; a mixture of
# experts stores more than that.

# %%
d = 2048
ingredients = {
    "attention, 16 heads": specs.Attention(d_model=d, n_heads=16, n_kv_heads=16, head_dim=128),
    "attention, 4 KV heads": specs.Attention(d_model=d, n_heads=16, n_kv_heads=4, head_dim=128),
    "Mamba-1": specs.Mamba1(d_model=d),
    "Mamba-2": specs.Mamba2(d_model=d),
    "gated MLP": specs.MLP(d_model=d, d_ff=8192),
    "MoE, 2 of 8": specs.MoE(d_model=d, d_ff=8192, n_experts=8, topk=2),
}
table(
    [
        {
            "block": name,
            "parameters": spec.params(),
            "used by a token": spec.params_active(),
            "MFLOP a token at 4k": round(spec.flops(l=4096, attention="causal") / 4096e6, 1),
            "MFLOP a token at 64k": round(spec.flops(l=65536, attention="causal") / 65536e6, 1),
            "state at 4k, MiB": round(spec.state_bytes(s=4096) / 2**20, 2),
            "state at 64k, MiB": round(spec.state_bytes(s=65536) / 2**20, 2),
        }
        for name, spec in ingredients.items()
    ]
)

# %% [markdown]
# FLOPs and state grow with the context, and only for attention. The plot shows where they overtake
# the rest.

# %%
context = [2**k for k in range(8, 20)]
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for name in ("attention, 16 heads", "attention, 4 KV heads", "Mamba-1", "Mamba-2"):
    spec = ingredients[name]
    step = [spec.flops(l=1, s=s) / 1e6 for s in context]
    state = [spec.state_bytes(s=s) / 2**20 for s in context]
    axes[0].loglog(context, step, label=name, base=2)
    axes[1].loglog(context, state, label=name, base=2)
axes[0].set(xlabel="context (tokens)", ylabel="MFLOP to decode one token")
axes[1].set(xlabel="context (tokens)", ylabel="state of one layer (MiB, bf16)")
axes[0].legend()
plots.show(fig, "To decode one token, attention costs more with context; Mamba layers stay flat")

# %%
attention = ingredients["attention, 16 heads"]
flat = ingredients["Mamba-2"].state_bytes(s=1)
crossing = next(s for s in range(1, 10_000) if attention.state_bytes(s=s) > flat)
print(f"the KV cache overtakes the Mamba-2 state after {crossing} tokens")
assert {ingredients["Mamba-2"].state_bytes(s=s) for s in context} == {flat}
assert attention.state_bytes(s=2 * 4096) == 2 * attention.state_bytes(s=4096)

# %% [markdown]
# ## From FLOPs to time
#
# A chip has two speeds: arithmetic and memory. A block cannot finish before the slower of the two.
# How many bytes move depends on the kernels, so there are two bounds. *Eager* runs each row alone
# and writes its result to memory; *fused* reads weights, state and input once and writes the output
# once. A real kernel lies between them.

# %%
h100 = chip("h100")
print(f"{h100.name}: {h100.flops:.3g} FLOP/s, {h100.bandwidth:.3g} B/s,", end=" ")
print(f"so {h100.ridge:.0f} FLOPs for each byte keep both busy")

situations = {
    "prompt of 4096": Run(l=4096, attention="causal"),
    "one token after 4096": Run(l=1, s=4096),
    "one token after 65536": Run(l=1, s=65536),
}
bounds = {
    (name, what): roofline(ingredients[name], h100, run)
    for name in ("attention, 16 heads", "Mamba-2", "gated MLP")
    for what, run in situations.items()
}
table(
    [
        {
            "block": name,
            "situation": what,
            "FLOPs per byte, fused": round(r.flops / r.fused_bytes, 1),
            "fused, µs": round(1e6 * r.fused, 1),
            "eager, µs": round(1e6 * r.eager, 1),
        }
        for (name, what), r in bounds.items()
    ]
)

# %% [markdown]
# While it reads a prompt, a fused block does enough arithmetic for each byte to keep the chip busy.
# To decode one token it does about one FLOP for each byte: decoding is reading. That is why the
# bytes of weights and state, and not the FLOPs, decide the speed of a small model that answers one
# user.

# %%
assert all(
    r.flops / r.fused_bytes < h100.ridge / 50
    for (_, what), r in bounds.items()
    if what.startswith("one token")
)

# %% [markdown]
# ## A model is a string of layers
#
# Zamba2-1.2B is written below: `m` is a Mamba-2 layer and `A` the same behind a transformer block
# that all `A` share. The block is stored once and runs six times, so the rule of thumb "two FLOPs
# per parameter and token" falls short.

# %%
plots.model(zamba2)

# %%
rule = 2 * zamba2.params()
really = zamba2.flops(l=4096, attention="causal") / 4096
print(f"{zamba2.params():,} parameters stored, {zamba2.params_used():,} used by each token")
print(f"{really / 1e9:.2f} GFLOP a token: {really / rule:.2f} times the rule of thumb")
assert zamba2.params() == 1_215_064_704  # the checkpoint, see the model's card
assert really > 1.3 * rule

# %% [markdown]
# Change the string to see what attention costs: none, every sixth layer as published, every layer.

# %%
context = [2**k for k in range(10, 19)]
patterns = {"no attention": "m" * 38, "as published": zamba2.pattern, "every layer": "A" * 38}
fig, ax = plt.subplots(figsize=(6, 3.7), layout="constrained")
for name, pattern in patterns.items():
    model = zamba2.but(pattern=pattern)
    gib = [model.state_bytes(s=s) / 2**30 for s in context]
    ax.loglog(context, gib, "o-", base=2, label=name)
ax.axhline(2 * zamba2.params() / 2**30, ls="--", lw=1, color="gray")
ax.text(context[-1], 1.8 * zamba2.params() / 2**30, "weights as published", ha="right", va="top")
ax.set(xlabel="context (tokens)", ylabel="state of one sequence (GiB, bf16)")
ax.legend()
plots.show(fig, "State of Zamba2-1.2B against context, for three layer strings")

# %% [markdown]
# ## Exercises
#
# **1.** At which context does Zamba2-1.2B hold as many bytes of state as of weights? And with eight
# sequences at once?

# %% tags=["answer"]
weights = 2 * zamba2.params()
for batch in (1, 8):
    per_token = zamba2.state_bytes("kv", b=batch, s=1)
    fixed = zamba2.state_bytes(b=batch, s=1) - per_token
    tokens = -(-(weights - fixed) // per_token)
    assert zamba2.state_bytes(b=batch, s=tokens) >= weights
    assert zamba2.state_bytes(b=batch, s=tokens - 1) < weights
    print(f"{batch} sequences: after {tokens:,} tokens each")

# %% [markdown]
# **2.** Move the six `A` to the front of the string. Which of the numbers change?

# %% tags=["answer"]
front = zamba2.but(pattern="A" * 6 + "m" * 32)
same = {
    "parameters": front.params() == zamba2.params(),
    "FLOPs": front.flops(l=4096) == zamba2.flops(l=4096),
    "state": front.state_bytes(s=4096) == zamba2.state_bytes(s=4096),
}
print("unchanged:", ", ".join(name for name, is_same in same.items() if is_same))
# costs do not depend on the order: only quality does
assert all(same.values())

# %% [markdown]
# **3.** Give the shared block 8 key-value heads instead of 32. How much smaller does the cache
# become at 64k tokens, and how much smaller the model?

# %% tags=["answer"]
layers = tuple(
    (
        letter,
        tuple(
            (name, part.but(n_kv_heads=8) if part.component == "attention" else part)
            for name, part in layout
        ),
    )
    for letter, layout in zamba2.layers
)
grouped = zamba2.but(layers=layers)
before, after = zamba2.state_bytes(s=65536), grouped.state_bytes(s=65536)
print(f"cache {before / 2**20:,.0f} MiB -> {after / 2**20:,.0f} MiB, {before / after:.2f} times")
print(f"parameters {zamba2.params():,} -> {grouped.params():,}")
assert zamba2.state_bytes("kv", s=65536) == 4 * grouped.state_bytes("kv", s=65536)

# %% [markdown]
# ## Find the bug
#
# A budget from the calculator page of [zcookbook](https://github.com/Zyphra/zcookbook), the file
# `calc/README.md` at commit `ec06304`: 64 H100 that reach 400 TFLOP/s each, for 60 days, give "132M
# TFLOPs". The page around it walks through every parameter of Mamba and is worth reading. Compute
# the budget. What is wrong with the number?

# %% tags=["answer"]
budget = 400e12 * 64 * 60 * 24 * 3600
print(f"{budget:.3e} FLOP = {budget / 1e21:.1f} billion TFLOP, a thousand times what is printed")
assert round(budget / 1e12 / 132e6) == 1005
