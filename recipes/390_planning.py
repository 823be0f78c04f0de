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
# # Which architecture for my budget?
#
# **Goal.** Go from an empty page and a few limits to one architecture, and defend every choice in
# it; know which part of the defence is counted, which is predicted and which is only assumed.
# **Needs** a CPU and half a minute.
# Builds on [chapter 370](370_training_time.py) and [chapter 380](380_serving.py).
#
# A plan begins with what is fixed: the device, the context, the training budget. Then it looks at
# everything that could be built, crosses out what does not fit, and crosses out what something else
# beats in every respect. What is left is short enough to think about. `cookbook plan` does this on
# the command line; here are the same steps one by one.

# %%
import warnings
from collections import Counter
from dataclasses import replace

import matplotlib.pyplot as plt
import torch

from cookbook_lib import plots
from cookbook_lib.calculators.chips import CHIPS
from cookbook_lib.calculators.configs import from_dict
from cookbook_lib.calculators.families import FAMILIES, config
from cookbook_lib.calculators.lint import efficiency, lint
from cookbook_lib.calculators.plan_training import plan_training
from cookbook_lib.calculators.planning import Budgets, Plan, Use, plan
from cookbook_lib.calculators.presets import entry, preset
from cookbook_lib.calculators.scaling import budget
from cookbook_lib.calculators.sizing import Setting
from cookbook_lib.calculators.space import grid
from cookbook_lib.calculators.storage import Storage
from cookbook_lib.calculators.verdicts import neighbours
from cookbook_lib.commands.output import seconds
from cookbook_lib.plots import table

plots.use()
with warnings.catch_warnings(action="ignore"):  # no notices about progress bars,
    from transformers import AutoConfig, AutoModelForCausalLM, logging
logging.set_verbosity_error()  # nor about kernels that a CPU does not have

# %% [markdown]
# ## Run: a model of at most 3 billion parameters for a phone
#
# The phone is one with a Snapdragon 8 Gen 3. Its system leaves us half a dozen gigabytes at most;
# one user reads with a context of 32,768 tokens. Weights take four bits there. Training may take
# $10^{22}$ FLOPs.

# %%
phone = Use(
    train_flops=1e22,
    context=32768,
    batch=1,
    chip=CHIPS["phone"],
    store=Storage(weights="int4"),
)
limits = Budgets(params=3e9, memory=6e9)
choices = list(grid())
first = plan(choices, phone, limits)

fitting, kept = Counter(), Counter()
fitting.update(c.choice.family for c in first.fitting)
kept.update(c.choice.family for c in first.front)
print(f"{len(first.candidates):,} candidates: {len(first.allowed):,} attend enough,")
print(f"{len(first.fitting):,} of them fit, {len(first.front):,} of those are on the front")
assert len(first.candidates) > 10_000 > len(first.fitting) > len(first.front) > 0
table(
    [
        {
            "family": family,
            "is read as": FAMILIES[family][0],
            "candidates": sum(c.choice.family == family for c in first.candidates),
            "fit": fitting[family],
            "on the front": kept[family],
        }
        for family in FAMILIES
    ]
)

# %% [markdown]
# A family is a set of choices (width, depth, KV heads, state, MLP, experts, how often a mixer
# attends) written as the `config.json` of a published family, so a candidate is a model like any
# other in this book. Its parameters, FLOPs and cache are counted; the time of a token is the lower
# bound of a [roofline](310_cost_of_a_block.py). Is the counting right? Let `transformers` build the
# winner.

# %%
best = first.best
with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # shapes without memory
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config(best.choice)))
total = sum(p.numel() for p in theirs.parameters())
print(best.choice.label)
print(f"transformers {total:,} parameters, the plan {best.params:,}")
assert total == best.params <= limits.params and best.memory <= limits.memory
plots.model(best.choice.model())

# %% [markdown]
# ## Look: the front
#
# On the front nothing is better in everything. Cache is what the families differ in; loss follows
# size.

