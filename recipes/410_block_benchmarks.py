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
# # How fast is a block, really?
#
# **Goal.** Measure a block so that the number can be trusted, say how well it is known, and how far
# it is from what the machine can do; recognise five ways in which public benchmarks go wrong.
# **Needs** a CPU and about half a minute.
#
# A benchmark prints a number whether or not the work was done. So a number needs a proof: that the
# call was over when the clock was read, that the unit is right, that the FLOPs are those of the
# block, and that another measurement would say the same.

# %%
from concurrent.futures import ThreadPoolExecutor
from random import Random
from time import perf_counter

import matplotlib.pyplot as plt
import torch

from cookbook_lib import plots, results
from cookbook_lib.benchmarks.ceilings import ceilings
from cookbook_lib.benchmarks.named import Sizes, sized
from cookbook_lib.benchmarks.passes import inputs, shape, timed, work
from cookbook_lib.benchmarks.rows import row
from cookbook_lib.benchmarks.sides import ours
from cookbook_lib.benchmarks.timing import Stop, WallClock, compare, measure
from cookbook_lib.calculators.presets import preset
from cookbook_lib.commands.output import count, seconds
from cookbook_lib.measuring import Timing, interval
from cookbook_lib.plots import table

plots.use()
torch.manual_seed(0)


def a_pass(name, tokens, kind="forward", context=0, **sizes):
    """A block of this package with random weights, ready to be timed, and its work."""
    spec, run = sized(name, Sizes(**sizes)), shape(kind, 1, tokens, context)
    call = timed(ours(spec), spec, kind, run, "fp32", inputs(spec, run, "fp32", "cpu"))
    return call, work(spec, kind, run, "fp32")


# %% [markdown]
# ## Run: one number, and how well it is known
#
# `measure` warms up, takes samples until the interval of their median is narrow or time is up, and
# keeps the very first call apart. The interval is made of order statistics: of $n$ samples, how
# many lie below the true median is binomial $(n, 1/2)$, whatever the distribution.

# %%
call, does = a_pass("mamba2", 512, d_model=512)
found = measure(call)
print(f"a Mamba-2 layer reads 512 tokens in {seconds(found.median)}")
low, high, _ = found.interval
print(f"the median lies between {seconds(low)} and {seconds(high)}, at 95%")
print(f"8 of 10 samples lie between {seconds(found.quantile(1))} and {seconds(found.quantile(9))}")
print(f"{len(found.samples)} samples; the first call took {seconds(found.cold)}")
assert low <= found.median <= high

# %% [markdown]
# ## Trap 1: the first call
#
# It starts threads, fills caches, chooses algorithms; with Triton or `torch.compile` it compiles. A
# user of Mamba saw [32 seconds](https://github.com/state-spaces/mamba/issues/389) for it. A mean
# over few calls hides that in a number which no call takes.

# %%
compiled = Timing(samples=found.samples, cold=32.0)  # as reported there
for calls in (1, 10, 30):
    mean = (compiled.cold + (calls - 1) * compiled.median) / calls
    print(f"mean of the first {calls:2}: {seconds(mean):>9}, {mean / compiled.median:,.0f} times")
print(f"here: first call {found.cold / found.median:.1f} × the median")
assert mean / compiled.median > 2, "after 30 calls the mean still tells of the first"

# %% [markdown]
# ## Trap 2: nobody waited
#
# A GPU works in the background: a call returns when it is queued. A thread shows the same on a CPU.

# %%
a, b = (torch.randn(1024, 1024) for _ in range(2))
with ThreadPoolExecutor(1) as device:
    device.submit(torch.mm, a, b).result()
    start = perf_counter()
    queued = device.submit(torch.mm, a, b)
    returned = perf_counter() - start
    queued.result()  # as torch.cuda.synchronize() does
    done = perf_counter() - start
print(f"returned after {seconds(returned)}: {count(2 * 1024**3 / returned)}FLOP/s, it seems")
print(f"done after {seconds(done)}: {count(2 * 1024**3 / done)}FLOP/s")
assert done > 2 * returned

# %% [markdown]
# On CUDA this package takes time from the GPU's own events, in the stream where the work is.
#
# ## Trap 3: the unit

# %% [markdown] tags=["bug"]
# `benchmarks/computation/benchmark_mamba.py` of
# [zcookbook](https://github.com/Zyphra/zcookbook) (at `1d1e09c`) measures well: it warms up,
# synchronises, and takes the mean of 30 calls with PyTorch's own timer. Then it prints. Its
# printer, with our names:


