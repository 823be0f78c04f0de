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
# # Tree Attention, from energy to cluster
#
# **Goal.** Derive why attention to keys on many devices needs one small message and not the keys;
# say what each way sends, in how many steps, and which one to take when.
# **Needs** a CPU and about forty seconds.
#
# A long context does not fit on one device, so its keys and values lie on several. A new token has
# one query for each head. Who has to send what to whom?
# ([Tree Attention](https://arxiv.org/abs/2408.04093), Shyam et al. 2024.)

# %%
from dataclasses import replace
from functools import reduce
from math import ceil

import matplotlib.pyplot as plt
import numpy as np
import torch

from cookbook_lib import plots
from cookbook_lib.calculators.chips import chip
from cookbook_lib.commands.output import nbytes, seconds
from cookbook_lib.communication.launch import launch
from cookbook_lib.decoding import tree_bench, tree_costs
from cookbook_lib.decoding.tree_attention import Partial, combine, energy, merge, nothing, partial
from cookbook_lib.decoding.tree_costs import METHODS, Shape, held, messages, published, sent, steps
from cookbook_lib.decoding.tree_fit import fitted, halves, ratio
from cookbook_lib.results import committed

plots.use()
_ = torch.manual_seed(0)

# %% [markdown]
# ## Attention is a gradient
#
# Take one number for a query, its **energy**, with a source $z$ that is zero in the end:
#
# $$F(z) = \log \sum_s \exp(q \cdot k_s + z \cdot v_s)$$
#
# Its gradient at $z = 0$ is $\sum_s \mathrm{softmax}(q \cdot k)_s \, v_s$: attention.

# %%
b, h, l, k, s = 2, 4, 1, 16, 64
q = torch.randn(b, h, l, k, dtype=torch.float64)
keys, values = (torch.randn(b, h, s, k, dtype=torch.float64) for _ in "kv")
full = torch.nn.functional.scaled_dot_product_attention(q, keys, values)

z = torch.zeros_like(q, requires_grad=True)
(gradient,) = torch.autograd.grad(energy(q, keys, values, z, k**-0.5).sum(), z)
off = (gradient - full).abs().max().item()
assert off < 1e-14
print(f"gradient of the energy against attention: {off:.1e}")

# %% [markdown]
# ## A logarithm of a sum may be cut anywhere
#
# $F$ is a logsumexp, and logsumexp is associative: groups of keys can be added up first, each on
# its own device, and the groups in any order. What a device needs to remember of its keys are three
# things: the largest score $m$, the sum $d = \sum e^{s - m}$ and the sum $n = \sum e^{s - m} v$.
# Two such triples merge into one.

# %%
at = [0, 10, 37, 37, 64]  # four shards, one of them empty
parts = [
    partial(q, keys[:, :, i:j], values[:, :, i:j]) for i, j in zip(at[:-1], at[1:], strict=True)
]
one, two, three, four = parts
orders = {
    "one by one": merge(merge(merge(one, two), three), four),
    "as a tree": merge(merge(one, two), merge(three, four)),
    "backwards": reduce(merge, reversed(parts), nothing(q)),
    "all at once": combine(Partial(*map(torch.stack, zip(*parts, strict=True)))),
}
rows = []
for name, found in orders.items():
    off = (found.output(q.dtype) - full).abs().max().item()
    assert off < 1e-14
    rows.append({"order": name, "off full attention": f"{off:.1e}"})
plots.table(rows)

# %% [markdown]
# The triple of a shard is $k + 2$ numbers for each query and head, however many keys the shard has.
# So a tree of $\log_2 p$ steps does what a ring that passes keys needs $p - 1$ large steps for.
#
# ## How many all-reduces does it take?
#
# Published are three: of the maximum, of $n$, of $d$. How far can that come down, exact and without
# overflow?
#
# | all-reduces | how | safe? |
# |---|---|---|
# | 3 | maximum; numerator; denominator | yes (`tree`) |
# | 2 | maximum; numerator and denominator in one message | yes (`tree-fused`) |
# | 1 | the merge itself as the operator, in pairs | yes (`tree-once`); no library has that operator |
# | 1 | an all-gather of all triples, merged by each | yes (`all-gather`); volume grows with $p$ |
# | 1 | a sum, with a bound in place of the maximum | **no** |
#
# The last one needs no message for the bound $|q| \max |k|$, which is never too small. Is it ever
# too large?

# %%
hot = 40 * q[:1, :1]
hot_keys = 40 * keys[:1, :1]
scores = (hot @ hot_keys.mT).squeeze() * k**-0.5
bound = hot.norm() * hot_keys.norm(dim=-1).max() * k**-0.5
print(f"largest score {scores.max():.0f}, bound {bound:.0f}")
print(f"sum of exp(score - bound): {(scores - bound).exp().sum():g}, so the output is 0 / 0")
assert (scores - bound).exp().sum() == 0 < (scores - scores.max()).exp().sum()

# %% [markdown]
# And why $m$, where the paper and flash kernels take the logsumexp? At scores of ten thousand a
# logsumexp in fp32 has an error of up to half a thousandth, and $e$ to its power is the weight of a
# whole shard. A maximum is one of the scores, and has no such error.

