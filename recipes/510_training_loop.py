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
# # A training loop to trust
#
# **Goal.** Read the loop in one sitting; train a small Zamba2-style hybrid on real text; stop it,
# damage it, and see that it goes on to the last bit. **Needs** a CPU and about a minute.
# Builds on [chapter 140](140_hybrids.py) and [chapter 360](360_training_memory.py).
#
# A loop is short. What makes it long elsewhere is what happens when something goes wrong, and that
# is what this chapter looks at: `cookbook_lib/training/loop.py` takes the steps,
# `session.py` keeps them.

# %%
import inspect
import os
import shutil
import subprocess
import sys
from math import log
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch

from cookbook_lib import plots, results
from cookbook_lib.blocks.models import Options as Blocks
from cookbook_lib.blocks.models import Zamba2
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.calculators.optimizers import weights_of
from cookbook_lib.data.python_corpus import python_corpus
from cookbook_lib.plots import table
from cookbook_lib.training import checkpoints
from cookbook_lib.training.loop import Options, Run
from cookbook_lib.training.metrics import flops_per_token, peak
from cookbook_lib.training.optimizers import decays, kinds
from cookbook_lib.training.phases import Phase, Plan
from cookbook_lib.training.sampling import Sampler
from cookbook_lib.training.session import Session, train
from cookbook_lib.training.tiny import zamba2

plots.use()
torch.set_num_threads(min(2, os.cpu_count() or 1))
print(inspect.getsource(Run.advance))

# %% [markdown]
# That is a step. The rate is the plan's at the middle of the step. The loss is the mean over the
# tokens of all ranks that have a target, so that it does not matter how the sequences are divided.
# A loss that is no number stops the run before it touches a weight.
#
# ## A model, a plan, a corpus
#
# The corpus is the installed Python itself: its documentation and its standard library, in a
# byte-level BPE of 1024 tokens. Documents are packed into sequences; attention and states do not
# cross from one into the next, and the first token of a document is not predicted from the last.

# %%
VOCAB, LENGTH, STEPS = 1024, 128, 40
corpus = python_corpus(vocab=VOCAB)
options = Options(batch=8, seed=1)
tokens = STEPS * options.batch * LENGTH
mix = {"prose": 0.5, "code": 0.5}
phase = Phase(
    name="all", tokens=tokens, lr=1e-2, end=0.0, decay="linear", warmup=0.1 * tokens, mix=mix
)
plan = Plan(name="a minute", phases=(phase,))
spec = zamba2(VOCAB, layers="mhmh")
plots.model(spec)


def run(**more) -> Run:
    """The same run from its beginning: weights, data and order follow from the seed."""
    sampler = Sampler(plan, corpus.shards, LENGTH, seed=1)
    chosen = Options(**vars(options) | more)
    return Run(lambda: Zamba2(spec, Blocks(rope=RoPE(), activation="gelu")), plan, sampler, chosen)


whole = run()
rows = [whole.advance() for _ in range(STEPS)]
fig, ax = plt.subplots()
ax.plot([row["tokens"] for row in rows], [row["loss"] for row in rows], label="loss")
ax.axhline(log(VOCAB), linestyle=":", color=plots.INK, label="every token equally likely")
ax.set(xlabel="tokens", ylabel="loss (nats a token)")
ax.legend()
plots.show(fig, "The loss falls from about that of a uniform guess as the model reads more tokens")
assert abs(rows[0]["loss"] - log(VOCAB)) < 0.7
assert sum(row["loss"] for row in rows[-5:]) / 5 < log(VOCAB) - 1

# %% [markdown]
# ## What weight decay pulls at
#
# Decay is for products, convolutions and tables. A norm's weight belongs near one; `A_log` and
# `dt_bias` say how long a state remembers, and pulled to zero they say something else. Shape does
# not tell them apart: the `A_log` of Mamba is a matrix, and so is the bias of several heads' steps.

# %%
model = whole.model
found: dict[str, list[str]] = {}
for name in decays(model):
    found.setdefault(name.split("layers.")[-1].lstrip("0123456789."), []).append(name)
