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
# **Needs** a CPU and about a minute; root on Linux for one cell.
# Builds on [chapter 450](450_communication_micro.py) and [chapter 610](610_states_and_caches.py).
#
# A long context does not fit on one device, so its keys and values lie on several. A new token has
# one query for each head. Who has to send what to whom?
# ([Tree Attention](https://arxiv.org/abs/2408.04093), Shyam et al. 2024.)

# %%
from collections import Counter
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from math import ceil

import matplotlib.pyplot as plt
import numpy as np
import torch

from cookbook_lib import plots
from cookbook_lib.calculators.chips import chip
from cookbook_lib.commands.output import nbytes, seconds
from cookbook_lib.communication import links
from cookbook_lib.communication.launch import launch
from cookbook_lib.decoding import tree_costs, tree_torch_bench
from cookbook_lib.decoding.tree_attention import Partial, combine, energy, merge, nothing, partial
from cookbook_lib.decoding.tree_costs import METHODS, Shape, held, messages, published, sent, steps
from cookbook_lib.decoding.tree_fit import (
    ahead,
    judged,
    of_point,
    predictions,
    ratio,
    terms,
)
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
# | 1 | the merge itself as the operator, in pairs | yes (`tree-once`); libraries lack it |
# | 1 | an all-gather of all triples, merged by each | yes (`all-gather`); volume grows with $p$ |
# | 1 | a sum, with a bound in place of the maximum | **no** |
#
# The last one needs no message for the bound $\|q\| \max_s \|k_s\|$, which is never too small.
# Is it ever too large?

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
run = {"todo": [(name, vars(x)) for name in METHODS], "dtype": "fp32", "seconds": 0.3}
live = {row["method"]: row for row in launch(tree_torch_bench.sweep, x.p, run)[0]}
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
# Each rank in a network namespace of its own; `tc` limits its link to 100 MB/s, and the link
# between the two nodes to 25 MB/s. It needs root on Linux. Where that is allowed, a small
# measurement runs now, whenever this page is built:

# %%
live, ways = [], ("tree", "tree-once", "ring-kv", "ring-q")
if reason := links.missing():
    print(f"Not measured here, so these are committed rows: {reason}.")
else:
    for p in (2, 4):
        small = [Shape(s=2**k, p=p, h=8, g=1, k=32) for k in (14, 16)]
        todo = [(name, vars(x)) for x in small for name in ways]
        with links.network(p, rate=100e6, nodes=2, uplink=25e6) as net:
            run = {"todo": todo, "dtype": "bf16", "seconds": 0.3}
            live += launch(tree_torch_bench.sweep, p, run, seats=net.seats)[0]
shown = live or [r for r in committed("tree_attention") if r["p"] < 8 and r["s"] <= 2**16]
points = sorted({(r["p"], r["s"]) for r in shown})
plots.table(
    {"ranks": p, "tokens": f"{s // 1024} Ki"}
    | {way: seconds(of_point(shown, p, s, way)["seconds"]["median"]) for way in ways}
    for p, s in points
)

# %% [markdown]
# Each result is checked against full attention before it counts. A time on a shared machine is
# noisy, so the claim that a tree is ahead of the ring of keys gets one of three verdicts:

# %%
for p, s in points:
    found = ahead(shown, p, s, fast="tree")
    print(f"{p} ranks, {s:,} tokens: a tree is faster: {found}")
    assert found != "fails"

# %% [markdown]
# The same for 2, 4 and 8 ranks and up to a million tokens takes minutes. Those rows lie in
# `docs/data`, from
#
# ```bash
# cookbook bench decode --devices 8 --nodes 2 --rate 100M --uplink 25M --dtype bf16 \
#     --context 16Ki,64Ki,256Ki,1Mi --kv-heads 1 --head-dim 32 --seconds 1.5 --timeout 250
# ```
#
# Lines are these rows, crosses those of the cell above.

