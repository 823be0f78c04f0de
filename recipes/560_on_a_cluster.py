# ---
# jupyter:
#   jupytext:
#     comment_magics: false
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # On a cluster: Zamba-7B on 128 GPUs
#
# **Goal.** Choose how to split a real run over a real cluster by what each choice costs in memory
# and on the wires; lay the published time beside it; start the loop of this book under Slurm.
# **Needs** a CPU and about 15 seconds.
# Builds on [chapter 370](370_training_time.py) and [chapter 510](510_training_loop.py).
#
# Zamba-7B was trained on $10^{12}$ tokens with 128 H100 in 30 days, says
# [Zyphra](https://www.zyphra.com/zamba) (April 2024); the paper
# ([arXiv:2405.16712](https://arxiv.org/abs/2405.16712)) is reported to name ZeRO-1. The size of a
# batch was not found: 1024 sequences of 4096 tokens stand in for it.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt

from cookbook_lib import plots
from cookbook_lib.calculators.chips import chip
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.calculators.presets import preset
from cookbook_lib.calculators.step_time import train_report
from cookbook_lib.commands.output import seconds
from cookbook_lib.plots import table
from cookbook_lib.training import plans

plots.use()
zamba, h100 = preset("zamba-7b-v1"), chip("h100")
tokens = round(plans.resolve("zamba-7b").tokens)
gpu_seconds = 128 * 30 * 86400
rule = 6 * zamba.params() * tokens / gpu_seconds
counted = zamba.step_flops(l=4096, attention="causal") / 4096 * tokens / gpu_seconds
print(f"by 6ND: {rule / 1e12:.0f} TFLOP/s on each GPU, {rule / h100.flops:.0%} of the peak")
print(f"counted: {counted / 1e12:.0f} TFLOP/s on each GPU, {counted / h100.flops:.0%} of the peak")
assert round(rule / 1e12) == 131  # 6 x 7.2325e9 x 1e12 / (128 x 30 d), by hand
assert counted > 1.4 * rule  # the shared block is computed thirteen times

# %% [markdown]
# ## Run: what each way of splitting costs
#
# The same step, split in different ways. *GB* is what the fullest GPU needs with AdamW; *sent* is
# what a GPU puts on the wires in a step; *wires* is how long that takes over NVLink and, between
# nodes of eight, over the network; *at best* is the step if everything overlaps, *at worst* if
# nothing does.

# %%
BATCH = 1024
WAYS = {
    "ZeRO-1": {"zero": 1},
    "ZeRO-3": {"zero": 3},
    "ZeRO-1, tp 2": {"zero": 1, "tp": 2},
    "ZeRO-1, pp 4": {"zero": 1, "pp": 4},
    "ZeRO-1, cp 2": {"zero": 1, "cp": 2},
}


def split(device=h100, recompute="selective", gpus=128, **how):
    """A report on the run with one of the ways."""
    how = Parallel(gpus=gpus, global_batch=BATCH, **how)
    return train_report(zamba, device, how, 4096, tokens, recompute=recompute)


reports = {name: split(**how) for name, how in WAYS.items()}


def line(r):
    sent = sum(c["sent_bytes"] for c in r["collectives"])
    return {
        "GB": f"{r['memory_bytes'] / 1e9:.1f}",
        "sent, GB": f"{sent / 1e9:.1f}",
        "wires": seconds(r["communication_seconds"]),
        "at best": seconds(r["overlapped_seconds"]),
        "at worst": seconds(r["summed_seconds"]),
    }


table([{"way": name} | line(r) for name, r in reports.items()])

# %% [markdown]
# Why not eight tensor-parallel ranks, a node full? The model says no:

# %%
try:
    split(zero=1, tp=8)
except ValueError as error:
    print(error)
else:
    raise AssertionError("Zamba-7B has two Mamba heads, and one cannot be split")

