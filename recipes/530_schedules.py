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
# # Phases: rates, mixtures and what others chose
#
# **Goal.** Write a training run as a list of phases, from which learning rate, tokens of each
# source and epochs follow; know the schedules in use, and where published runs disagree.
# **Needs** a CPU and about 15 seconds.
#
# A run is not one schedule but several, one after the other: a warm-up, a long stretch on much
# data, a short one on good data while the rate falls. Each stretch is a `Phase`.

# %%
import textwrap
from math import log

import matplotlib.pyplot as plt
import numpy as np

from cookbook_lib import plots
from cookbook_lib.calculators.chips import chip
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.calculators.presets import preset
from cookbook_lib.data.python_corpus import python_corpus
from cookbook_lib.plots import table
from cookbook_lib.training import plans
from cookbook_lib.training.phase_report import curve, phase_report
from cookbook_lib.training.phases import Phase, Plan, replay
from cookbook_lib.training.plan_warnings import warnings
from cookbook_lib.training.sampling import Sampler
from cookbook_lib.training.schedules import half_life, inverse_sqrt

plots.use()
stable = Phase(name="stable", tokens=9e9, lr=3e-4, warmup=0.2e9, mix={"web": 0.8, "code": 0.2})
anneal = Phase(
    name="anneal",
    tokens=1e9,
    lr=3e-4,
    end=0.0,
    decay="linear",
    mix=replay(stable.mix, {"good": 1.0}, 0.6),
    anneal=True,
)
plan = Plan(name="mine", phases=(stable, anneal))
times = (0.1e9, 5e9, 9.5e9, 10e9)
table([{"tokens": f"{t:.3g}", "rate": plan.lr(t)} | plan.mix(t) for t in times])

# %% [markdown]
# Everything else is a function of the tokens seen so far: `plan.lr(t)`, `plan.mix(t)`,
# `plan.drawn()`. Nothing is said twice, so nothing can disagree.
#
# ## Run: the shapes
#
# Between its beginning and its end a rate can go many ways. Linear and cosine are the common ones;
# $1 - \sqrt{u}$ falls fast at first ([arXiv:2405.18392](https://arxiv.org/abs/2405.18392)); an
# exponential never reaches zero.

# %%
fig, ax = plt.subplots()
for decay, end in (("linear", 0.0), ("cosine", 0.0), ("1-sqrt", 0.0), ("exponential", 0.01)):
    phase = Phase(name=decay, tokens=100, lr=1.0, end=end, decay=decay, warmup=10)
    steps = np.linspace(0, 100, 301)
    ax.plot(steps, [phase.rate(t) for t in steps], label=decay)
noam = Phase(name="inverse-sqrt", tokens=100, lr=1.0, decay="inverse-sqrt", warmup=10)
ax.plot(steps, [noam.rate(t) for t in steps], label="inverse square root")
ax.set(xlabel="part of the phase (%)", ylabel="learning rate / peak")
ax.legend()
plots.show(fig, "Five shapes behind a warm-up: all but the inverse square root come near zero")
assert noam.rate(40) == 0.5 == inverse_sqrt(40, 10)

# %% [markdown]
# MiniCPM ([arXiv:2404.06395](https://arxiv.org/abs/2404.06395)) keeps the rate constant and then
# halves it every 5000 steps. When is a tenth of the peak left?

# %%
step = next(s for s in range(10**5) if half_life(s, 5000) <= 0.1)
print(f"a tenth is left after {step:,} steps, {step / 5000:.2f} half-lives")
assert step == 16_610 and abs(step / 5000 - log(10) / log(2)) < 1e-3

# %% [markdown]
# ## Look: what others chose
#
# The plans of published runs are files with a source on every line; `cookbook phases NAME` prints
# one. Here they all are, each over its own peak.

# %%
published = [plans.resolve(name) for name in plans.names()]
fig, (ax, late) = plt.subplots(2, figsize=(5.8, 5.6))
for one in published:
    tokens, rates = (np.array(part) for part in curve(one))
    for axes in (ax, late):
        axes.plot(100 * tokens / one.tokens, rates / one.peak, label=one.name)
ax.set(ylabel="learning rate / peak")
late.set(xlabel="part of the run (%)", ylabel="learning rate / peak", xlim=(86, 100.5))
ax.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0.06, 0))
plots.show(
    fig, "Six published schedules over their peaks, and their last seventh: no two end alike"
)