# %%
rows = committed("tree_attention")
print(f"{rows[0]['device']}, torch {rows[0]['versions']['torch']}, {rows[0]['date'][:10]}")
ranks, contexts = (sorted({row[key] for row in rows}) for key in ("p", "s"))
fig, axes = plt.subplots(1, len(ranks), figsize=(5.8, 3.4), sharey=True)
MARKS = dict(zip(METHODS, "os^DvP", strict=True))
for ax, p in zip(axes, ranks, strict=True):
    for name, mark in MARKS.items():
        line, now = (
            sorted(
                (r["s"], r["seconds"]["median"]) for r in x if (r["p"], r["method"]) == (p, name)
            )
            for x in (rows, live)
        )
        (drawn,) = ax.loglog(*zip(*line, strict=True), marker=mark, markersize=3, label=name)
        for point in now:
            ax.plot(*point, "x", markersize=7, color=drawn.get_color())
    ax.set(title=f"{p} ranks", xlabel="context (tokens)")
axes[0].set(ylabel="seconds, measured")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
plots.show(
    fig, "Time of a ring of keys grows with the context from the start; the others' grow late"
)

# %% [markdown]
# ## Does the model predict it?
#
# $$t = \text{start} + \alpha \cdot \text{steps} + \frac{\text{sent}}{\beta} +
# \frac{\text{keys and values}}{\text{read}}$$
#
# The last term needs two rates. In `ring-q` a lone token finds one rank at work at a time, and a
# core that has the machine's memory to itself reads faster than each of several. In `ring-kv` a
# shard is read while the next one comes: only the last costs time. The rates are fitted to one half
# of the points for each number of ranks, black as on a chessboard of methods and contexts.

# %%
fits, found = predictions(rows)
assert all(f.alone > f.read for f in fits.values())
plots.table(
    {
        "ranks": p,
        "start": seconds(f.start),
        "a step": seconds(f.alpha),
        "beta / uplink": f"{f.beta / rows[0]['uplink']:.2f}",
        "each core reads": f"{f.read / 1e9:.1f} GB/s",
        "a lone one": f"{f.alone / 1e9:.1f} GB/s",
    }
    for p, f in fits.items()
)

# %% [markdown]
# All ranks share two cores, so a call starts late with eight of them, and $\beta$ holds what the
# processes cost beside the wire. Here is the half that the fit has not seen:

# %%
fig, ax = plt.subplots()
for name in METHODS:
    pairs = [(r["seconds"]["median"], t) for r, t in found if r["method"] == name]
    ax.loglog(*zip(*pairs, strict=True), MARKS[name], label=name)
ends = np.array(ax.get_xlim())
ax.plot(ends, ends, lw=1, color=plots.COLORS[5], zorder=0)
ax.fill_between(ends, ends * 0.75, ends * 1.25, alpha=0.15, color=plots.COLORS[5], lw=0)
ax.set(xlabel="seconds, measured", ylabel="seconds, predicted")
ax.legend()
plots.show(fig, "Points that the fit has not seen lie in or near a band of 25% round the diagonal")
off = np.array([abs(t / r["seconds"]["median"] - 1) for r, t in found])
verdicts = Counter(judged(r, t) for r, t in found)
print(f"off by {np.median(off):.0%} in the median; of {len(off)} points to be within 25%:")
print(", ".join(f"{what} for {n}" for what, n in verdicts.most_common()))
for r, t in found:
    if judged(r, t) != "holds":
        took, due = seconds(r["seconds"]["median"]), seconds(t)
        print(f"{r['p']} ranks, {r['s']:,} tokens, {r['method']}: {took} measured, {due} predicted")
assert np.median(off) < 0.1 and verdicts["holds"] > 0.9 * len(off)

# %% [markdown]
# A call that takes a few milliseconds waits for a core as long as it works; what is not in the
# model shows there first.
#
# ## Does the lead grow with the ranks?
#
# The ring of keys over a tree, at each context:

# %%
plots.table(
    {"ranks": p, "tree": name}
    | {f"{c // 1024:,} Ki": f"{ratio(rows, p, c, fast=name):.1f}" for c in contexts}
    for name in ("tree", "tree-fused", "tree-once")
    for p in ranks
)