# %%
big = torch.full((1, 1, 1, 4), 50.0)
same = torch.full((1, 1, 64, 4), 50.0)
v = torch.randn(1, 1, 64, 4)
v[:, :, :7] += 10
due = v.mean(2, keepdim=True)  # all scores are equal
two = [partial(big, same[:, :, c], v[:, :, c], 1.0) for c in (slice(7), slice(7, 64))]
kernels = [Partial(x.output(torch.float32), torch.ones_like(x.d), x.lse) for x in two]
rows = []
for name, pair in {"m and d": two, "logsumexp, as kernels give it": kernels}.items():
    off = (merge(*pair).output(torch.float32) - due).abs().max().item()
    rows.append({"carried in fp32": name, "off by": f"{off:.1e}"})
plots.table(rows)

# %% [markdown]
# ## Six ways, counted
#
# `ring-kv` passes keys and values round, which is the paper's baseline. `ring-q` passes the query
# and its triple, which the paper does not compare. The formulas are held against what PyTorch's
# profiler counts, and each result against full attention, before anything is printed.
#
# ```bash
# cookbook bench decode --devices 4 --context 64Ki --method all
# cookbook bench decode --backend jax --devices 4 --context 64Ki --method tree,ring-kv
# ```

# %%
x = Shape(s=2**14, p=4, h=8, g=2, k=64, width=4)
run = {"names": list(METHODS), "shapes": [vars(x)], "dtype": "fp32", "seconds": 0.3}
live = {row["method"]: row for row in launch(tree_bench.sweep, x.p, run)[0]}
assert set(live) == set(METHODS) and all(row["checked"] for row in live.values())
plots.table(
    {
        "method": name,
        "collectives": sum(m.times * m.beside for m in messages(name, x)),
        "steps": steps(name, x),
        "each rank sends": nbytes(sent(name, x)),
        "time here": seconds(live[name]["seconds"]["median"]),
        "error": f"{live[name]['error']:.0e}",
    }
    for name in METHODS
)

# %% [markdown]
# Four processes share the cores of one machine here, so the times say nothing about a cluster; the
# bytes and steps hold anywhere. Steps are those of ring all-reduces, as gloo runs them.
#
# ## What does a rank hold?
#
# The paper gives $4btd + 2bd$ numbers for the ring and $2btd + 2bd + 2bn_h$ for the tree, with $t$
# tokens on each device. Its figure 4 reports 524 MB and 1040 MB of difference at 64,000 tokens.

# %%
rows = []
for d, reported in [(2048, 524), (4096, 1040)]:
    t, n_h = 64_000, d // 128
    gap = 2 * (published("ring-kv", t, d, 1, n_h) - published("tree", t, d, 1, n_h)) / 1e6
    two, many = (Shape(s=p * t, p=p, h=n_h, g=n_h, k=128) for p in (2, 8))
    ours = [(held("ring-kv", y) - held("tree", y)) / 1e6 for y in (two, many)]
    assert abs(gap / reported - 1) < 0.01 and abs(ours[0] / gap - 1) < 1e-3
    rows.append(
        {
            "d": d,
            "reported (MB)": reported,
            "formula (MB)": round(gap),
            "held here, p = 2": round(ours[0]),
            "held here, p = 8": round(ours[1]),
        }
    )
plots.table(rows)

# %% [markdown]
# From three ranks on our ring holds another shard: its own, which the next token needs, the one in
# use and the one that comes. With $4btd$ either the cache itself travels, and comes home after $p$
# hops, or nothing overlaps.
#
# ## Measured on two tiers
#
# Each rank in a network namespace of its own; `tc` limits its link, and the link between two nodes
# to a quarter of that. The rows were measured with this command, for 2, 4 and 8 ranks, and lie in
# `docs/data`: it needs root on Linux.
#
# ```bash
# cookbook bench decode --devices 8 --nodes 2 --rate 100M --uplink 25M --dtype bf16 \
#     --context 16Ki,64Ki,256Ki,1Mi --kv-heads 1 --head-dim 32 --seconds 0.5 --timeout 250
# ```

# %%
rows = committed("tree_attention")
print(f"{rows[0]['device']}, {rows[0]['versions']}, {rows[0]['date'][:10]}")
ranks = sorted({row["p"] for row in rows})
fig, axes = plt.subplots(1, len(ranks), figsize=(5.8, 3.4), sharey=True)
for ax, p in zip(axes, ranks, strict=True):
    for name in METHODS:
        group = sorted((r["s"], r["seconds"]["median"]) for r in rows if (r["p"], r["method"]) == (p, name))
        ax.loglog(*zip(*group, strict=True), marker="o", markersize=3, label=name)
    ax.set(title=f"{p} ranks", xlabel="context (tokens)")
axes[0].set(ylabel="seconds, measured")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
plots.show(fig, "Time of a ring of keys grows with the context; the others' hardly does")

# %% [markdown]
# The ring of keys over the fused tree, at each context:

# %%
contexts = sorted({row["s"] for row in rows})
plots.table(
    {"ranks": p} | {f"{c // 1024} Ki": f"{ratio(rows, p, c):.1f}" for c in contexts} for p in ranks
)

# %%
longest = [ratio(rows, p, contexts[-1]) for p in ranks]
print(f"at {contexts[-1]:,} tokens: " + ", ".join(f"{x:.1f}" for x in longest))
LAST
