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
# # What annealing does
#
# **Goal.** Test the advice on the end of a run: how long the decay should be, what shape, whether
# to re-warm, how much old data to replay, whether to average. For each claim there is a plot and
# a verdict by one stated rule: it holds, it fails, or it cannot be seen at this scale. **Needs**
# a CPU and about 30 seconds, in which a small part is run again.
# Builds on [chapter 530](530_schedules.py).
#
# The advice comes from runs of billions of parameters on trillions of tokens. Here a hybrid of
# two Mamba-2 and attention blocks is trained on code, the standard library of Python, and the
# "new" data are prose, its documentation. All ends of a run share what came before them: same
# weights, same moments, same order of data. Pairs of ends therefore differ far less by chance
# than two runs do.

# %%
from dataclasses import replace
from math import ceil, sqrt
from statistics import stdev

import matplotlib.pyplot as plt
import numpy as np
import torch

from cookbook_lib import plots, results
from cookbook_lib.data.python_corpus import python_corpus
from cookbook_lib.plots import table
from cookbook_lib.training.annealing import VARIANTS, Scale
from cookbook_lib.training.annealing_runs import begun, variants
from cookbook_lib.training.averaging import Average
from cookbook_lib.training.claims import Results, averaged, claims, mixed

plots.use()
torch.set_num_threads(1)  # the model is too small for two
named = {variant.name: variant for variant in VARIANTS}
scale = Scale()
fig, ax = plt.subplots()
steps = np.arange(scale.steps) + 0.5
for name in ("constant", "cosine", "decay 20%", "shape exponential", "re-warm", "go on"):
    plan = named[name].plan(scale)
    ax.plot(steps, [plan.lr(s * scale.step_tokens) / scale.peak for s in steps], label=name)
ax.set(xlabel="step", ylabel="learning rate / peak")
ax.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0.1, 0))
plots.show(fig, "Six ways to end one run, over the steps: they differ late, except for the cosine")

# %% [markdown]
# ## Run: one end against another
#
# A short run, live: a stable phase and two ends of it, one that goes on at the peak and one that
# decays to zero over the last fifth. The loss is measured on modules that were held out.

# %%
corpus = python_corpus(vocab=scale.vocab)
short = replace(scale, steps=240, every=8, asked=64)
live = {
    row["variant"]: row
    for row in variants(0, short, corpus, [named[name] for name in ("constant", "decay 20%")])
}
fig, ax = plt.subplots()
before = live["stable"]["curve"]
for name in ("constant", "decay 20%"):
    curve = live[name]["curve"]
    ax.plot([p["step"] for p in curve], [p["code"] for p in curve], "o-", label=name)
late = [p for p in before if p["step"] >= 120]
ax.plot([p["step"] for p in late], [p["code"] for p in late], color=plots.INK, label="stable")
ax.set(xlabel="step", ylabel="loss on code held out (nats a token)")
ax.legend()
plots.show(fig, "While the rate falls to zero the loss drops below that of the constant rate")
gain = live["constant"]["code"] - live["decay 20%"]["code"]
print(f"the decay gains {gain:.3f} nats a token in {short.part(0.2)} steps")
assert gain > 0

# %% [markdown]
# Why does it drop? At a high rate the weights bounce about in the walls of a valley; the loss
# that is measured is that of the walls. When the rate falls they settle to its floor. The
# progress along the valley was there all the time, unseen.
#
# ## The larger runs
#
# All variants, several seeds, from `cookbook train anneal --out docs/data/annealing.jsonl`, which
# goes on where it was stopped.

# %%
rows = results.committed("annealing")
found = Results(rows)
size = begun(corpus, scale, named["constant"].plan(scale), 0).model.spec.params()
first = rows[0]
print(f"{len(found.seeds)} seeds, {len(VARIANTS)} ends, {first['device']}, torch {first['torch']}")
print(
    f"{size:,} parameters, {first['scale']['steps']} steps of "
    f"{first['scale']['batch']} x {first['scale']['length']} tokens"
)
assert len(found.seeds) >= 4 and first["scale"] == vars(scale)


# %%
def bars(ax, names, base, of="code"):
    """Paired differences from one variant, with their 95% intervals."""
    apart = [found.apart(name, base, of) for name in names]
    at = range(len(names))
    ax.errorbar(
        [d.mean for d in apart],
        at,
        xerr=[[d.mean - d.low for d in apart], [d.high - d.mean for d in apart]],
        fmt="o",
        capsize=3,
    )
    ax.axvline(0, color=plots.INK, lw=0.8)
    ax.set_yticks(at, names)
    ax.set(xlabel=f"loss minus that of {base!r} (nats a token)", ylim=(len(names) - 0.5, -0.5))