# %% [markdown]
# Not everywhere. Of a given context a ring sends $(p-1)/p$ over the slowest link: a half, three
# quarters, seven eighths. From $p$ to $2p$ its time therefore grows by $(2p-1)/(2p-2)$, and the
# lead grows only if the tree's time grows by less: where reading the keys takes far longer than the
# steps that are added. That is the case of long contexts, or of links so slow that bytes alone
# count. The fitted model says where; beside it what was measured:

# %%
table, said = [], {}
for half, p in pairwise(ranks):
    wire = (1 - 1 / p) / (1 - 1 / half)
    for c in contexts:
        one, two = (of_point(rows, n, c, "tree-once") for n in (half, p))
        due = wire / (fits[p].seconds(two) / fits[half].seconds(one))
        got = ratio(rows, p, c, fast="tree-once") / ratio(rows, half, c, fast="tree-once")
        said[p, c] = due, got
        table.append(
            {
                "ranks": f"{half} to {p}",
                "context": f"{c // 1024:,} Ki",
                "of it reading": f"{terms(one)[3] / fits[half].read / fits[half].seconds(one):.0%}",
                "lead, modelled": f"{due:.2f} times",
                "measured": f"{got:.2f} times",
            }
        )
plots.table(table)

# %%
clear = {at: x for at, x in said.items() if not 0.8 < x[0] < 1.25}
right = sum((due > 1) == (got > 1) for due, got in clear.values())
print(f"where the model is clear, {right} of {len(clear)} agree with it;")
assert right == len(clear)
longest = [ratio(rows, p, contexts[-1]) for p in ranks]
print(f"at {contexts[-1]:,} tokens a ring of keys takes", ", ".join(f"{x:.0f}" for x in longest))
print(f"times as long as a fused tree, with {', '.join(map(str, ranks))} ranks")
assert longest == sorted(longest)

# %% [markdown]
# *Of it reading* is the part of the tree's time that goes into keys. Eight ranks on two cores wait
# for each other, so a call of theirs is dear, and only the longest context outweighs that. On a
# cluster each rank brings its own cores and memory: a step stays as cheap, reading takes $1/p$ of
# the time, and the lead grows for longer.
#
# ## The paper's clusters, modelled
#
# **Nothing here is measured, and nothing reproduces the paper.** A model with stated parameters:
# the data sheet's rates of memory and links, ten microseconds for a step between nodes and five
# inside (assumed), and nothing else takes time. Beside it stand the *published* ratios, of ten
# tokens of a whole model with the prompt's prefill (tables 1 and 2), and "about 8" at 128 GPUs.
# These are different things, and the point is how far apart they are.

# %%
LLAMA_8B = {"h": 32, "g": 8, "k": 128}
LLAMA_1B = {"h": 32, "g": 8, "k": 64}
WIDE = {"h": 16, "g": 16, "k": 128}
# cluster, ranks, heads, chip, thousand tokens -> seconds of tree and ring: tables 1 and 2
PUBLISHED = [
    (
        "8 H100",
        8,
        LLAMA_8B,
        "h100",
        {32: (0.60, 2.57), 64: (1.08, 4.42), 128: (2.68, 6.38), 256: (2.89, 8.19)},
    ),
    (
        "4 MI300X",
        4,
        LLAMA_8B,
        "mi300x",
        {32: (1.05, 3.57), 64: (2.36, 7.33), 128: (6.43, 16.40), 256: (15.30, 35.12)},
    ),
    (
        "2 RTX 4090",
        2,
        LLAMA_1B,
        "rtx4090",
        {8: (0.34, 1.38), 16: (0.58, 2.77), 20: (0.74, 3.47), 32: (1.01, 5.45)},
    ),
]


def rates(name, far=False):
    """Stated parameters: bytes/s from the data sheet, seconds of a step assumed."""
    one = chip(name)
    return {
        "alpha": 10e-6 if far else 5e-6,
        "beta": one.network if far else one.link,
        "read": one.bandwidth,
    }


def modelled(y, given):
    return [tree_costs.seconds(m, y, given, "halving and doubling") for m in ("ring-kv", "tree")]


