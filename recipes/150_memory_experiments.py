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
# # Experiments: what does each architecture remember?
#
# **Goal.** Train attention, Mamba-2 and a hybrid of equal size on tasks that need memory, and see
# for yourself what each is good for; then take Zamba2 apart and see what each of its ideas adds.
# **Needs** a CPU and about two minutes, in which ten tiny models are trained.
# Builds on [chapter 140](140_hybrids.py).
#
# The tasks are small and clean, so that there is one thing to see. In **recall** the model reads
# pairs of keys and values, then every key again in another order, and must say its value. In
# **copying** it must repeat the letters that were scattered among noise. In **induction** it must
# say what followed a mark. In a **phone book** it must say the number of one of the names.

# %%
from collections import defaultdict
from statistics import mean, median, stdev

import matplotlib.pyplot as plt
import torch

from cookbook_lib import plots, results
from cookbook_lib.blocks.models import Options, Residual
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.plots import table
from cookbook_lib.training.experiments import TASKS
from cookbook_lib.training.tiny import ablations, level, mixers
from cookbook_lib.training.trial import trial

plots.use()
torch.set_num_threads(1)  # the models are too small for two
for name, task in TASKS.items():
    tokens, targets = task.sample(1, torch.Generator().manual_seed(0))
    said = ["·" if t < 0 else str(t) for t in targets[0].tolist()]
    print(f"{name}\n  reads {' '.join(map(str, tokens[0].tolist()))}\n  says  {' '.join(said)}")

# %% [markdown]
# ## Run: three mixers, three seeds
#
# Each model has four layers, every second one an MLP. They differ in what mixes the tokens: two
# attention layers, two Mamba-2 layers, or one of each. The MLPs are widened until all three have
# equally many parameters.

# %%
recall = TASKS["recall"]
models = mixers(recall.vocab)
live = [trial(name, make, recall, seed) for seed in range(3) for name, make in models.items()]
sizes = {t.model: t.params for t in live}
print(sizes, f"trained in {sum(t.seconds for t in live):.0f} s")
assert max(sizes.values()) / min(sizes.values()) < 1.01

# %%
fig, ax = plt.subplots()
for name in models:
    runs = [t for t in live if t.model == name]
    curve = torch.tensor([t.accuracy for t in runs])
    (line,) = ax.plot(runs[0].steps, curve.mean(0), "o-", label=name)
    low, high = curve.min(0).values, curve.max(0).values
    ax.fill_between(runs[0].steps, low, high, alpha=0.2, color=line.get_color())
ax.set(xlabel="training steps", ylabel="share of keys answered right", ylim=(0, 1.05))
ax.legend()
plots.show(fig, "Recall against training steps: the hybrid learns it first; bands span three seeds")

# %% [markdown]
# The hybrid is far ahead of both. Each half alone lacks something that the other has. A Mamba layer
# begins with a short convolution, which puts each key beside its value in one step; attention then
# finds the key. Two attention layers can do the same, the first looking one token back and the
# second looking the key up, but they have to discover it. Two Mamba layers pair at once;
# their lookup must go through a state of fixed size, which holds all pairs together.

# %%
final = defaultdict(list)
for t in live:
    final[t.model].append(t.accuracy[-1])
for name, scores in final.items():
    print(f"{name:10} {mean(scores):.2f} ± {stdev(scores):.2f}")
assert min(final["hybrid"]) > max(final["attention"] + final["Mamba-2"])

# %% [markdown]
# ## Look: four tasks, a longer budget
#
# The same on all four tasks, with more steps. These runs took longer than a page should; they are
# in the repository, each row with its device, version and date. `cookbook train tasks --out FILE`
# makes such a file on your machine.

# %%
rows = results.committed("tasks")
budgets = " or ".join(str(budget) for budget in sorted({r["budget"] for r in rows}))
made = {(r["device"], r.get("torch") or r["versions"]["torch"], r["date"][:10]) for r in rows}
print(f"{len(rows)} trials of {budgets} steps, made on")
for device, version, date in sorted(made):
    print(f"{device}, PyTorch {version}, {date}")


def scores(experiment):
    """(task, model) -> the last accuracies of all seeds."""
    found = defaultdict(list)
    for r in rows:
        if r["experiment"] == experiment:
            found[r["task"], r["model"]].append(r["accuracy"][-1])
    return found


by_mixer = scores("mixers")
names = list(models)
fig, ax = plt.subplots(figsize=(7, 3.4))
for k, name in enumerate(names):
    at = [i + 0.25 * (k - 1) for i in range(len(TASKS))]
    values = [by_mixer[task, name] for task in TASKS]
    error = [stdev(v) for v in values]
    ax.bar(
        at,
        [mean(v) for v in values],
        0.23,
        yerr=error,
        label=name,
        error_kw={"lw": 1, "ecolor": plots.INK},
    )
ax.set_xticks(range(len(TASKS)), list(TASKS))
ax.set(ylabel="share answered right", ylim=(0, 1.1))
ax.grid(axis="x")
ax.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.18))
plots.show(
    fig, "Accuracy of attention, Mamba-2 and the hybrid on four memory tasks, with deviations"
)

