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
# # Why is Mamba slower here?
#
# **Goal.** When Mamba turns out slower than attention, find out which of six reasons it is.
# **Needs** a CPU and about half a minute.
#
# It is one of the most asked questions about Mamba. Users report
# [short texts](https://github.com/state-spaces/mamba/issues/657), a
# [state four times as large](https://github.com/state-spaces/mamba/issues/27) as in the paper's
# figure, and a [first call of 32 seconds](https://github.com/state-spaces/mamba/issues/389); an
# [author](https://github.com/state-spaces/mamba/issues/156) says that at 2k tokens it should be
# slower than a Transformer and at 8k faster. Each reason can be shown by a measurement. On another
# machine the numbers differ, and the way to find them is the same.

# %%
import warnings

import matplotlib.pyplot as plt
import torch

from cookbook_lib import plots, results
from cookbook_lib.benchmarks.named import Sizes, sized
from cookbook_lib.benchmarks.passes import inputs, shape, timed
from cookbook_lib.benchmarks.sides import ours, theirs
from cookbook_lib.benchmarks.timing import Stop, compare, measure
from cookbook_lib.commands.output import seconds
from cookbook_lib.measuring import judged
from cookbook_lib.plots import table

with warnings.catch_warnings(action="ignore"):  # no notice about progress bars
    import transformers  # noqa: F401

plots.use()
torch.manual_seed(0)
STOP = Stop(seconds=1.5)


def a_pass(name, tokens, kind="forward", batch=1, make=ours, **sizes):
    """A block of width 256 with random weights, ready to be timed."""
    spec = sized(name, Sizes(**({"d_model": 256} | sizes)))
    run = shape(kind, batch, tokens, tokens)
    return timed(make(spec), spec, kind, run, "fp32", inputs(spec, run, "fp32", "cpu"))


def ratio(one, other):
    """Seconds of the second for each second of the first, with what was found of both."""
    found = compare({"one": one, "other": other}, stop=STOP)
    return found.ratio("other", "one"), found


# %% [markdown]
# ## Reason 1: the first call
#
# With Triton's kernels it compiles them, and tries which of many variants is fastest.
# `torch.compile` does the same. Here a compiled function of three operations stands for a kernel.

# %%
fused = torch.compile(lambda x: (x * torch.sigmoid(x) + 1).cumsum(-1), backend="aot_eager")
x = torch.randn(64, 256)
once = measure(lambda: fused(x), stop=STOP)
print(f"first call {seconds(once.cold)}, then {seconds(once.median)}")
calls = once.cold / once.median
print(f"the first call takes as long as {calls:,.0f} others: leave it out, or say that it is in")
assert calls > 10

# %% [markdown]
# ## Reason 2: the sequence is short
#
# A scan has a fixed number of small steps for each chunk, whatever their size; attention over few
# tokens is one small product. The ratio falls with the length.

# %%
LENGTHS = (64, 256, 1024, 4096)
found = {n: ratio(a_pass("attention", n), a_pass("mamba2", n))[0] for n in LENGTHS}
table(
    [
        {
            "tokens": n,
            "Mamba-2 ÷ attention": round(r.median, 2),
            "interval": f"{r.interval.low:.2f} to {r.interval.high:.2f}",
            "Mamba-2 is": r.verdict,
        }
        for n, r in found.items()
    ]
)

# %%
fig, ax = plt.subplots()
middle = [found[n].median for n in LENGTHS]
spread = [
    [found[n].median - found[n].interval.low for n in LENGTHS],
    [found[n].interval.high - found[n].median for n in LENGTHS],
]
ax.errorbar(LENGTHS, middle, yerr=spread, marker="o", capsize=3)
ax.axhline(1, linestyle=":", color="gray")
ax.set_xscale("log", base=2)
ax.set(xlabel="tokens", ylabel="Mamba-2 ÷ attention, forward")
plots.show(fig, "Seconds of Mamba-2 for each second of attention fall as sequences get longer")
claim = judged(found[4096].median < found[64].median, found[64], found[4096])
print(f"the ratio falls with the length: {claim}")
assert claim != "fails"

# %% [markdown]
# ## Reason 3: the batch is small
#
# Few tokens leave a machine waiting for the start of many small operations, and a Mamba layer has
# more of them than attention. More sequences at once share those starts.

# %%
BATCHES = (1, 16)
found = compare(
    {
        f"{name} {batch}": a_pass(name, 16, batch=batch)
        for name in ("attention", "mamba2")
        for batch in BATCHES
    },
    stop=Stop(seconds=3.0),
)
each = {key: t.median / int(key.split()[1]) / 16 for key, t in found.timings.items()}
table(
    [
        {
            "sequences of 16": batch,
            "attention, µs a token": round(1e6 * each[f"attention {batch}"], 2),
            "Mamba-2, µs a token": round(1e6 * each[f"mamba2 {batch}"], 2),
            "ratio": round(found.ratio(f"mamba2 {batch}", f"attention {batch}").median, 2),
        }
        for batch in BATCHES
    ]
)

# %%
more = found.ratio("mamba2 16", "mamba2 1")
print(f"16 sequences take {more.median:.1f} times as long as one", end=", ")
print(f"{more.interval.low:.1f} to {more.interval.high:.1f}")
assert more.interval.low < 16

