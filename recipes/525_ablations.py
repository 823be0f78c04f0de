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
# # Taking the hybrid apart
#
# **Goal.** Take from a Zamba2-style hybrid one idea at a time, give the parameters back elsewhere,
# and see on text what each idea is worth: the share of layers that ask attention, sharing,
# concatenation with the embeddings, and the LoRA of each use. **Needs** a CPU and about 20 seconds,
# in which three tiny models are trained.
#
# An ablation that also makes the model smaller shows that smaller models are worse. Here the MLP of
# the shared block takes what an idea leaves, so that all variants but one have the parameters of
# the whole. That one is named: two blocks of the hybrid's own width cost no FLOPs more, but
# parameters.

# %%
from statistics import mean, stdev

import matplotlib.pyplot as plt
import torch

from cookbook_lib import plots, results
from cookbook_lib.calculators import specs
from cookbook_lib.data.python_corpus import python_corpus
from cookbook_lib.plots import table
from cookbook_lib.training.comparison_claims import ablation_claims, ablations
from cookbook_lib.training.comparisons import Case, Scale, best_rate
from cookbook_lib.training.contenders import ABLATIONS, CLOSE, CONTENDERS, VOCAB, width

plots.use()
torch.set_num_threads(1)  # the models are too small for two
whole = CONTENDERS["hybrid"]
variants = [whole, CONTENDERS["Mamba-2"], *ABLATIONS]
for c in variants:
    apart = abs(c.spec.params() - whole.spec.params()) / whole.spec.params()
    assert (apart < CLOSE) == (c.name != "two blocks")
assert CONTENDERS["two blocks"].flops_per_token == whole.flops_per_token
table(
    [
        {
            "model": c.name,
            "layers": c.spec.pattern,
            "parameters": c.spec.params(),
            "MLP": width(c.spec) or "none",
            "MFLOP a token": f"{c.flops_per_token / 1e6:.2f}",
        }
        for c in variants
    ]
)

# %% [markdown]
# `m` is a Mamba-2 layer, `A` one that first asks the shared block, `B` one that asks a second.
# Without attention nothing is left to widen, so Mamba-2 has more layers instead. At equal
# parameters a variant that asks more often costs more FLOPs: the second thing to look at.
#
# ## Run: never, sometimes, always
#
# A short run, live: the same text for a model that never asks attention, one that asks in a third
# of its layers, and one that asks in all of them.

# %%
rows = results.committed("training")
corpus = python_corpus(vocab=VOCAB)
brief = Scale(steps=24)
fig, ax = plt.subplots()
for name in ("Mamba-2", "hybrid", "attention in all"):
    rate = best_rate(rows, CONTENDERS[name])
    case = Case(experiment="live", contender=CONTENDERS[name], equal="tokens", seed=0, rate=rate)
    run = case.run(brief, corpus)
    losses = [run.advance()["loss"] for _ in range(brief.steps)]
    ax.plot(range(1, brief.steps + 1), losses, label=name)
    assert mean(losses[-4:]) < mean(losses[:4]) - 0.5
ax.set(xlabel="step", ylabel="training loss (nats a token)")
ax.legend()
plots.show(fig, "The first steps of three models with more and more attention: all begin alike")

# %% [markdown]
# ## The larger runs
#
# They are those of [the chapter before](520_hybrid_or_transformer.py), from the same command and
# seeds. A variant goes by the rate that suits the whole hybrid, unless that was seen to be too
# high for it and a sweep of its own was run. That favours the whole: a variant that fails by little
# may only want another rate.

# %%
found = ablations(rows)
print(f"{len(found.seeds)} seeds; less than {found.margin:.3f} nats counts as little:")
print("a hundredth of the hybrid's loss")
assert len(found.seeds) >= 4
said = ablation_claims(found)
rates = {name: best_rate(rows, CONTENDERS[name]) for name in CONTENDERS if found.has(name)}
own = ", ".join(f"{name} {rate}" for name, rate in rates.items() if rate != rates["hybrid"])
print(f"peak rates of their own: {own}; all others {rates['hybrid']}")


def bars(ax, pairs):
    """Paired differences of held-out losses, with their 95% intervals."""
    apart = [found.apart(a, b) for a, b in pairs]
    at = range(len(pairs))
    half = [[d.mean - d.low for d in apart], [d.high - d.mean for d in apart]]
    ax.errorbar([d.mean for d in apart], at, xerr=half, fmt="o", capsize=3)
    ax.axvline(0, color=plots.INK, lw=0.8)
    ax.axvspan(-found.margin, found.margin, alpha=0.15)
    ax.set_yticks(at, [f"{a} −\n{b}" for a, b in pairs], fontsize=8)
    ax.locator_params(axis="x", nbins=6)
    ax.set(xlabel="difference of losses (nats a token)", ylim=(len(pairs) - 0.5, -0.5))


def verdict(*numbers):
    """What the rule says of some claims."""
    for claim in (said[n] for n in numbers):
        print(f"{claim.text}: {claim.verdict}")
        for part in claim.parts:
            d = part.difference
            print(f"    {part.what}: {d.mean:+.4f}, {d.low:+.4f} to {d.high:+.4f}")


# %%
table(
    [
        {"model": name} | {f"seed {s}": f"{x:.3f}" for s, x in zip(found.seeds, xs, strict=True)}
        for name in CONTENDERS
        if found.has(name)
        for xs in [found.losses(name)]
    ]
)

# %% [markdown]
# Look for a seed that lies far from its row: that run was thrown off at this rate. It makes the
# interval wide, and rightly so.
#
# ## How much attention?