# %%
table(
    [
        {"task": task}
        | {n: f"{mean(by_mixer[task, n]):.2f} ± {stdev(by_mixer[task, n]):.2f}" for n in names}
        for task in TASKS
    ]
)

# %% [markdown]
# Each task separates the models in its own way. Read the table by columns, too: what a model fails
# at says more than what it does well.
#
# ## What each idea of Zamba2 adds
#
# Four Mamba-2 layers, two of which ask a shared transformer block first, on copying. Then the same
# without the LoRA that tells its uses apart, without the embeddings beside the stream, and with a
# block of its own for each use, which costs parameters.

# %%
TARGET = 0.9  # share of the letters copied right


def learned(row):
    """After how many steps a trial first copies that share of the letters; None: in none."""
    pairs = zip(row["steps"], row["accuracy"], strict=True)
    return next((step for step, share in pairs if share >= TARGET), None)


trials = [r for r in rows if r["experiment"] == "ablations"]
(budget,) = {r["budget"] for r in trials}
never = 1.1 * budget  # where a trial is drawn that did not get there
params = {r["model"]: r["params"] for r in trials}
took = {
    idea: sorted(learned(r) or never for r in trials if r["model"] == idea)
    for idea in ablations(TASKS["copying"].vocab)
}
fig, ax = plt.subplots()
for k, steps in enumerate(took.values()):
    done = [s for s in steps if s <= budget]
    lost = steps[len(done) :]
    ax.plot(done, [k] * len(done), "o", color="C0", alpha=0.6, markersize=7)
    ax.plot(lost, [k + 0.13 * i for i in range(len(lost))], "x", color="C1", markersize=7)
    ax.plot(median(steps), k, "|", color=plots.INK, markersize=22)
ax.set_yticks(range(len(took)), [f"{idea}\n{params[idea] / 1e3:.0f} k" for idea in took])
ax.invert_yaxis()
ax.set(xlabel=f"steps until {TARGET:.0%} of the letters are right", xlim=(0, 1.17 * budget))
ax.set_ylim(len(took) - 0.5, -0.5)
plots.show(
    fig,
    "Steps that Zamba2, and Zamba2 without each of its ideas, need to learn copying: a dot for "
    "each seed, a cross for one that did not get there, a bar at the median",
)

# %%
whole = took["shared block"]
for idea, steps in took.items():
    middle = f"{median(steps):.0f} steps" if median(steps) <= budget else "not reached"
    apart = max(whole) < min(steps) or max(steps) < min(whole)
    seen = "apart from those of the whole" if apart else "among those of the whole"
    print(f"{idea}: median {middle}" + ("" if steps is whole else f"; its seeds lie {seen}"))
    if idea not in ("shared block", "Mamba-2 only"):
        assert not apart and median(steps) < 1.5 * median(whole)
assert median(took["Mamba-2 only"]) > 2 * median(whole) and max(whole) <= budget

# %% [markdown]
# With a shared block every run learns to copy; of Mamba-2 alone most do not, in the same time. It
# also has fewer parameters (under its name), but more of the same alone do not bring the lookup:
# the mixers above are equal in size. LoRA, concatenation and a second block make no difference that
# five seeds could show. That is the verdict at this scale, no more: copying one passage asks a
# shared block to do one thing only, so there is nothing for its uses to differ in.
#
# ## What a tiny model can show, and what it cannot
#
# It can show that an architecture *can* learn a task, and how soon. A failure is weaker: with more
# steps, more width or another learning rate it may succeed. And no line here says anything about
# the quality of a large model on text; published comparisons at scale
# ([arXiv:2406.07887](https://arxiv.org/abs/2406.07887)) point the same way, and they are the
# evidence.
#
# ## Exercises
#
# **1.** Attention alone stays near 0.2 on recall for long. Which strategy explains this number?

# %% tags=["answer"]
tokens, targets = recall.sample(2000, torch.Generator().manual_seed(1))
shown = tokens[:, 1 : 2 * recall.pairs : 2]  # the values, without their keys
commonest = shown.mode(dim=1).values
guess = (targets[:, 2 * recall.pairs :] == commonest[:, None]).float().mean().item()
print(f"always say the value that was shown most often: {guess:.2f}")
assert 0.15 < guess < 0.25

# %% [markdown]
# **2.** How many bytes of state does each of the three hold at the end of a recall task, and at
# which length would attention hold ten times as much as Mamba-2?

# %% tags=["answer"]
specs = {name: make().spec for name, make in models.items()}
held = {name: s.state_bytes(s=recall.length, dtype="fp32") for name, s in specs.items()}
print(held)
flat = held["Mamba-2"]
length = next(
    n for n in range(1, 10**6) if specs["attention"].state_bytes(s=n, dtype="fp32") > 10 * flat
)
print(f"after {length} tokens")
assert specs["Mamba-2"].state_bytes(s=length, dtype="fp32") == flat

# %% [markdown]
# **3.** Is the order of the layers important? Put attention below Mamba-2.

# %% tags=["answer"]
above, below = level(["m-a-", "a-m-"], recall.vocab)
swapped = trial("attention first", lambda: Residual(below, Options(rope=RoPE())), recall)
print(f"Mamba-2 first {mean(final['hybrid']):.2f}, attention first {swapped.accuracy[-1]:.2f}")
assert swapped.accuracy[-1] < min(final["hybrid"])