# %% [markdown]
# A token gets cheaper for both. Which of the two gains more is in the last column, and depends on
# the machine: at one sequence both are mostly starts.
#
# ## Reason 4: the kernels are not there
#
# Where `mamba_ssm` is not installed, transformers' Mamba goes token by token in Python. The chunks
# of this package are plain PyTorch too. Same weights, same result. How much longer it takes depends
# on what else the machine does; the rows at the end of this page were measured alone.

# %%
spec = sized("mamba1", Sizes(d_model=128))
run = shape("forward", 1, 256, 0)
x = inputs(spec, run, "fp32", "cpu")
mine, other = ours(spec), theirs(spec, "transformers", "cpu")
mine.load_state_dict(other.state_dict())
with torch.no_grad():
    apart = ((mine(x) - other(x)).abs().max() / other(x).abs().max()).item()
chunks, loop = (timed(m, spec, "forward", run, "fp32", x) for m in (mine, other))
between, both = ratio(chunks, loop)
print(f"in chunks {seconds(both.timings['one'].median)}", end=", ")
print(f"token by token {seconds(both.timings['other'].median)}: {between.median:.1f} times as long")
print(f"largest relative difference {apart:.1e}")
assert apart < 1e-4

# %% [markdown]
# On a GPU the distance is larger, as each of those small operations is a launch. See
# [installing mamba-ssm](../docs/kernels.md).
#
# ## Reason 5: the chunks have the wrong size
#
# Larger chunks mean more FLOPs and fewer steps. The best size is that of the machine, not of the
# model: it changes no result.

# %%
SIZES = (8, 32, 64, 128, 256, 1024)
chunked = {f"{q}": a_pass("mamba2", 2048, chunk_size=q) for q in SIZES}
taken = compare(chunked, stop=Stop(seconds=3.0)).timings
best = min(taken, key=lambda q: taken[q].median)
table(
    [
        {
            "chunk": int(q),
            "MFLOP": sized("mamba2", Sizes(d_model=256, chunk_size=int(q))).flops(l=2048) // 10**6,
            "ms": round(1e3 * t.median, 2),
            "times the best": round(t.median / taken[best].median, 2),
        }
        for q, t in taken.items()
    ]
)

# %%
worst = max(taken.values(), key=lambda t: t.median)
claim = judged(worst.median > 1.2 * taken[best].median, worst, taken[best])
print(f"best here: chunks of {best} tokens; the worst takes 1.2 times as long or more: {claim}")
assert claim != "fails"

# %% [markdown]
# ## Reason 6: the scan is in float32, and the state is large
#
# The state is carried over thousands of tokens, so the scan computes in float32 even where all
# weights are in bfloat16: [mixed precision](130_state_space_models.py) speeds up the projections
# and not the scan. And its work grows with `d_state`, which the projections of Mamba-1 hardly do:
# a figure measured with a state of four tells little about one of 16 or 64.

# %%
STATES = (4, 16, 64)
sides = {f"{n}": a_pass("mamba1", 1024, d_state=n) for n in STATES}
taken = compare(sides, stop=Stop(seconds=3.0)).timings
table(
    [
        {
            "d_state": int(n),
            "ms": round(1e3 * t.median, 2),
            "times": round(t.median / taken["4"].median, 2),
            "parameters, times": round(
                sized("mamba1", Sizes(d_model=256, d_state=int(n))).params()
                / sized("mamba1", Sizes(d_model=256, d_state=4)).params(),
                2,
            ),
        }
        for n, t in taken.items()
    ]
)

# %%
larger = taken["64"].median / taken["4"].median
print(f"a state of 64 takes {larger:.1f} times as long as one of 4")
assert judged(larger > 1.2, taken["64"], taken["4"]) != "fails"

# %% [markdown]
# ## Look: beside transformers at full length
#
# These rows take longer, so they come from the repository, made by
# `cookbook bench block mamba2 --against transformers --out FILE`.

# %%
measured = results.committed("blocks")
table(
    [
        {
            "block": r["block"],
            "tokens": r["tokens"],
            "pass": r["pass"],
            "ours, ms": round(1e3 * r["seconds"]["median"]),
            "transformers ÷ ours": round(r["other"]["ratio"]["median"], 1),
        }
        for r in measured
    ]
)

# %%
for device, threads, day in sorted({(r["device"], r["threads"], r["date"][:10]) for r in measured}):
    print(f"{device}, {threads} threads, {day}")
assert all(r["other"]["ratio"]["low"] > 1 for r in measured)

# %% [markdown]
# ## Exercise
#
# A model trains on texts of 150 tokens, as in the report above. Pack them into sequences of 2,400
# and keep them apart with `seq_idx`. Is a token cheaper?

# %% tags=["answer"]
spec = sized("mamba2", Sizes(d_model=256))
module = ours(spec)
short, packed = torch.randn(1, 150, 256), torch.randn(1, 2400, 256)
document = torch.arange(16).repeat_interleave(150)[None]


def alone():
    with torch.no_grad():
        module(short)


def together():
    with torch.no_grad():
        module(packed, seq_idx=document)


between, both = ratio(alone, together)
print(f"16 texts in one sequence take {between.median:.1f} times as long as one text alone")
print(f"a token among them takes {between.median / 16:.0%} of the time of one in a text alone")
assert between.interval.low < 20