# %%
def printed(latency):
    if latency < 1:
        return f"{latency * 1000:.2f} µs"
    return f"{latency:.2f} ms" if latency < 1000 else f"{latency / 1000:.2f} s"


hand = [0.0]  # a clock that we move by hand: a call takes exactly 5 ms
known = measure(lambda: hand.__setitem__(0, hand[0] + 0.005), WallClock(now=lambda: hand[0]))
print(f"the timer says {known.median:.3f}, the printer says {printed(known.median)}")

# %% [markdown]
# What is wrong, and which test would have caught it?

# %% tags=["answer"]
print(f"PyTorch's timer returns seconds, the printer wants milliseconds: {seconds(known.median)}")
print("A call of known length, on a clock that a test moves, must print as that length.")
assert abs(known.median - 0.005) < 1e-9 and seconds(known.median) == "5.00 ms"
assert printed(known.median) == "5.00 µs" and printed(1e3 * known.median) == "5.00 ms"

# %% [markdown]
# ## Trap 4: FLOPs from a second formula
#
# The output projection of Mamba-2, counted with a factor `d_state` too many, is the bug of
# [an earlier chapter](320_ssm_costs.py). In a benchmark it makes throughput. Two checks catch it:
# the block's own rows, and that nothing runs faster than the machine.

# %%
ROOF = ceilings("cpu", "fp32", Stop(seconds=0.5))
print(f"a large product reaches {count(ROOF.flops)}FLOP/s, a large copy {count(ROOF.bandwidth)}B/s")
print(f"both meet at {ROOF.ridge:.0f} FLOPs a byte")
spec = sized("mamba2", Sizes(d_model=512))
too_many = does.flops + 2 * 512 * spec.d_inner * spec.d_model * (spec.d_state - 1)
for name, flops in {"by the spec": does.flops, "with the bug": too_many}.items():
    part = flops / found.median / ROOF.flops
    print(f"{name}: {count(flops / found.median)}FLOP/s, {part:.0%} of a large product")
assert too_many / does.flops > 10
assert does.flops / found.median < 2 * ROOF.flops

# %% [markdown]
# ## Trap 5: a number without its spread
#
# The same call twice, on a machine that is not always equally fast. One sample of each says that
# one is faster. So do the means of ten, now and then.

# %%
draw = Random(0)
one, other = ([draw.lognormvariate(-3, 0.3) for _ in range(10)] for _ in range(2))
print(f"first samples: {seconds(one[0])} and {seconds(other[0])}")
for samples in (one, other):
    low, high, _ = interval(samples)
    print(f"median between {seconds(low)} and {seconds(high)}")
same = compare({"one": call, "again": call}, stop=Stop(seconds=2.0)).ratio("again", "one")
low, high, _ = same.interval
print(f"the layer above, twice in turn: ratio {low:.3f} to {high:.3f}: {same.verdict}")
assert low < 1.1 and high > 0.9

# %% [markdown]
# ## Run: blocks beside the roofline
#
# FLOPs and bytes come from the spec; the two ceilings were measured in this run, on this machine.
# The share of the roofline is the time that the better ceiling allows, over the time it took.

# %%
CASES = [
    ("attention", 512),
    ("mlp", 512),
    ("moe", 512),
    ("mamba1", 512),
    ("mamba2", 512),
    ("mamba3", 512),
    ("gated-deltanet", 512),
    ("rwkv7", 512),
    ("norm", 512),
]
rows = []
for name, tokens in CASES:
    run, does = a_pass(name, tokens, d_model=256)
    took = measure(run, stop=Stop(seconds=0.3))
    r = row({}, took, device="cpu", flops=does.flops, nbytes=does.nbytes, ceilings=ROOF)
    rows.append({"block": name, "ms": round(1e3 * took.median, 2)})
    rows[-1] |= {"FLOP/B": round(does.flops / does.nbytes, 1)}
    rows[-1] |= {"GFLOP/s": round(r["flops_per_second"] / 1e9, 1)}
    rows[-1] |= {"of roof": f"{r['roofline']:.0%}", "known": "no" if took.noisy else "yes"}
table(rows)