# %%
GROUPS = {
    "attention everywhere": ("dense", "moe"),
    "Mamba-1 hybrid": ("mamba1-mlp",),
    "Mamba-2 hybrid": ("mamba2-mlp", "mamba2-plain"),
    "gated DeltaNet hybrid": ("gdn-mlp",),
    "shared blocks": ("mamba2-shared",),
    "hybrid with experts": ("mamba2-moe",),
}


def scatter(ax, found: Plan, x, y):
    """The front by family, and a ring round the best."""
    for color, (label, families) in zip(plots.COLORS, GROUPS.items(), strict=True):
        points = [c for c in found.front if c.choice.family in families]
        if points:
            where = [x(c) for c in points], [y(c) for c in points]
            ax.scatter(*where, s=9, color=color, label=label)
    ring = {"s": 90, "facecolors": "none", "edgecolors": plots.INK, "label": "the best"}
    ax.scatter(x(found.best), y(found.best), **ring)
    ax.legend(fontsize=8)


fig, ax = plt.subplots(figsize=(5.8, 3.8))
scatter(ax, first, lambda c: c.params / 1e9, lambda c: c.cache / 2**20)
ax.set(yscale="log", xlabel="parameters (billions)", ylabel="cache at 32k tokens (MiB)")
ax.set_xlim(0, 5)
plots.show(fig, "Cache against parameters on the front: transformers keep most, hybrids least")

# %%
fig, ax = plt.subplots(figsize=(5.8, 3.8))
scatter(ax, first, lambda c: 1e3 * c.seconds, lambda c: c.loss)
ax.set(xlabel="time of a token, lower bound (ms)", ylabel="predicted loss (nats)")
plots.show(fig, "Predicted loss against time: families lie close, since the law sees only size")

# %% [markdown]
# The second picture shows what the loss is: a [scaling law](395_scaling_laws.py) of the parameters
# that a token uses and of the tokens that the training budget pays for. It was fitted to dense
# transformers. It calls two mixers of equal size equal, a state of 16 equal to one of 128, one KV
# head equal to twenty; and it gives experts no credit for what a token does not pick. So the plan
# says what is *possible* at equal predicted quality, not what learns best.
#
# ## The choice, defended
#
# Losses within 0.01 nats count as equal, and of equals the one with the least cache wins. Each
# choice is defended against its neighbours: one step in one direction, then the best of each other
# family. "In nothing better" means that some candidate on the front is at least as good in loss,
# parameters, training, cache and time.


# %%
def defence(found: Plan):
    return table(
        [
            {
                "instead": n.change,
                "loss": f"{n.candidate.loss:.3f}",
                "cache, MiB": round(n.candidate.cache / 2**20),
                "why not": n.why.partition(" than ")[0],
            }
            for n in neighbours(found)
        ]
    )


assert best.cache == min(
    c.cache for c in first.fitting if c.loss <= first.margin + min(x.loss for x in first.fitting)
)
print(f"{best.choice.label}:\nloss {best.loss:.3f}, cache {best.cache / 2**20:.0f} MiB,", end=" ")
print(f"{1e3 * best.seconds:.1f} ms, {best.tokens / 1e9:.0f} G tokens of training")
defence(first)

# %% [markdown]
# The winner is a hybrid whose other layers are Mamba-1: a state of 16 makes the smallest cache. Is
# that what we want? Its scan is no matrix product, so FLOPs flatter it: Mamba-2's core layer is
# reported to run two to eight times faster ([arXiv:2405.21060](https://arxiv.org/abs/2405.21060)).
# That is a reason from outside the plan, and it is how a plan is meant to be used: add what it does
# not know, and ask again.

# %%
modern = [c for c in choices if not c.family.startswith("mamba1")]
second = plan(modern, phone, limits)
chosen = second.best
print(f"{chosen.choice.label}:\nloss {chosen.loss:.3f}, cache {chosen.cache / 2**20:.0f} MiB")
print(f"{1e3 * chosen.seconds:.1f} ms a token, {chosen.tokens / 1e9:.0f} G tokens of training")
assert chosen.choice.family in ("gdn-mlp", "mamba2-mlp") and chosen.cache < 2 * best.cache
defence(second)

# %% [markdown]
# What would a transformer of the same predicted quality cost?