rows = []
fig, axes = plt.subplots(1, 3, figsize=(5.8, 3.2), sharey=True)
for ax, (name, p, heads, which, table) in zip(axes, PUBLISHED, strict=True):
    for thousands, (tree, ring) in table.items():
        y = Shape(s=1000 * thousands, p=p, **heads)
        slow, fast = modelled(y, rates(which))
        rows.append((name, thousands, ring / tree, slow / fast))
    at = [r[1] for r in rows if r[0] == name]
    ax.semilogx(at, [r[2] for r in rows if r[0] == name], "o", label="published, measured there")
    ax.semilogx(at, [r[3] for r in rows if r[0] == name], "--", label="modelled, attention alone")
    ax.set_xticks(at, at)
    ax.minorticks_off()
    ax.set(title=name, xlabel="thousand tokens")
axes[0].set(ylabel="ring over tree")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
plots.show(fig, "Published ratios of 2 to 5 beside those of a model, which are others")
plots.table(
    {"cluster": n, "thousand tokens": t, "published": f"{a:.2f}", "modelled": f"{b:.1f}"}
    for n, t, a, b in rows
)

# %%
y = Shape(s=5_120_000, p=128, **WIDE)
given = rates("h100", far=True)
ring, tree = modelled(y, given)
wire = [
    t - tree_costs.critical(m, y) * 2 * y.kv * y.width / given["read"]
    for m, t in zip(("ring-kv", "tree"), (ring, tree), strict=True)
]
bytes_of = [sent(m, y) for m in ("ring-kv", "tree")]
print(f"128 GPUs, 5.12M tokens: messages alone take {wire[0] / wire[1]:.0f} times as long,")
print(f"with the reading of keys {ring / tree:.0f} times: {seconds(ring)} and {seconds(tree)}.")
print(f"Bytes that a rank sends: {bytes_of[0] / bytes_of[1]:,.0f} times. Published: about 8.")
assert ring / tree > 100

# %% [markdown]
# Why more than a thousand, where 8 was measured? The model's tree costs next to nothing, so
# whatever is left out decides: launches of kernels, synchronisation, projections and MLPs that both
# have in common, and a prefill that both have to do. Add a common time $c$ to both, and the ratio
# is $(t_\text{ring} + c) / (t_\text{tree} + c)$:

# %%
common = (ring - 8 * tree) / 7
assert abs((ring + common) / (tree + common) - 8) < 1e-9
print(f"a common time of {seconds(common)} a token would make it 8")

# %% [markdown]
# ## Which method when
#
# Break-even points from the formulas: between two nodes of H100s, with the parameters above, for
# the heads of Llama 3.1 8B in bf16 on 8 ranks. "Queries" are all new tokens of all sequences.

# %%
ring_kv, ring_q = "ring-kv", "ring-q"
given = rates("h100", far=True)


def crossing(cheap, other, base, grow, most=2**30):
    """The smallest n, in steps of 1%, from which `other` takes less time than `cheap`."""
    n = 1
    while n < most:
        y = grow(base, n)
        if tree_costs.seconds(other, y, given, "halving and doubling") < tree_costs.seconds(
            cheap, y, given, "halving and doubling"
        ):
            return n
        n = max(n + 1, ceil(n * 1.01))
    return None


def batch(y, n):
    return replace(y, b=n)


def new(y, n):
    return replace(y, l=n)


def context(y, n):
    return replace(y, s=n)


base = Shape(s=2**17, p=8, **LLAMA_8B)
few, many = (
    crossing("all-gather", "tree-fused", base, batch),
    crossing("tree-fused", ring_kv, base, new),
)
short = crossing(ring_kv, "tree-fused", replace(base, s=8), context)
doubling = replace(base, b=1)
once = [tree_costs.seconds(m, doubling, given, "halving and doubling") for m in METHODS]
best = METHODS[int(np.argmin(once))]
gone = base.g * base.k * base.width / (base.h * (base.k + 1) * base.acc)
print(f"bytes alone: a ring of keys sends less from {gone:.1%} of the context as new tokens on")
assert abs(many / (gone * base.s) - 1) < 0.25
plots.table(
    [
        {"when": "one token, one sequence", "take": best, "break-even": f"{seconds(min(once))}"},
        {"when": "many sequences", "take": "tree-fused", "break-even": f"from {few:,} queries"},
        {"when": "a chunk of a prompt", "take": "ring-kv", "break-even": f"from {many:,} queries"},
        {"when": "a short context", "take": "ring-kv", "break-even": f"below {short:,} tokens"},
    ]
)