# %% [markdown]
# More than all of it is possible: the ceiling of bytes is that of memory, and a small block stays
# in the cache. A GPU's clock here flushes its cache first.
#
# ## Look: sizes and devices with data
#
# `cookbook bench block NAME --tokens 256 512 … --out FILE` wrote these; each row names its device.

# %%
committed = [r for r in results.committed("crossovers") if r["outcome"] == "measured"]
for device in sorted({r["device"] for r in committed}):
    fig, ax = plt.subplots()
    mine = [r for r in committed if r["device"] == device]
    top = mine[0]["ceilings"]
    xs = [0.25, top["flops"] / top["bandwidth"], 4000]
    ax.loglog(xs, [min(top["flops"], x * top["bandwidth"]) / 1e9 for x in xs], color="gray")
    for name, marker in zip(dict.fromkeys(r["block"] for r in mine), "osD^", strict=False):
        dots = [r for r in mine if r["block"] == name]
        x, y = (
            [r["flops"] / r["nbytes"] for r in dots],
            [r["flops_per_second"] / 1e9 for r in dots],
        )
        ax.plot(x, y, marker, label=name)
    ax.set(xlabel="FLOPs for each byte", ylabel="GFLOP/s")
    ax.set_title(f"{device}, {mine[0]['threads']} threads, {mine[0]['dtype']}")
    ax.legend()
    plots.show(fig, f"Four blocks on the measured roofline of {device}: decode left, prompts right")
    print(f"{len(mine)} rows from {device}, {mine[0]['date'][:10]}")
    dense = [r for r in mine if r["pass"] == "forward"]
    assert all(r["flops_per_second"] < 1.2 * top["flops"] for r in dense)

# %% [markdown]
# ## Look: a model from its blocks
#
# `cookbook bench block --model zamba2-1.2b` times each distinct block at its true shape, one at a
# time, and adds up what a whole pass should take. Where the whole fits memory it is timed too.

# %%
parts = results.committed("model_blocks")
for whole in (r for r in parts if r["part"] == "whole"):
    mine = [r for r in parts if r["pass"] == whole["pass"] and r is not whole]
    print(f"{whole['model']}, {whole['pass']}, {whole['device']}, {whole['dtype']}:", end=" ")
    print(f"{len(mine)} distinct blocks, {sum(r['uses'] for r in mine)} uses")
    print(f"  add up to {seconds(whole['predicted'])}", end="; ")
    if whole["outcome"] == "measured":
        print(f"the whole takes {seconds(whole['seconds']['median'])}")
        assert 0.6 < whole["predicted"] / whole["seconds"]["median"] < 1.4
    else:
        print(whole["outcome"])
    assert sum(r["uses"] for r in mine) == len(preset(whole["model"]).layout)
first = [r for r in parts if r["pass"] == "forward" and r["part"] != "whole"]
total = sum(r["uses"] * r["seconds"]["median"] for r in first)
table(
    [
        {
            "block": r["part"],
            "uses": r["uses"],
            "ms": round(1e3 * r["seconds"]["median"], 2),
            "share": f"{r['uses'] * r['seconds']['median'] / total:.1%}",
            "of roof": f"{r['roofline']:.0%}",
        }
        for r in sorted(first, key=lambda r: -r["uses"] * r["seconds"]["median"])[:8]
    ]
)

# %% [markdown]
# ## Exercises
#
# **1.** Five samples are 9, 10, 10, 11 and 30 ms. Why does the package refuse to give an interval
# at 95%? How many samples does it take at least?

# %% tags=["answer"]
for n in range(3, 9):
    print(f"{n} samples: the extremes enclose the median with probability {1 - 2 / 2**n:.1%}")
assert not interval([9.0, 10.0, 10.0, 11.0, 30.0]).sure and interval([1.0] * 6).sure

# %% [markdown]
# **2.** How many FLOPs a byte does one token of an MLP have in float32, and how many tokens must it
# read at once until arithmetic limits it on this machine?

# %% tags=["answer"]
mlp = sized("mlp", Sizes(d_model=1024))
share = {n: work(mlp, "forward", shape("forward", 1, n, 0), "fp32") for n in range(1, 1025)}
dense = next((n for n, w in share.items() if w.flops / w.nbytes > ROOF.ridge), None)
print(f"one token: {share[1].flops / share[1].nbytes:.2f} FLOPs a byte; from {dense} tokens on")
assert abs(share[1].flops / share[1].nbytes - 0.5) < 0.01  # a product and a sum for 4 bytes