shown = [
    {
        "parameter": role.replace("shared_transformer", "shared").removesuffix(".weight"),
        "kind": kinds(model)[names[0]],
        "decays": "yes" if decays(model)[names[0]] else "no",
        "numbers": sum(model.get_parameter(name).numel() for name in names),
    }
    for role, names in found.items()
    if not role.startswith("mamba_decoder.")  # the same parts, in the layers that ask
]
exempt = {name.rpartition(".")[2] for name, decaying in decays(model).items() if not decaying}
assert {"A_log", "D", "dt_bias", "bias"} < exempt, "mamba_ssm marks the first three, too"
table(shown)

# %% [markdown]
# ## Stopped, and on again
#
# A session gives the run a folder. Here a measurement breaks the run off in the middle, as a power
# cut would, three steps behind its last checkpoint. Resumed, it does those steps again. The file of
# metrics tells each step once, and every loss is that of the run that was never stopped.

# %%
home = TemporaryDirectory()
folder = Path(home.name) / "run"


class PowerCut(Exception):
    pass


def cut(r: Run) -> dict:
    if r.step == 17:
        raise PowerCut
    return {}


try:
    train(run(), Session(folder=folder, every=7, keep=2, bar=False), cut)
except PowerCut:
    print("left:", [path.name for path in checkpoints.saved(folder / "checkpoints")])
report = train(run(), Session(folder=folder, every=20, keep=2, resume=True, bar=False))
told = results.read(folder / "metrics.jsonl")
assert [row["step"] for row in told] == list(range(1, STEPS + 1))
same = [a["loss"] == b["loss"] for a, b in zip(told, rows, strict=True)]
assert all(same), "to the last bit"
table([{"steps": len(told), "equal losses": sum(same), "last": told[-1]["loss"]}])

# %% [markdown]
# A checkpoint is written under another name, flushed to the disk, and renamed: it is whole or it is
# not there. A manifest says what each file hashes to, so that one bit that turned is seen.