# %% [markdown]
# `ring-q` for one token is as small a message, and reads one shard after another; its place is a
# batch or a chunk, where all ranks are busy at once. The chunk of a prompt is the paper's case
# turned round: for prefill a ring of keys is right, which is what
# [Ring Attention](https://arxiv.org/abs/2310.01889) was made for.
#
# ## Where the paper disagrees with itself
#
# - One sentence says that Ring is up to four times faster; its tables say that Tree is.
# - The text says that the gap widens with the context. Its table 1 says the opposite: see the cell
#   below.
# - Its formulas of volume compare a sum over all ranks in one iteration with a rank's total.
# - Attention over 80,000 tokens at width 2048 is said to take in the order of ten microseconds; the
#   memory alone needs more.

# %%
for name, _, _, _, table in PUBLISHED:
    ratios = [ring / tree for tree, ring in table.values()]
    print(f"{name}: " + ", ".join(f"{x:.2f}" for x in ratios))
    assert (ratios[-1] > ratios[0]) == (name == "2 RTX 4090")
least = 2 * 80_000 * 2048 * 2 / chip("h100").bandwidth
print(f"reading 80,000 keys and values of width 2048 takes {seconds(least)} at least")
assert least > 10 * 1e-5

# %% [markdown] tags=["bug"]
# Published code ([Zyphra/tree_attention](https://github.com/Zyphra/tree_attention), `tree_decode`
# of `llama_flash_sp.py` at `3ba6328`), written anew without the all-reduces. For one sequence it is
# right. For which input is it wrong?


# %% tags=["bug"]
def published_merge(outputs, lses):
    """Merge outputs (b, 1, h, k) by logsumexps (b, h)."""
    m = torch.stack(lses).amax(0)
    weights = [(lse - m).exp() for lse in lses]
    n = sum(out * w[..., None] for out, w in zip(outputs, weights, strict=True))
    return n / sum(weights)[..., None]


# %% tags=["answer"]
shapes = {}
for sequences in (1, 2):
    some = [Partial(*(x[:sequences] for x in part)) for part in parts if part.d.all()]
    outputs = [part.output(q.dtype).transpose(1, 2) for part in some]
    merged = published_merge(outputs, [part.lse[..., 0] for part in some])
    shapes[sequences] = tuple(merged.shape)
print(shapes)
assert shapes == {1: (1, 1, h, k), 2: (2, 2, h, k)}

# %% [markdown] tags=["answer"]
# With one sequence $(1, h, 1)$ broadcasts against $(1, 1, h, k)$ as meant. With two, the batch of
# the weights meets the axis of queries: each sequence is weighted by the other's too. `lse` needs
# an axis for the queries.

# %% [markdown]
# ## Exercises
#
# **1.** A token's keys and values in fp8 rather than bf16: what changes for the ring of keys, and
# what for the tree?

# %% tags=["answer"]
y = Shape(s=2**20, p=8, **LLAMA_8B)
for name in ("ring-kv", "tree-fused"):
    print(f"{name}: {nbytes(sent(name, y))} to {nbytes(sent(name, replace(y, width=1)))}")
assert sent("ring-kv", y) == 2 * sent("ring-kv", replace(y, width=1))
assert sent("tree-fused", y) == sent("tree-fused", replace(y, width=1))

# %% [markdown] tags=["answer"]
# The ring sends half. The tree's partial results stay in fp32, and it reads half as much.

# %% [markdown]
# **2.** How many numbers does each rank get in an all-gather over 128 ranks, against a tree in
# pairs?

# %% tags=["answer"]
y = Shape(s=5_120_000, p=128, **WIDE)
for name in ("all-gather", "tree-once"):
    print(f"{name}: {sent(name, y) / y.acc:,.0f} numbers")
assert sent("all-gather", y) / sent("tree-once", y) == 127 / 7