# %%
rows = []
for one in published:
    end = phase_report(one)["phases"][-1]
    rows.append(
        {
            "run": one.name,
            "anneal share": f"{end['share']:.2g}" if end["share"] < 0.01 else f"{end['share']:.1%}",
            "enters at": "?" if "stand in" in one.note else f"{end['rate_on_entry']:.0%}",
            "shape": end["decay"],
            "replay": "?" if "shares" in one.note else f"{end['mix']['web']:.0%}",
        }
    )
table(rows)

# %% [markdown]
# A question mark stands where a plan had to assume something to be drawn. Llama's replay is that of
# its tests of data. This is where the numbers are from, second-hand ones "as reported":

# %%
for one in published:
    said = f"{one.name}: {one.source}" + f"; {one.note}" * bool(one.note)
    print(textwrap.fill(said, 80, subsequent_indent="    "))

# %% [markdown]
# They agree that the rate should come down while good data comes in. They agree on little else.
# Zamba and zcookbook let the rate rise again first; MiniCPM goes on from the peak; OLMo 2 and, as
# far as one can read, Llama 3 go on from where their cosine ended. zcookbook advises an anneal of
# 10 to 15% of the tokens: are Zyphra's own runs like this?

# %%
zamba, zamba2, advice = (
    phase_report(plans.resolve(name))["phases"][-1]
    for name in ("zamba-7b", "zamba2-2.7b", "zcookbook")
)
for name, end in (("Zamba-7B", zamba), ("zcookbook", advice)):
    print(f"{name}: {end['share']:.1%} of the run, from {end['rate_on_entry']:.0%} of the peak")
print(f"Zamba2-2.7B: {zamba2['share']:.1%} of the run")
print(f"Zamba-7B's decay is {zamba['e_folds']:.1f} e-folds: 1.1e-4 to 1e-7")
assert round(zamba["rate_on_entry"], 2) == 0.73 and round(advice["rate_on_entry"], 2) == 0.75
assert round(zamba["e_folds"], 1) == 7.0 and zamba["share"] < advice["share"] / 2

# %% [markdown]
# The next chapter tries these choices out: [what annealing does](540_annealing.py).
#
# ## Before it runs: what does a plan cost?
#
# A plan knows its tokens, the [calculators](370_training_time.py) know the rest. This is
# `cookbook phases zamba-7b --model zamba-7b-v1 --chip h100 --gpus 128 --mfu 0.2`:

# %%
report = phase_report(
    plans.resolve("zamba-7b"),
    preset("zamba-7b-v1"),
    chip("h100"),
    Parallel(gpus=128, zero=1),
    mfu=0.2,
)
print(f"{report['flops']:.2e} FLOP, {report['days']:.1f} days")
print("\n".join(report["warnings"]))
table(
    [
        {"phase": p["name"], "tokens": f"{p['tokens']:.3g}", "rate": p["lr"], "end": p["end"]}
        | {"days": p["days"]}
        for p in report["phases"]
    ]
)

# %% [markdown]
# The warning is honest: how long Zamba's re-warming took is not reported, so the plan jumps.
#
# ## Mixtures, to the sequence
#
# A mixture of 60 to 40 can be drawn: throw a die for each sequence. Or it can be kept: choose the
# source whose next sequence is due first. Both have the same mixture on average. How far off are
# they on the way? The corpus is the installed Python itself, documentation as `prose` and the
# standard library as `code`.

# %%
corpus = python_corpus(vocab=1024)
mix = {"code": 0.6, "prose": 0.4}
phase = Phase(name="mixed", tokens=64e4, lr=1e-3, mix=mix)
sampler = Sampler(Plan(name="mixed", phases=(phase,)), corpus.shards, length=64, seed=0)
kept = np.cumsum(sampler.draw(10_000).sources == 0)
drawn = np.cumsum(np.random.default_rng(0).random(10_000) < 0.6)
n = np.arange(1, 10_001)
fig, ax = plt.subplots()
ax.plot(n, drawn - 0.6 * n, label="drawn at random")
ax.plot(n, kept - 0.6 * n, label="earliest deadline first")
ax.set(xlabel="sequences", ylabel="sequences of code too many")
ax.legend()
plots.show(fig, "A random mixture wanders off by dozens of sequences, a kept one by less than one")
assert abs(kept - 0.6 * n).max() < 1 < abs(drawn - 0.6 * n).max()

