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
# # Sinkhorn at work: who is busy while a mixture of experts learns?
#
# **Goal.** Train a tiny BlackMamba with each start of Sinkhorn and without it, watch the load of
# its experts step by step, and see what becomes of the balance when Sinkhorn is taken away.
# **Needs** a CPU and about 40 seconds, in which eight tiny models are trained.
# Builds on [chapter 120](120_mixture_of_experts.py).
#
# [Mixtures of experts](120_mixture_of_experts.py) shows on drawn numbers what one round of Sinkhorn
# reaches from each start, how the stopping rule makes "one iteration" out of it, and that for one
# expert a token all of it is one bias for each expert. Here the logits are those of a router that
# learns, and answers back.

# %%
import matplotlib.pyplot as plt
import torch

from cookbook_lib import plots
from cookbook_lib.blocks.sinkhorn import drawn_logits, sinkhorn
from cookbook_lib.blocks.sinkhorn import trial as drawn_trial
from cookbook_lib.data.python_corpus import python_corpus
from cookbook_lib.plots import table
from cookbook_lib.training.routing import BALANCERS, blackmamba, experts, routed

plots.use()
torch.set_num_threads(1)  # the model is too small for two
corpus = python_corpus(vocab=1024)
model = blackmamba(corpus.vocab, BALANCERS["ones, one round"])
print(f"layers {model.spec.pattern}, {model.spec.params():,} parameters, of which a token uses")
print(f"{model.spec.params_active():,}; {len(experts(model))} layers of 8 experts")
assert model.spec.params_active() < model.spec.params() / 1.5

# %% [markdown]
# ## What to expect: drawn logits
#
# The load of the busiest expert over the mean, on logits with a bias for each expert, after one and
# after three rounds: these are the numbers that the live runs are to be held against.

# %%
rows = []
for spread, sharp in ((1.0, 1.0), (1.0, 2.0), (3.0, 1.0), (3.0, 2.0)):
    row = {"spread, sharpness": f"{spread:g}, {sharp:g}"}
    for rounds in (1, 3):
        for start in ("ones", "balanced"):
            _, busiest = drawn_trial(start, spread, 1.0, sharp, tolerance=0.0, iterations=rounds)
            row[f"{start}, {rounds}"] = round(busiest, 3)
    rows.append(row)
assert all(row["balanced, 1"] < row["ones, 1"] for row in rows)
table(rows)

# %%
for seed in range(10):
    logits = drawn_logits(1.0, 1.0, seed)
    found = sinkhorn(logits, iterations=1)
    by_bias = (logits + found.log_columns / 2.0).argmax(-1)
    assert torch.equal(found.log_plan.argmax(-1), by_bias)
print("the plan chooses as the logits with a bias for each expert do, in all ten draws")

# %% [markdown]
# ## Run
#
# Four ways to choose an expert in training, two seeds each. A token goes to one of eight experts;
# Sinkhorn chooses without a gradient, as in the paper, and the gate is the sigmoid of the logit.

# %%
STEPS, SEEDS = 48, 2
runs = {name: [routed(name, seed, corpus, STEPS) for seed in range(SEEDS)] for name in BALANCERS}
fig, ax = plt.subplots()
for name, mine in runs.items():
    busiest = torch.stack([run.busiest for run in mine]).flatten(0, 1)  # layers of all seeds
    (line,) = ax.plot(busiest.mean(0), label=name)
    low, high = busiest.amin(0), busiest.amax(0)
    ax.fill_between(range(STEPS), low, high, alpha=0.15, color=line.get_color())
ax.set(xlabel="step", ylabel="busiest expert / mean", ylim=(1, None))
ax.legend(fontsize=8)
plots.show(
    fig, "Without balancing one expert soon does far more than its part; with it, little more"
)

# %% [markdown]
# Bands span layers and seeds. An expert that is chosen more learns more, and is chosen more:
# without balancing the load runs away. Each kind of Sinkhorn stops that at once.

# %%
rows = []
for name, mine in runs.items():
    busiest = torch.stack([run.busiest for run in mine])  # seeds, layers, steps
    late = busiest[..., STEPS // 2 :].mean((1, 2))
    rest = torch.tensor([run.at_rest for run in mine]).mean(1)
    loss = torch.tensor([run.loss[-8:] for run in mine]).mean(1)
    rows.append(
        {
            "start": name,
            "in training": f"{late.mean():.2f} ± {late.std():.2f}",
            "at inference": f"{rest.mean():.2f} ± {rest.std():.2f}",
            "loss": f"{loss.mean():.3f} ± {loss.std():.3f}",
        }
    )
late = {
    name: torch.stack([run.busiest[:, STEPS // 2 :] for run in mine]).mean()
    for name, mine in runs.items()
}
assert all(late[name] < late["none (argmax)"] - 0.3 for name in list(BALANCERS)[1:])
table(rows)

# %% [markdown]
# Three things to see. With a learning router one round from ones already does most of it; after
# BlackMamba's start it does a little more, and to its end hardly more than that: the logits of a
# young router are small, and on small logits all starts are alike. The loss shows no difference
# yet. And **at inference**, where the published code takes the largest logit and Sinkhorn is not
# there, the balance is gone: it was never in the router, but in the bias that Sinkhorn added.
# What balances by a bias that is kept (DeepSeek-V3,
# [arXiv:2412.19437](https://arxiv.org/abs/2412.19437)) or by a loss does not have this gap.
#
# ## Layers

# %%
fig, ax = plt.subplots(figsize=(5.8, 2.6))
for offset, (name, mine) in enumerate(runs.items()):
    rest = torch.tensor([run.at_rest for run in mine])
    layers = torch.arange(rest.shape[1])
    ax.errorbar(
        layers + 0.1 * offset,
        rest.mean(0),
        yerr=[rest.mean(0) - rest.amin(0), rest.amax(0) - rest.mean(0)],
        fmt="o",
        capsize=3,
        label=name,
    )
ax.set_xticks(layers + 0.15, [f"layer {2 * int(i) + 2}" for i in layers])
ax.set(ylabel="busiest / mean, at inference", ylim=(1, None))
ax.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
plots.show(fig, "Without Sinkhorn at inference every layer is uneven, however it was trained")

# %% [markdown]
# Bars span the seeds. For BlackMamba itself uneven loads are reported in the last layers; two
# layers and a few dozen steps cannot confirm or deny that.
#
# ## Exercises
#
# **1.** What does the busiest of eight experts get if 1024 tokens choose by dice?

# %% tags=["answer"]
random = torch.Generator().manual_seed(0)
draws = torch.randint(8, (1000, 1024), generator=random)
counts = torch.stack([(draws == e).sum(1) for e in range(8)])
floor = float((counts.amax(0) / 128).mean())
print(f"{floor:.3f} times its part: as even as choices can be that know nothing of each other")
assert 1.05 < floor < 1.2

# %% [markdown]
# **2.** How many rounds does Sinkhorn take to its end on logits as small as a young router's
# (spread 0.1), and as large as an old one's (spread 3)?

# %% tags=["answer"]
for spread in (0.1, 3.0):
    took = {s: drawn_trial(s, spread, 0.0, 2.0)[0] for s in ("ones", "balanced")}
    print(spread, took)
assert took["ones"] > 3

# %% [markdown]
# **3.** A batch waits for its busiest expert. How much longer does a step of the experts take with
# the loads above, if each has a GPU of its own?

# %% tags=["answer"]
assert late["none (argmax)"] == max(late.values())
table([{"start": name, "longer": f"{float(value):.2f} times"} for name, value in late.items()])