# %%
equal = [c for c in second.fitting if c.choice.family == "dense" and c.loss <= chosen.loss + 0.01]
dense = min(equal, key=lambda c: c.cache)
rows = [
    {
        "model": name,
        "parameters, G": round(c.params / 1e9, 2),
        "loss": f"{c.loss:.3f}",
        "cache, MiB": round(c.cache / 2**20),
        "memory, GB": round(c.memory / 1e9, 2),
        "token, ms": round(1e3 * c.seconds, 1),
    }
    for name, c in (("chosen", chosen), ("dense", dense))
]
print(f"the transformer: {dense.choice.label}")
assert dense.cache > 5 * chosen.cache and dense.seconds > 1.3 * chosen.seconds
table(rows)

# %% [markdown]
# ## What no law sees: recall
#
# Without attention the cache would be smaller still. That the plan does not go there is a rule, not
# a count: at least one mixer in ten must attend. Models without any fall behind where a detail has
# to be found again ([arXiv:2402.01032](https://arxiv.org/abs/2402.01032)), and a few attention
# layers close the gap ([arXiv:2406.07887](https://arxiv.org/abs/2406.07887)); one in ten is the
# least among the hybrids that are in use (Granite 4.0). Vary the rule and see what recall costs.

# %%
rows = []
for share in (0, 0.1, 0.125, 0.25, 1):
    found = replace(second, budgets=replace(limits, min_attention=share)).best
    rows.append(
        {
            "at least": f"{share:g}",
            "family": found.choice.family,
            "size": f"{found.choice.d_model} x {found.choice.layers}",
            "attends": f"1 in {found.choice.attention}" if found.choice.attention else "none",
            "cache, MiB": round(found.cache / 2**20),
            "token, ms": round(1e3 * found.seconds, 1),
        }
    )
cache = [row["cache, MiB"] for row in rows]
assert cache == sorted(cache) and rows[0]["attends"] == "none" and cache[-1] > 5 * cache[1]
table(rows)

# %% [markdown]
# ## A second budget: one H100 with 128k of context
#
# 64 H100 for 30 days at 40% of their peak; then eight users at 131,072 tokens each on a single one,
# in bf16, with a vocabulary of 128,256. Nothing limits the parameters but the memory.

# %%
flops = budget(CHIPS["h100"], gpus=64, days=30, mfu=0.4)
server = Use(train_flops=flops, context=131072, batch=8, chip=CHIPS["h100"])
room = Budgets(memory=0.9 * CHIPS["h100"].memory)
large = [c for c in grid(vocab=128256) if not c.family.startswith("mamba1")]
third = plan(large, server, room)
winner = third.best
print(f"{flops:.2e} FLOP; {len(third.candidates):,} candidates, {len(third.fitting):,} fit")
print(f"{winner.choice.label}:\n{winner.params / 1e9:.1f} G parameters, loss {winner.loss:.3f}")
print(f"cache {winner.cache / 2**30:.1f} GiB, memory {winner.memory / 1e9:.0f} GB,", end=" ")
print(f"{1e3 * winner.seconds:.1f} ms for eight tokens, {winner.tokens / 1e9:.0f} G to train")
assert winner.memory <= room.memory and 0.1 <= winner.choice.share < 1
fig, ax = plt.subplots(figsize=(5.8, 3.8))
scatter(ax, third, lambda c: c.params / 1e9, lambda c: c.cache / 2**30)
ax.set(xscale="log", yscale="log", xlabel="parameters (billions)", ylabel="cache (GiB)")
plots.show(fig, "With eight long contexts the cache, not the weights, keeps transformers small")

# %%
largest = {
    name: max((c for c in third.fitting if c.choice.family == name), key=lambda c: c.params_active)
    for name in ("dense", winner.choice.family)
}
for name, c in largest.items():
    print(f"largest {name} that fits: {c.params_active / 1e9:.1f} G active, loss {c.loss:.3f}")
assert largest["dense"].params_active < largest[winner.choice.family].params_active / 2
assert all(c.loss > winner.loss for c in third.fitting if c.choice.family in ("dense", "moe"))
defence(third)

