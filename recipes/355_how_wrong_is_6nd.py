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
# # How wrong is 6ND?
#
# **Goal.** Say for any model and any context how far the rule $6ND$ is from the FLOPs of training,
# which $N$ to put into it, and when attention makes the rule useless.
# **Needs** a CPU and about ten seconds.
# Builds on [chapter 330](330_transformer_costs.py).
#
# $6ND$: each of $N$ parameters multiplies and adds once for each of $D$ tokens, forward, and twice
# as much backward. The rule is honest about what it leaves out: everything without a parameter.
# Here is that rest, computed from the einsums of each model.

# %%
import matplotlib.pyplot as plt

from cookbook_lib import plots
from cookbook_lib.calculators.presets import preset
from cookbook_lib.plots import table

plots.use()
KINDS = {
    "dense": "llama-3.1-8b",
    "experts": "mixtral-8x7b-v0.1",
    "SSM": "mamba2-2.7b",
    "SSM, experts": "blackmamba-2.8b",
    "hybrid": "nemotron-h-8b",
    "hybrid, shared": "zamba2-2.7b",
}
MODELS = {kind: preset(name) for kind, name in KINDS.items()}


def ratio(model, tokens, n, attention="causal"):
    """FLOPs of a training step over 6 n D."""
    return model.step_flops(l=tokens, attention=attention) / (6 * n * tokens)


rows = []
for kind, model in MODELS.items():
    counts = model.params(), model.params_active(), model.params_used()
    stored, active, used = (ratio(model, 4096, n) for n in counts)
    rows.append(
        {
            "kind": kind,
            "model": model.name,
            "stored": f"{stored:.2f}",
            "active": f"{active:.2f}",
            "used": f"{used:.2f}",
        }
    )
    assert 0.9 < used < 1.15
table(rows)

# %% [markdown]
# The numbers are FLOPs of the rows divided by $6ND$, at 4096 tokens, for three meanings of $N$:
# every parameter stored, those that a token's experts leave active, and those that it *uses*, a
# shared block once for each use. With the stored $N$ the rule is off by a factor of four in one
# direction and by half in the other. With the used $N$ it is within a tenth for all.
#
# ## Run: what the rule leaves out
#
# What is left over at 4096 tokens, by kind of work: lookups cost nothing although they have
# parameters; attention and scans cost something although they have none.

# %%
rows = []
for kind, model in MODELS.items():
    forward = model.costs(l=4096, attention="causal")
    total = sum(r.flops for r in forward)
    products = sum(r.flops for r in forward if r.params and r.kind == "matmul")
    pairs = sum(r.flops for r in forward if r.op in ("scores", "values"))
    in_attention = sum(
        r.flops for r in forward if r.op in ("scores", "values") and r.component == "attention"
    )
    looked_up = sum(
        r.params
        for r in forward
        if r.kind == "lookup" and r.name not in {x.name for x in forward if x.kind == "matmul"}
    )
    rows.append(
        {
            "kind": kind,
            "products with weights": f"{products / total:.1%}",
            "attention": f"{in_attention / total:.1%}",
            "scan and the rest": f"{1 - (products + in_attention) / total:.1%}",
            "lookups in N": f"{looked_up / model.params_used():.1%}",
        }
    )
    assert products > 0.85 * total
table(rows)

# %% [markdown]
# An untied embedding is in $N$ and multiplies nothing, so the rule counts too much; attention and
# the scan are not in $N$, so it counts too little. For short contexts the two errors partly cancel.
#
# ## Look: the context decides
#
# Products with weights cost the same for each token at every context. A scan does too. Attention
# grows with the context: a query meets as many keys as there are tokens before it.

# %%
contexts = [2**k for k in range(9, 21)]
fig, ax = plt.subplots(figsize=(5.8, 3.8))
for kind, model in MODELS.items():
    curve = [ratio(model, n, model.params_used()) for n in contexts]
    ax.plot(contexts, curve, "o-", label=f"{model.name} ({kind})")
ax.set(xscale="log", yscale="log", xlabel="tokens of a sequence", ylabel="FLOPs / 6 N D, N used")
ax.set_xticks([512, 4096, 32768, 262144], ["512", "4k", "32k", "256k"])
ax.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
ax.minorticks_off()
ax.legend(fontsize=8)
plots.show(
    fig, "Pure SSMs stay near one at every context; attention leaves the rule behind from 32k on"
)
pure, dense = MODELS["SSM"], MODELS["dense"]
assert (
    abs(ratio(pure, 2**20, pure.params_used()) / ratio(pure, 4096, pure.params_used()) - 1) < 0.01
)
assert ratio(dense, 2**20, dense.params_used()) > 5

# %% [markdown]
# For an SSM the rule is as right at a million tokens as at a thousand. For attention there is a
# context at which the pairs cost as much as all products with weights. It has a closed form. With
# $L$ layers of attention whose queries are $w$ wide in all, causal attention takes $2 s w$ FLOPs
# forward for each token and layer ($2 \cdot 2 \cdot w \cdot s / 2$), so half of the FLOPs are
# pairs at
#
# $$s = \frac{2 N_{\text{used}}}{2 L w} = \frac{N_{\text{used}}}{L w}$$