# %%
last = checkpoints.saved(folder / "checkpoints")[-1]
damaged = bytearray((last / "__0_0.distcp").read_bytes())
damaged[len(damaged) // 2] ^= 1
(last / "__0_0.distcp").write_bytes(damaged)
try:
    checkpoints.manifest(last)
except ValueError as error:
    print(f"{last.name}: {error}")
report = train(run(), Session(folder=folder, every=20, keep=2, resume=True, bar=False))
assert results.read(folder / "metrics.jsonl")[-1]["loss"] == rows[-1]["loss"]
table([{"folder": path.name} for path in sorted((folder / "checkpoints").iterdir())])

# %% [markdown]
# ## A loss that is no number
#
# One weight becomes infinite. The step that sees it is not taken, the run stops with a line, and
# the last good checkpoint is as it was.


# %%
def poison(r: Run) -> dict:
    if r.step == 5:
        with torch.no_grad():
            next(r.model.parameters()).fill_(float("inf"))
    return {}


try:
    train(run(), Session(folder=Path(home.name) / "poisoned", every=4, bar=False), poison)
except ValueError as error:
    print(error)
    assert "the last good checkpoint: step 4" in str(error)

# %% [markdown]
# ## Two processes, the same losses
#
# Under `torchrun` the same command splits weights, gradients and optimizer states over the ranks
# (FSDP2's `fully_shard`), or with `--shards 1` keeps a copy on each. Here two processes on this CPU
# train eight steps, and so does one.

# %%
arguments = ["--model", "mhmh", "--vocab", str(VOCAB), "--length", str(LENGTH), "--batch", "8"]
arguments += ["--tokens", str(8 * 8 * LENGTH), "--device", "cpu", "--json"]
ways = {
    "one": [sys.executable, "-m", "cookbook_lib"],
    "two": [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *("-m", "cookbook_lib"),
    ],
}
curves = {}
for name, command in ways.items():
    out = Path(home.name) / name
    done = subprocess.run(
        [*command, "train", "run", str(out), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    curves[name] = [row["loss"] for row in results.read(out / "metrics.jsonl")]
apart = [abs(a - b) for a, b in zip(curves["one"], curves["two"], strict=True)]
assert len(apart) == 8 and max(apart) < 1e-3
table(
    [
        {"step": i + 1, "one process": curves["one"][i], "two": curves["two"][i], "apart": apart[i]}
        for i in (0, 3, 7)
    ]
)

# %% [markdown]
# On Slurm a job of two nodes is this. SIGTERM comes five minutes before the end; the run saves and
# ends, and the same file submitted again goes on. `torchrun` gives its processes 30 seconds for
# that; a checkpoint that takes longer is left out, and the one before it is there.
#
# ```bash
# #!/bin/bash
# #SBATCH --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 --time=24:00:00
# #SBATCH --signal=TERM@300 --requeue
# head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# srun torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint="$head:29500" \
#     -m cookbook_lib train run /shared/run --plan plan.toml --data web=/shared/web \
#     --model zamba2-1.2b --length 4096 --batch 512 --micro-batch 2 --bf16 --compile --resume
# ```
#
# ## How much of the machine
#
# The FLOPs of a token follow from the spec; the peak is the vendor's for a GPU in the table of
# chips, and measured with a square product otherwise. Models this small leave most of it unused.

# %%
per_token = flops_per_token(spec, LENGTH)
seconds = sorted(row["seconds"] for row in told)[len(told) // 2]
rate = options.batch * LENGTH / seconds
assert per_token == 3 * spec.flops(b=1, l=LENGTH, attention="causal") / LENGTH
dense = sum(w.elements for _, block in spec.layout for w in weights_of(block) if w.matrix)
table(
    [
        {
            "MFLOP a token": f"{per_token / 1e6:.2f}",
            "6 FLOP a weight used": f"{6 * (dense + spec.after[-1][1].params()) / 1e6:.2f}",
            "tokens/s": round(rate),
            "MFU": f"{rate * per_token / peak('cpu'):.1%}",
        }
    ]
)

# %% [markdown]
# ## Exercises
#
# **1.** Cut the batch of eight into parts of three, three and two. The parts hold unequally many
# targets. By how much do the losses change?

# %% tags=["answer"]
parts = run(micro_batch=3)
cut_rows = [parts.advance() for _ in range(5)]
apart = max(abs(a["loss"] - b["loss"]) for a, b in zip(cut_rows, rows[:5], strict=True))
assert apart < 1e-4
table([{"steps": 5, "largest difference": apart}])

# %% [markdown] tags=["answer"]
# By rounding alone: the loop adds up losses of tokens and divides once, by all of them.

# %% [markdown]
# **2.** Another loop takes the mean loss of each part, and then the mean of the parts. Three parts
# have 300, 300 and 20 targets, and mean losses of 3, 3 and 6. What does each loop report, and how
# much harder does a token of the last part pull at the weights than it should?

# %% tags=["answer"]
counts, means = torch.tensor([300.0, 300.0, 20.0]), torch.tensor([3.0, 3.0, 6.0])
over_tokens = (counts * means).sum() / counts.sum()
over_parts = means.mean()
harder = (1 / (len(counts) * counts[-1])) / (1 / counts.sum())
print(f"over tokens {over_tokens:.3f}, over parts {over_parts:.3f}: {harder:.1f} times as hard")
assert over_parts == 4 and abs(over_tokens - (3 * 600 + 6 * 20) / 620) < 1e-6
assert abs(harder - 620 / 60) < 1e-5

# %% [markdown] tags=["answer"]
# The mean of means weighs a token by how full its part is: it is wrong as soon
# as parts differ in their targets, as they do when documents are packed, and for the last part of
# two sequences always. The `Trainer` of `transformers` had this mistake until October 2024:
# [Fixing Gradient Accumulation](https://huggingface.co/blog/gradient_accumulation).

# %% [markdown]
# **3.** The run above kept a checkpoint every seven steps and was cut off behind step 17. How many
# of its steps were taken twice? And on average, if the cut may come at any step?

# %% tags=["answer"]
every, at = 7, 17
again = at - at // every * every
print(f"in this run {again}, on average {sum(s % every for s in range(every)) / every:g}")
assert again == 3 and report["steps"] == STEPS

# %%
shutil.rmtree(home.name)
plots.table([{"folder": "removed"}])