# %% [markdown]
# Here the transformer does not lose by its time but by its room: the cache of eight long contexts
# leaves so little for weights that a dense model of equal predicted quality does not fit at all.
#
# The thirty days count arithmetic alone. The GPUs also talk: in each step they add up the gradients
# and gather the new weights, two bytes a parameter each way round a ring that crosses eight nodes.
# If that goes on behind the backward pass it costs nothing; if the arithmetic waits it is added.
# More sequences in a step mean fewer steps, and so less to send.

# %%
h100 = CHIPS["h100"]
assumed = {"peak": h100, "a quarter": replace(h100, network=h100.network / 4)}
rows = []
for sequences in (64, 256):
    for network, chip in assumed.items():
        run = plan_training(
            winner.choice.model(), winner.tokens, chip, 64, 0.4, server.length, sequences
        )
        by_hand = 2 * 63 / 64 * 2 * winner.params / (8 * chip.network)
        assert abs(run.communication / by_hand - 1) < 1e-9
        rows.append(
            {
                "sequences": sequences,
                "network at": network,
                "arithmetic": seconds(run.math),
                "communication": seconds(run.communication),
                "days, hidden": round(run.hidden_days, 1),
                "waiting": round(run.waiting_days, 1),
            }
        )
table(rows)

# %% [markdown]
# `cookbook plan --gpus 64 --days 30` prints this for each of its best. Peaks are what a vendor
# promises. On a cluster of your own, measure: `cookbook bench comm --out rows.jsonl`, then
# `cookbook links rows.jsonl --out links.json`, and give the planner `--links links.json`. It then
# counts the rate and the delay of each tier as they were fitted (the chapter on collectives shows
# how).
#
# ## Before it is built: sizes that waste a GPU
#
# A plan counts FLOPs; how fast a GPU does them depends on the shapes. `cookbook lint` knows the
# rules with their sources. Here is a configuration as one might write it down by hand: a SwiGLU of
# 8/3 of the width, GPT-2's vocabulary, eighty channels to a head.

# %%
bad = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 10922,
    "num_hidden_layers": 32,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 80,
    "vocab_size": 50257,
}
here = Setting(tokens=8192, chip="h100")


def findings(model):
    return table(
        [
            {
                "rule": f.rule,
                "field": f.field,
                "value": f.value,
                "change to": " or ".join(str(n) for n in (f.down, f.up) if n),
                "useful": "" if f.efficiency is None else f"{f.efficiency:.0%}",
                "time lost": f"{f.lost:.1%}",
            }
            for f in lint(model, here)
        ]
    )


wasteful = from_dict(bad, "by hand")
print(f"products with weights: {efficiency(wasteful, here):.0%} of the time is of use, at best")
findings(wasteful)

# %%
fixed = from_dict(bad | {"intermediate_size": 10944, "vocab_size": 50304, "head_dim": 96}, "fixed")
more = fixed.params() / wasteful.params() - 1
gain = efficiency(fixed, here) / efficiency(wasteful, here)
print(f"{more:+.1%} parameters, products {gain:.2f} times as fast")
for f in lint(wasteful, here)[:1]:
    print(f"{f.rule}: {f.why}\nsource: {f.source}".replace("; ", ";\n"))
assert not lint(fixed, here) and gain > 1.2

# %% [markdown]
# The 68% are the one measured case, 10,922 against 10,944 on an H100, as reported by the source
# above; the rest is computed from tiles and waves. The planner's widths are multiples of 256 and of
# whole heads, so its winners have little to find.

# %%
for c in (best, chosen, winner):
    found = [f for f in lint(c.choice.model(), here) if f.lost > 0.01 or f.efficiency == 0]
    useful = efficiency(c.choice.model(), here)
    print(f"{c.choice.label}:\n  {useful:.0%} useful, {len(found)} findings that cost over 1%")
    assert not found and useful > 0.9

# %% [markdown]
# ## Exercises
#
# **1.** The phone's user wants 131,072 tokens of context instead of 32,768. Does the choice change?