def verdict(*numbers):
    """What the rule says of some claims."""
    for claim in (said[n] for n in numbers):
        print(f"{claim.text}: {claim.verdict}")
        for part in claim.parts:
            d = part.difference
            print(f"    {part.what}: {d.mean:+.4f}, {d.low:+.4f} to {d.high:+.4f}")


said = claims(rows)
print(f"the decay of 10% gains {found.gain:.4f} nats; less than {found.little:.4f} counts as none")
assert found.gain > 0

# %% [markdown]
# The rule is the same for all. *A is better than B* holds if the 95% interval of the paired
# differences lies below zero, and fails if it lies above. *A is like B* holds if the interval
# lies within a tenth of what the decay itself gains, and fails if it lies outside; *A is at least
# as good as B* holds if it lies below that tenth. All else cannot be seen.
#
# ## Look: constant and decay, or cosine?

# %%
fig, ax = plt.subplots(figsize=(5.8, 2.6))
bars(ax, ["decay 20%", "decay 10%", "cosine", "cosine 2x"], "constant")
plots.show(fig, "Final loss against that of a constant rate: what each kind of ending gains")
verdict(0, 1)

# %% [markdown]
# A cosine spends half of the learning rate that a constant one spends. In a run as short as this
# one that costs more than it brings; `cosine 2x` begins at twice the peak to make up for it. In
# long runs the two are reported to meet.
#
# ## How long?

# %%
shares = [0.025, 0.05, 0.1, 0.2]
fig, ax = plt.subplots()
names = [f"decay {100 * s:g}%" for s in shares]
apart = [found.apart(name, "constant") for name in names]
ax.errorbar(
    [100 * s for s in shares],
    [d.mean for d in apart],
    yerr=[[d.mean - d.low for d in apart], [d.high - d.mean for d in apart]],
    fmt="o-",
    capsize=3,
)
ax.axhline(0, color=plots.INK, lw=0.8)
ax.set(xscale="log", xlabel="decay, % of the run", ylabel="loss minus that without (nats)")
ax.set_xticks([100 * s for s in shares], [f"{100 * s:g}" for s in shares])
ax.minorticks_off()
plots.show(fig, "A longer decay gains more, up to a fifth of the run")
verdict(2, 3)

# %% [markdown]
# A decay needs steps, not shares: a tenth of this run is a few dozen steps, a tenth of MiniCPM's
# are tens of thousands. Where "enough" lies depends on the scale more than anything else here.
#
# ## Which shape?

# %%
fig, ax = plt.subplots(figsize=(5.8, 2.2))
shapes = ["shape cosine", "shape 1-sqrt", "shape exponential"]
bars(ax, shapes, "decay 10%")
ax.axvspan(-found.little, found.little, alpha=0.15)
plots.show(fig, "Three shapes against the linear decay; the band is what counts as little")
verdict(4)

# %% [markdown]
# Zamba's exponential falls by three orders of magnitude: most of its steps are too small to move
# anything, when there are only a few dozen of them. A cosine stays near the peak, where the loss is
# that of the walls, and then hurries past the middle. What falls early and lingers does best.
#
# ## Re-warm, or go on?
#
# Here the first phase was a cosine to a quarter of the peak. The anneal has 40% prose. It begins
# either where the cosine ended or at three quarters of the peak.

# %%
fig, ax = plt.subplots(figsize=(5.8, 2.2))
labels = {"code": "old data (code)", "prose": "new data (prose)", "both": "60:40, as annealed on"}
apart = [found.apart("re-warm", "go on", of) for of in ("code", "prose", mixed)]
ax.errorbar(
    [d.mean for d in apart],
    range(3),
    xerr=[[d.mean - d.low for d in apart], [d.high - d.mean for d in apart]],
    fmt="o",
    capsize=3,
)
ax.axvline(0, color=plots.INK, lw=0.8)
ax.set_yticks(range(3), labels.values())
ax.set(xlabel="re-warmed minus not (nats a token)", ylim=(2.5, -0.5))
plots.show(fig, "Re-warming costs old data a little and gains more on the new")
verdict(5)