# %%
shares = {
    0: "Mamba-2",
    1 / 6: "attention in 1 of 6",
    1 / 3: "hybrid",
    1 / 2: "attention in 1 of 2",
    1: "attention in all",
}
shares = {share: name for share, name in shares.items() if found.has(name)}
fig, ax = plt.subplots()
for source in ("prose", "code"):
    apart = [found.apart(name, "hybrid", source=source) for name in shares.values()]
    ax.errorbar(
        [100 * share for share in shares],
        [d.mean for d in apart],
        yerr=[[d.mean - d.low for d in apart], [d.high - d.mean for d in apart]],
        fmt="o-",
        capsize=3,
        label=source,
    )
ax.axhline(0, color=plots.INK, lw=0.8)
ax.set(xlabel="layers that ask attention (%)", ylabel="loss minus the hybrid's (nats)")
ax.legend()
plots.show(fig, "Paired differences of held-out loss against the share of layers that ask")
verdict(0, 1)

# %%
table(
    [
        {
            "asked in": f"{share:.0%}",
            "loss": f"{mean(found.losses(name)):.3f}",
            "MFLOP a token": f"{CONTENDERS[name].flops_per_token / 1e6:.2f}",
            "state at 4k": f"{CONTENDERS[name].spec.state_bytes(s=4096) / 2**20:.2f} MiB",
        }
        for share, name in shares.items()
    ]
)

# %% [markdown]
# Loss is one column of three. Each further use of the block adds a KV cache of its own and the
# FLOPs of a transformer block, though hardly a parameter.
#
# ## Sharing

# %%
fig, ax = plt.subplots(figsize=(5.8, 2.0))
bars(ax, [("hybrid", "two half blocks"), ("hybrid", "two blocks")])
plots.show(fig, "One shared block against two of half the width, and against two whole ones")
verdict(2, 3)
assert found.apart("hybrid", "two blocks").mean < 0

# %% [markdown]
# The first comparison is at equal parameters: the same weights, spent on one block that is used
# twice or on two that are used once. The second is at equal FLOPs: a block of its own for each use
# has more parameters to hold and to read, and computes no more. That it ends up no better points to
# the rate: it has the hybrid's, which is near the highest that the hybrid bears.
#
# ## Concatenation, and LoRA

# %%
fig, ax = plt.subplots(figsize=(5.8, 2.0))
without = [name for name in ("no concatenation", "no LoRA") if found.has(name)]
bars(ax, [("hybrid", name) for name in without])
plots.show(fig, "The whole hybrid against one without each of these")
verdict(*range(4, len(said)))

# %% [markdown]
# ## All verdicts

# %%
table([{"here": claim.verdict, "claim": claim.text, "said by": claim.source} for claim in said])

# %% [markdown]
# A claim with several parts holds if all of them hold, and fails if one fails. What two uses of a
# block can show of sharing and of LoRA is little: in Zamba2-7B a block is used several times, and
# there is more for its uses to differ in. A verdict of *cannot be seen* is about these models, this
# text and this many seeds.
#
# ## Exercises
#
# **1.** How large a difference could these runs have missed? Take the widest interval.

# %% tags=["answer"]
halves = {
    part.what: (part.difference.high - part.difference.low) / 2
    for claim in said
    for part in claim.parts
}
widest = max(halves, key=halves.get)
loss = mean(found.losses("hybrid"))
print(f"{widest}: ± {halves[widest]:.3f} nats, {halves[widest] / loss:.1%} of the loss")
assert halves[widest] > found.margin, "more than what counts as little here"

# %% [markdown]
# **2.** What does pairing bring? Compare the interval of a paired difference with that of two
# independent groups of as many seeds.

# %% tags=["answer"]
a, b = found.losses("hybrid"), found.losses("no LoRA")
joint = stdev([x - y for x, y in zip(a, b, strict=True)])
alone = (stdev(a) ** 2 + stdev(b) ** 2) ** 0.5
print(f"deviation of the differences: paired {joint:.4f}, independent {alone:.4f}")
gain = "narrows the interval" if joint < alone else "brings nothing that four seeds could show"
print(f"pairing {gain}: the order of the texts is a small part of what a seed changes")
d = found.apart("hybrid", "no LoRA")
t = (d.high - d.mean) / (joint / len(a) ** 0.5)
assert len(a) == 4 and abs(t - 3.182) < 1e-3, "Student's t for three degrees of freedom"

# %% [markdown]
# **3.** Someone ablates concatenation by feeding zeros instead of the embeddings and keeps the
# sizes. Which part of the model is dead then, and what does the loss say about it?

# %% tags=["answer"]
block = next(b for _, b in whole.spec.layout if isinstance(b, specs.Attention))
dead = 3 * block.d_model * block.d_q + block.d_model  # half of q, k, v, and of the norm
share = dead / whole.spec.params()
print(f"{dead:,} parameters multiply zeros: {share:.1%} of the model is gone as well")
print("so the loss mixes the idea with the size; here the MLP takes them, and is", end=" ")
print(f"{width(CONTENDERS['no concatenation'].spec)} wide instead of {width(whole.spec)}")
per_unit = specs.MLP(d_model=64, d_ff=2, fused=True).params() / 2
lora = 2 * 2 * 8  # the LoRA of two uses widens with it: rank 8, gate and up
taken = dead / (per_unit + lora)
assert abs(width(CONTENDERS["no concatenation"].spec) - width(whole.spec) - taken) < 1