# %% [markdown]
# The order is a function of the seed: the place in the data is a few numbers, from which a run goes
# on, and each rank of a data-parallel run walks the same order and reads its part.

# %%
state = sampler.state()
print("\n".join(f"{name}: {value}" for name, value in state.items()))
whole = sampler.draw(8).tokens
parts = []
for rank in range(4):
    again = Sampler(sampler.plan, corpus.shards, length=64, seed=0)
    again.load(state)
    parts.append(again.draw(8, rank, ranks=4).tokens)
assert (np.stack(parts, 1).reshape(whole.shape) == whole).all()
print("four ranks read what one would:", whole.shape)

# %% [markdown]
# ## Epochs
#
# Good data is scarce, so it repeats. zcookbook finds that more than two epochs of it bring little.
# How much prose is there, and what would a long anneal read of it?

# %%
sizes = {name: stream.tokens for name, stream in sampler.streams.items()}
print(", ".join(f"{name}: {n:,} tokens" for name, n in sizes.items()))
tight = Plan(
    name="long anneal",
    phases=(
        Phase(name="stable", tokens=20e6, lr=1e-3, mix={"code": 1}),
        Phase(name="anneal", tokens=6e6, lr=1e-3, end=0.0, decay="linear", mix=mix, anneal=True),
    ),
    available=sizes,
)
print("\n".join(warnings(tight)))
table(
    [
        {"source": s, "tokens": round(n), "epochs": tight.epochs()[s]}
        for s, n in tight.drawn().items()
    ]
)

# %% [markdown]
# ## Exercises
#
# **1.** An inverse square root never ends. After how many warm-ups is a hundredth of the peak left?

# %% tags=["answer"]
times = next(k for k in range(1, 10**5) if inverse_sqrt(k, 1) <= 0.01)
print(f"{times:,} warm-ups: which is why it is followed by a decay, if at all")
assert times == 10_000

# %% [markdown]
# **2.** You have $2 \cdot 10^{10}$ good tokens, want at most two epochs of them and a replay of
# 60%. How long may the anneal be, and what part of a run of $10^{12}$ tokens is that?

# %% tags=["answer"]
most = 2 * 2e10 / 0.4
print(f"{most:.1e} tokens, {most / 1e12:.0%} of the run")
longest = Phase(
    name="a", tokens=most, lr=1.0, mix=replay({"web": 1}, {"good": 1}, 0.6), anneal=True
)
assert abs(Plan(name="p", phases=(longest,), available={"good": 2e10}).epochs()["good"] - 2) < 1e-9

# %% [markdown]
# **3.** How much learning rate does each plan spend in its anneal, as a part of all that it spends?
# (The sum of the rates over the steps bounds how far the weights can move.)

# %% tags=["answer"]
spent = []
for one in published:
    areas = [
        p.tokens * np.mean([p.rate(p.tokens * (i + 0.5) / 1000) for i in range(1000)])
        for p in one.phases
    ]
    share, read = areas[-1] / sum(areas), one.phases[-1].tokens / sum(p.tokens for p in one.phases)
    assert share < read, "an anneal spends less than its part of the tokens"
    spent.append({"run": one.name, "in the anneal": f"{share:.2%}", "of the tokens": f"{read:.2%}"})
table(spent)

# %% [markdown]
# ## Find the step
#
# OLMo 2's second stage begins, says
# [its config](https://github.com/allenai/OLMo/blob/main/configs/official-1124/OLMo2-7B-stage2-seed42.yaml),
# with the checkpoint of step 928,646 and a learning rate of 0.000061499. The first stage's config
# has a cosine from 3e-4 to a tenth over 5e12 tokens behind a warm-up of 8,388,608,000, in steps of
# 1024 sequences of 4096. Do the two agree?

# %% tags=["bug"]
first, second = plans.resolve("olmo-2-7b").phases
print(
    f"the cosine at step 928,646: {first.rate(928_646 * 1024 * 4096):.4e}; begun with {second.lr}"
)

# %% tags=["answer"]
step = min(range(900_000, 930_000), key=lambda s: abs(first.rate(s * 1024 * 4096) - second.lr))
at = first.rate(928_000 * 1024 * 4096)
print(f"nearly: 0.000061499 is the rate of step {step:,}; at 928,000 it is {at:.4e}")
assert f"{at:.4e}" == f"{second.lr:.4e}"