# %% [markdown]
# Read it from the left. Whatever does not fit is out; of what fits, the least time at worst is
# best. ZeRO-1 sends the gradients once and the weights once, however large the batch
# is. Tensor parallelism sends activations in every layer, a pipeline leaves a bubble, and context
# parallelism passes keys, values and states round.

# %%
room = {name: r["fits"] for name, r in reports.items()}
best = min((name for name in WAYS if room[name]), key=lambda n: reports[n]["summed_seconds"])
print(f"fit into {h100.memory / 1e9:.0f} GB:", "; ".join(n for n, fits in room.items() if fits))
print(f"least time if nothing overlaps: {best}")
assert best == "ZeRO-1", "which is what Zyphra is reported to have used"

# %% [markdown]
# ## Look: memory decides first
#
# Does ZeRO-1 leave room for activations? What recomputation saves is what the layers keep for the
# backward pass; what it costs is arithmetic.

# %%
rows = []
for recompute in ("none", "selective", "full"):
    for name in ("ZeRO-1", "ZeRO-3"):
        r = split(recompute=recompute, **WAYS[name])
        rows.append(
            {
                "recompute": recompute,
                "way": name,
                "GB": f"{r['memory_bytes'] / 1e9:.1f}",
                "fits": "yes" if r["fits"] else "no",
                "math": seconds(r["math_seconds"]),
            }
        )
none, selective, full, least = (float(rows[i]["GB"]) for i in (0, 2, 4, 5))
assert none > selective > full > least
table(rows)

# %% [markdown]
# ## The published 30 days beside the bound
#
# The bound knows the peak of the chip and nothing of kernels. The published time lies above it by
# the inverse of the utilisation, which is an observation, not a prediction.

# %%
bound = reports["ZeRO-1"]["days"]
at = train_report(
    zamba,
    h100,
    Parallel(gpus=128, zero=1, global_batch=BATCH),
    4096,
    tokens,
    mfu=counted / h100.flops,
)
print(f"at the peak {bound:.1f} days, at {at['mfu']:.1%} of it {at['days']:.1f}; published: 30")
assert bound < 30 and abs(at["days"] - 30) < 1e-6

# %% [markdown]
# ## A slower network
#
# On which network does the choice change? Here the bandwidth between nodes falls from that of eight
# fast adapters to that of one slow one.

# %%
rates = [50e9, 25e9, 12.5e9, 6e9, 3e9, 1.5e9, 0.75e9]
fig, ax = plt.subplots()
for name in ("ZeRO-1", "ZeRO-3", "ZeRO-1, tp 2"):
    times = [split(replace(h100, network=rate), **WAYS[name])["summed_seconds"] for rate in rates]
    ax.plot([r / 1e9 for r in rates], times, "o-", label=name)
math = reports["ZeRO-1"]["math_seconds"]
ax.axhline(math, color=plots.INK, lw=0.8, label="arithmetic alone")
ax.set(xscale="log", yscale="log", xlabel="GB/s of each GPU between nodes", ylabel="seconds a step")
ax.set_xticks([r / 1e9 for r in rates], [f"{r / 1e9:g}" for r in rates])
ax.set_yticks([3, 5, 10, 20, 50], ["3", "5", "10", "20", "50"])
ax.minorticks_off()
ax.legend(fontsize=8)
plots.show(fig, "As the network slows, ZeRO-3 suffers first and most")