# %% [markdown]
# ## How much to replay?

# %%
replays = {0: "replay 0%", 30: "replay 30%", 60: "replay 60%", 100: "decay 10%"}
fig, ax = plt.subplots()
for source in ("code", "prose"):
    apart = [found.apart(name, "constant", source) for name in replays.values()]
    ax.errorbar(
        list(replays),
        [d.mean for d in apart],
        yerr=[[d.mean - d.low for d in apart], [d.high - d.mean for d in apart]],
        fmt="o-",
        capsize=3,
        label={"code": "code, the old data", "prose": "prose, the new data"}[source],
    )
ax.axhline(0, color=plots.INK, lw=0.8)
ax.set(xlabel="replay (%)", ylabel="loss minus the constant rate's (nats)")
ax.legend()
plots.show(fig, "More replay forgets less and learns less; 60% keeps most of both")
verdict(6, 7)

# %% [markdown]
# ## Average the checkpoints?

# %%
rows_ = []
for name in ("constant", "decay 10%", "decay 20%"):
    rows_.append(
        {
            "run": name,
            "last": np.mean(found.losses(name)),
            f"average of {scale.kept}": np.mean(found.losses(name, averaged)),
        }
    )
verdict(8, 9)
table(rows_)

# %% [markdown]
# An average cancels the bouncing, which is what the decay does too. At a constant rate it is nearly
# free and gains most; behind a decay there is little left to cancel, and early checkpoints of the
# decay are worse models.
#
# ## All verdicts

# %%
table(
    [
        {
            "here": claim.verdict,
            "claim": claim.text,
            "said by": claim.source,
        }
        for claim in said
    ]
)

# %% [markdown]
# What depends on the scale: everything that counts steps. Lengths of decays, and shapes that waste
# steps, look worse here than in a run a thousand times as long. What does not: that a decay gains,
# that forgetting and learning trade against each other, that re-warming helps what is new.
#
# ## Exercises
#
# **1.** How many seeds would unpaired runs have needed to see what a decay of 20% gains over one of
# 10%? (The interval of a mean narrows as one over the root of the seeds.)

# %% tags=["answer"]
long, middle = found.losses("decay 20%"), found.losses("decay 10%")
spread, pairs = stdev(middle), stdev(a - b for a, b in zip(long, middle, strict=True))
gap = -found.apart("decay 20%", "decay 10%").mean
print(f"spread between seeds {spread:.4f}, of the paired differences {pairs:.4f}")
needed = ceil(2 * (2 * spread / gap) ** 2)
print(f"to see {gap:.4f} at two standard errors: {needed} unpaired seeds, {len(long)} pairs do")
assert sqrt(2) * spread > pairs and needed > len(long)

# %% [markdown]
# **2.** Which replay has the least loss on the mixture of 60% code and 40% prose? And if code is
# all that counts?

# %% tags=["answer"]
for what, of in (("60:40", mixed), ("code", "code")):
    means = {r: np.mean(found.losses(name, of)) for r, name in replays.items()}
    print(what, {r: round(float(m), 4) for r, m in means.items()}, "->", min(means, key=means.get))
assert min(means, key=means.get) == 100

# %% [markdown]
# **3.** How many epochs of the prose does the anneal read with a replay of 60%, and may it have
# more?

# %% tags=["answer"]
read = {r["variant"]: r["epochs"].get("prose", 0.0) for r in rows if "epochs" in r}
print(
    f"{read['replay 60%']:.3f} epochs; two would allow {2 / read['replay 60%']:.0f} times as long"
)
assert read["replay 60%"] < read["replay 0%"] < 2

# %% [markdown]
# ## Find the bug
#
# A script averages checkpoints in the dtype of the weights, bf16: it adds them up and divides. What
# comes out for a weight of which 512 checkpoints have the value 1.01?

# %% tags=["bug"]
value = torch.tensor(1.01, dtype=torch.bfloat16)
total = torch.zeros((), dtype=torch.bfloat16)
for _ in range(512):
    total += value
print(f"{float(value):.4f} 512 times: the average is {float(total / 512):.4f}")

# %% tags=["answer"]
average = Average()
for _ in range(512):
    average.add({"w": value})
print(
    "bf16 has 8 bits: a sum above 256 rounds each part, and from 512 on it loses all of it. "
    f"With a float32 sum: {float(average.state_dict()['w']):.4f}"
)
assert average.state_dict()["w"] == value != total / 512