# %%
rows = []
for name in ("llama-3.1-8b", "mixtral-8x7b-v0.1", "nemotron-h-8b", "zamba2-2.7b", "zamba2-7b"):
    model = preset(name)
    blocks = [b for _, b in model.layout if b.component == "attention"]
    width, n = blocks[0].d_q, model.params_used()
    closed = n / (len(blocks) * width)
    forward = model.costs(l=int(closed), attention="causal")
    pairs = sum(
        r.flops for r in forward if r.op in ("scores", "values") and r.component == "attention"
    )
    rows.append(
        {
            "model": model.name,
            "attention layers": len(blocks),
            "queries, wide": width,
            "half at s": f"{closed:,.0f}",
            "pairs there": f"{pairs / sum(r.flops for r in forward):.1%}",
        }
    )
    assert abs(pairs / sum(r.flops for r in forward) - 0.5) < 0.05
table(rows)

# %% [markdown]
# Few layers of attention move that point out. Wide ones move it back in: Zamba2's attention is
# twice as wide as its stream.
#
# ## Causal or dense?
#
# A causal mask hides half of the pairs. A good kernel skips them; the convention of many papers and
# of PyTorch's counter counts them. Which is in use changes the answer most where attention matters:

# %%
rows = []
for tokens in (4096, 32768, 131072):
    row = {"tokens": tokens}
    for kind in ("dense", "hybrid, shared", "SSM"):
        model = MODELS[kind]
        both = [ratio(model, tokens, model.params_used(), a) for a in ("causal", "dense")]
        row[model.name] = f"{both[0]:.2f} or {both[1]:.2f}"
    rows.append(row)
assert rows[0]["mamba2-2.7b"].split(" or ")[0] == rows[0]["mamba2-2.7b"].split(" or ")[1]
table(rows)

# %% [markdown]
# Causal first, dense second. A utilisation (MFU) that is reported with the dense count looks
# better than one with the causal count, for the same run. Say which you use; this book's training
# times use causal. (The [counting conventions](../docs/conventions.md) list the switches.)
#
# ## Exercises
#
# **1.** The PaLM paper (arXiv:2204.02311, appendix B) counts $6N + 12 L H Q T$ FLOPs a token, with
# $L$ layers, $H$ heads of size $Q$, $T$ tokens and $N$ without embeddings. Which of our conventions
# is it? Check it on Llama-2-7B.

# %% tags=["answer"]
llama = preset("llama-2-7b")
palm = 6 * (llama.params() - llama.params_embedding()) + 12 * 32 * 32 * 128 * 4096
dense_count, causal_count = (
    llama.step_flops(l=4096, attention=a) / 4096 for a in ("dense", "causal")
)
print(f"PaLM's {palm:.4e}, dense {dense_count:.4e}, causal {causal_count:.4e}")
assert abs(palm / dense_count - 1) < 1e-3 and palm / causal_count > 1.05

# %% [markdown]
# **2.** Someone budgets Mixtral-8x7B for $10^{12}$ tokens by $6ND$ with the $N$ of its name, eight
# times seven billion. By how much too large is the budget?

# %% tags=["answer"]
mixtral = MODELS["experts"]
budget, needed = 6 * 56e9, mixtral.step_flops(l=4096, attention="causal") / 4096
print(f"{budget / needed:.1f} times: it stores {mixtral.params() / 1e9:.1f} billion", end=" ")
print(f"and uses {mixtral.params_used() / 1e9:.1f}")
assert 4 < budget / needed < 4.5

# %% [markdown]
# **3.** At which context does training Zamba2-2.7B cost twice what it costs at 4096 tokens, for
# each token? And Llama-3.1-8B?


# %% tags=["answer"]
def twice(model):
    each = model.step_flops(l=4096, attention="causal") / 4096
    return next(
        n
        for n in range(4096, 10**6, 4096)
        if model.step_flops(l=n, attention="causal") / n > 2 * each
    )


hybrid = MODELS["hybrid, shared"]
print(f"Zamba2-2.7B: {twice(hybrid):,} tokens; Llama-3.1-8B: {twice(dense):,}")
assert twice(dense) < twice(hybrid)

# %% [markdown]
# **4.** Full recomputation repeats the forward pass of the layers. What does $6ND$ become?

# %% tags=["answer"]
for kind in ("dense", "SSM"):
    model = MODELS[kind]
    more = model.step_flops(recompute=True, l=4096, attention="causal")
    less = model.step_flops(l=4096, attention="causal")
    print(f"{model.name}: {more / less:.3f} times, so nearly 8ND instead of 6ND")
    assert 1.3 < more / less < 4 / 3

# %% [markdown]
# ## Find the bug
#
# `calc/README.md` of [zcookbook](https://github.com/Zyphra/zcookbook) (read at `05093ed`) explains
# $6ND$ well, and counts a step of a transformer's MLP as three times a forward pass, as it is.
# Then it gives a FLOP budget: with 400 TFLOP/s on each of 64 H100 for 60 days, "we get a budget of
# 132M TFLOPs". Compute it.

# %% tags=["answer"]
budget = 400e12 * 64 * 60 * 24 * 60 * 60
print(f"{budget:.3e} FLOP are {budget / 1e12:.3e} TFLOP: 132.7 billion, not 132 million")
days = 132e6 * 1e12 / (400e12 * 64) / 3600
print(f"132 million TFLOP are {days:.1f} hours of the same cluster")
assert round(budget / 1e12 / 1e9, 1) == 132.7 and days < 1.5