# %% tags=["answer"]
longer = plan(modern, replace(phone, context=131072), limits).best
print(f"32k: {chosen.choice.label}\n128k: {longer.choice.label}")
print(f"cache {chosen.cache / 2**20:.0f} -> {longer.cache / 2**20:.0f} MiB,", end=" ")
print(f"token {1e3 * chosen.seconds:.1f} -> {1e3 * longer.seconds:.1f} ms")
assert longer.memory <= limits.memory and longer.cache > 2 * chosen.cache

# %% [markdown]
# **2.** A token may take 15 milliseconds. What does the haste cost in predicted loss?

# %% tags=["answer"]
hasty = replace(second, budgets=replace(limits, seconds=0.015)).best
print(f"{hasty.choice.label}:\n{hasty.params / 1e9:.2f} G parameters,", end=" ")
print(f"loss {hasty.loss:.3f} instead of {chosen.loss:.3f}")
assert hasty.seconds <= 0.015 and hasty.loss > chosen.loss

# %% [markdown]
# **3.** Trust the law to the last digit: a margin of zero. How much cache does the difference cost?

# %% tags=["answer"]
strict = replace(second, margin=0.0).best
print(f"{strict.choice.label}:\nloss {strict.loss:.4f}, {chosen.loss - strict.loss:.4f} less")
print(f"for {strict.cache / chosen.cache:.1f} times the cache")
assert strict.loss == min(c.loss for c in second.fitting) and strict.cache > chosen.cache

# %% [markdown]
# **4.** Ask for the impossible: 200 MB of memory and at most a millisecond a token. Which limit is
# the one in the way?

# %% tags=["answer"]
try:
    replace(second, budgets=Budgets(memory=2e8, seconds=1e-3)).front
except ValueError as error:
    print(str(error).replace("; ", ";\n").replace(", takes", ",\ntakes"))
    assert "seconds is the binding budget" in str(error)

# %% [markdown]
# **5.** Zamba2-7B is to be split over 8 GPUs by tensor parallelism. What is in the way, and what
# must change?

# %% tags=["answer"]
split = replace(here, tp=8)
zamba2 = preset("zamba2-7b")
refused = [f for f in lint(zamba2, split) if f.efficiency == 0]
for f in refused:
    print(f"{f.field} is {f.value}, {f.up} would do:\n{f.why}")
better = from_dict(entry("zamba2-7b")["config"] | {"mamba_ngroups": 8}, "with 8 groups")
print(f"with 8 groups: {better.params() / zamba2.params() - 1:+.1%} parameters")
assert {f.field for f in refused} == {"ngroups"} and refused[0].up == 8
assert not [f for f in lint(better, split) if f.efficiency == 0]

# %% [markdown] tags=["bug"]
# A plan with experts needs their FLOPs. `calc/README.md` of
# [zcookbook](https://github.com/Zyphra/zcookbook) (at `05093ed`) counts
# $6 \cdot (N + N / E) / 2 \cdot D$, "if we assume that half of the parameters are from the MLP
# layers with MoEs", and warns that larger models can have much more. Put Mixtral in. What is wrong,
# and how would you write it?

# %%
mixtral = preset("mixtral-8x7b-v0.1")
(moe,) = {b for _, b in mixtral.layout if b.component == "moe"}
N, E, k = mixtral.params(), moe.n_experts, moe.topk
print(f"theirs {3 * (N + N / E) / 1e9:.0f} GFLOP for a training token,", end=" ")
print(f"the rows {mixtral.step_flops(l=4096, attention='causal') / 4096e9:.0f}")

# %% tags=["answer"]
experts = 32 * (moe.params() - moe.d_model * E)  # without the routers
share = experts / N
active = N - experts + experts * k / E
rows = mixtral.step_flops(l=4096, attention="causal") / 4096
print(f"experts are {share:.1%} of the parameters, not half; a token picks {k} of {E}, not one")
print(f"6 (N - N_experts + N_experts k / E) is {6 * active / 1e9:.0f} GFLOP")
assert active == mixtral.params_active() and 1.8 * rows < 3 * (N + N / E)
assert abs(6 * active / rows - 1) < 0.05