# %% [markdown]
# ## Start it
#
# The loop of this book runs unchanged under `torchrun`: FSDP2 splits weights, gradients and states
# over the ranks (`--shards` of them; with fewer than all, groups are copies). A job file for Slurm:
#
# ```bash
# #!/bin/bash
# #SBATCH --job-name=zamba-7b
# #SBATCH --nodes=16
# #SBATCH --ntasks-per-node=1
# #SBATCH --gpus-per-node=8
# #SBATCH --time=24:00:00
# #SBATCH --signal=TERM@300
# #SBATCH --requeue
# head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 8 \
#   --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$head:29500" \
#   -m cookbook_lib train run /shared/runs/zamba \
#   --model zamba-7b-v1 --plan zamba-7b.toml \
#   --data web=/shared/web new=/shared/new \
#   --length 4096 --batch 1024 --micro-batch 1 --shards 8 --bf16 --resume
# ```
#
# Five minutes before its time is over the job is told to end: the loop writes a checkpoint and
# stops. What is submitted again goes on from there. Checkpoints and shards lie where all nodes see
# them. `cookbook phases zamba-7b --model zamba-7b-v1 --chip h100 --gpus 128` says beforehand what
# to expect. This book has not run it on 128 GPUs; the tests run the same code on two processes.
#
# ## Exercises
#
# **1.** At the utilisation above, how many GPUs finish in a week, and what is left of the batch for
# each?

# %% tags=["answer"]
needed = counted * gpu_seconds / (7 * 86400) / counted
gpus = next(n for n in (2**k for k in range(1, 14)) if n >= needed)
print(f"{needed:.0f} GPUs; with {gpus:,}, a step has {BATCH / gpus:g} times as many sequences")
assert 512 <= needed <= 1024

# %% [markdown]
# **2.** How does the part of the wires grow with the GPUs, if the batch of a step stays? How many
# GPUs would make it equal to the arithmetic, and why does it not come to that?

# %% tags=["answer"]
for gpus in (128, 256, 512, 1024):
    r = split(gpus=gpus, zero=1)
    print(f"{gpus:>5}: {seconds(r['math_seconds'])}, wires {seconds(r['communication_seconds'])}")
ratio = [
    split(gpus=n, zero=1)["communication_seconds"] / split(gpus=n, zero=1)["math_seconds"]
    for n in (128, 1024)
]
print(f"equal with about {128 / ratio[0]:,.0f}, more than there are sequences in a step")
assert ratio[1] > 4 * ratio[0] and 128 / ratio[0] > BATCH

# %% [markdown]
# **3.** A colleague wants sequences of 65,536 tokens. Does one still fit on a GPU with ZeRO-1, and
# what does context parallelism change?

# %% tags=["answer"]
for cp in (1, 2, 4, 8):
    how = Parallel(gpus=128, zero=1, cp=cp, global_batch=128)
    r = train_report(zamba, h100, how, 65_536, tokens, recompute="full")
    fits = "fits" if r["fits"] else "too much"
    print(f"cp {cp}: {65_536 // cp:,} tokens on a GPU, {r['memory_bytes'] / 1e9:.0f} GB, {fits}")
assert r["fits"], "eight GPUs hold one sequence"

# %% [markdown]
# **4.** Llama 3 met 419 unexpected interruptions in 54 days on 16,384 GPUs
# ([arXiv:2407.21783](https://arxiv.org/abs/2407.21783), section 3.3.4). At that rate, how often do
# 128 GPUs stop? Weights in float32 and two moments are written to a disk that takes 5 GB/s. After
# how many minutes of work should a checkpoint follow, and which share of the time is lost then?
# Guess first: an hour?

# %% tags=["answer"]
between = 54 * 86400 * 16384 / 419 / 128  # seconds from one stop to the next
write = 3 * 4 * zamba.params() / 5e9


def lost(work):
    """Writing after each stretch of work, and half a stretch done again after each stop."""
    return write / work + work / 2 / between


best = min(range(60, 86400, 10), key=lost)
print(f"a stop in {between / 86400:.1f} days, {write:.0f} s to write; every {best / 60:.0f} min")
print(f"{lost(best):.2%} of the time is lost; with a checkpoint each hour {lost(3600):.2%}")
assert abs(best / (2 * write * between) ** 0.5 - 1) < 0.01  # Young's rule, where the two are equal
assert lost(3600) < 2 * lost(best), "and near the best it hardly matters"
