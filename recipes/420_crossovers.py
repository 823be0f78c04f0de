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
# # From which length on does Mamba win?
#
# **Goal.** Say where attention and the layers that replace it cross, in FLOPs, in bytes and in
# seconds, for a prompt, for training and for one more token; and why the three answers differ.
# **Needs** a CPU and about half a minute.
#
# "Attention is quadratic, Mamba is linear" says that there is a crossing. It does not say where. At
# lengths that most models are trained on, the projections of both outweigh what they do between
# tokens, and what decides is how well each runs on the machine.
#
# Four layers of the same width take part: attention, Mamba-1, Mamba-2 and gated DeltaNet.

# %%
import matplotlib.pyplot as plt
import torch

from cookbook_lib import plots, results
from cookbook_lib.benchmarks.crossings import crossing
from cookbook_lib.benchmarks.named import Sizes, sized
from cookbook_lib.benchmarks.passes import inputs, shape, timed, work
from cookbook_lib.benchmarks.sides import ours
from cookbook_lib.benchmarks.timing import Stop, compare
from cookbook_lib.measuring import judged
from cookbook_lib.plots import table

plots.use()
NAMES = ("attention", "mamba1", "mamba2", "gated-deltanet")
WIDTH = 512
layers = {name: sized(name, Sizes(d_model=WIDTH)) for name in NAMES}
table(
    [
        {
            "layer": name,
            "parameters": spec.params(),
            "FLOPs a token, 1k": spec.flops(l=1024, attention="causal") // 1024,
            "16k": spec.flops(l=16384, attention="causal") // 16384,
            "state after 16k, KiB": spec.state_bytes(s=16384) // 1024,
        }
        for name, spec in layers.items()
    ]
)

# %% [markdown]
# The layers are of one width, not of one size: a Mamba layer stands for attention *and* the MLP
# behind it, so it is larger. Multiply attention's FLOPs by what an MLP adds and the crossing comes
# earlier; the exercise does that.
#
# ## Run: FLOPs and bytes
#
# Both come from the specs alone. Attention counts the pairs that the causal mask keeps.


# %%
def cost(name, kind, n, what):
    run = shape(kind, 1, n, n)
    return getattr(work(layers[name], kind, run, "bf16"), what)


LENGTHS = [2**i for i in range(7, 18)]
counted = {
    (what, kind, name): {n: cost(name, kind, n, what) for n in LENGTHS}
    for what in ("flops", "nbytes")
    for kind in ("forward", "decode")
    for name in NAMES
}


def said(at):
    return "not here" if at is None else "always" if at == 0 else f"{at:,.0f}"


found = {
    (what, kind, name): crossing(counted[what, kind, "attention"], counted[what, kind, name])
    for what, kind, name in counted
    if name != "attention"
}
table(
    [
        {
            "below attention from": f"{kind}, {'FLOPs' if what == 'flops' else 'bytes'}",
            **{name: said(found[what, kind, name]) for name in NAMES[1:]},
        }
        for what, kind in (("flops", "forward"), ("flops", "decode"), ("nbytes", "decode"))
    ]
)

# %% [markdown]
# **Look.** For the FLOPs of a prompt the crossing can be done by hand. Attention's pairs cost
# $4 d$ FLOPs each, and $L / 2$ keys are seen on average, so it pays $2 d L$ more for a token than
# its projections. Set that equal to what the other layer has more of.

# %%
for name in NAMES[1:]:
    base = layers["attention"].flops(l=1)  # projections and one pair
    more = layers[name].flops(l=2**17) / 2**17 - base
    by_hand = more / (2 * WIDTH)
    print(f"{name:15} {by_hand:7,.0f} tokens by hand, {said(found['flops', 'forward', name])}")
    assert abs(by_hand / found["flops", "forward", name] - 1) < 0.05

# %% [markdown]
# ## Run: seconds, a few points now
#
# The sides take turns, so that what slows the machine slows all of them; see
# [how to measure](410_block_benchmarks.py). The interval says how well each ratio is known.

# %%
torch.manual_seed(0)
STOP = Stop(seconds=2.0)
live = {}
for kind, n in (("forward", 128), ("forward", 2048), ("decode", 256), ("decode", 32768)):
    run = shape(kind, 1, n, n)
    sides = {
        name: timed(ours(spec), spec, kind, run, "fp32", inputs(spec, run, "fp32", "cpu"))
        for name, spec in layers.items()
    }
    live[kind, n] = compare(sides, stop=STOP)

rows = []
for (kind, n), taken in live.items():
    row = {
        "pass": kind,
        "tokens": n,
        "attention": f"{1e3 * taken.timings['attention'].median:.2f} ms",
    }
    for name in NAMES[1:]:
        ratio = taken.ratio(name, "attention")
        low, high, _ = ratio.interval
        row[f"{name} ÷ attention"] = f"{ratio.median:.2f} ({low:.2f} to {high:.2f})"
    rows.append(row)
table(rows)

# %%
for name in NAMES[1:]:
    short, long = (live["decode", n].ratio(name, "attention") for n in (256, 32768))
    claim = judged(long.median < min(1, short.median), short, long)
    print(f"{name} gains on attention with the context, and is faster in the end: {claim}")
    assert claim != "fails"

# %% [markdown]
# ## Look: the whole range, from measured data
#
# Longer sequences take minutes, so they come from the repository: each row was written by
# `cookbook bench block NAME --d-model 512 --tokens … --context … --out FILE`, with the device, the
# versions and the date in it. `--device cuda` adds the rows of a GPU, and they appear here.

# %%
committed = [r for r in results.committed("crossovers") if r["outcome"] == "measured"]


def place(r):
    return r["device"], r["threads"], r["dtype"]


places = sorted({place(r) for r in committed})
for device, threads, dtype in places:
    mine = [r for r in committed if place(r) == (device, threads, dtype)]
    print(f"{len(mine)} rows on {device}, {threads} threads, {dtype}, {mine[0]['date'][:10]}")


def curve(where, kind, name):
    """Tokens, or tokens held before a step -> median seconds."""
    axis = "context" if kind == "decode" else "tokens"
    rows = [r for r in committed if place(r) == where and (r["pass"], r["block"]) == (kind, name)]
    return {r[axis]: r["seconds"]["median"] for r in rows if not r["seconds"]["noisy"]}


def both(where, kind, name):
    """The two curves at the lengths that both have."""
    one, other = curve(where, kind, "attention"), curve(where, kind, name)
    shared = sorted(set(one) & set(other))
    return {x: one[x] for x in shared}, {x: other[x] for x in shared}


# %%
def show(where, kind, xlabel):
    fig, ax = plt.subplots()
    for name, marker in zip(NAMES, "osD^", strict=True):
        points = sorted(curve(where, kind, name).items())
        ax.plot(*zip(*points, strict=True), marker=marker, label=name)
    ax.set_xscale("log", base=2)
    ax.set(xlabel=xlabel, ylabel="milliseconds", yscale="log")
    ticks = sorted(curve(where, kind, "attention"))
    ax.set_xticks(ticks, [f"{n // 1024}k" if n >= 1024 else str(n) for n in ticks])
    ax.yaxis.set_major_formatter(lambda y, _: f"{1e3 * y:g}")
    ax.legend()
    device, threads, dtype = where
    ax.set_title(f"One layer, {kind}, width {WIDTH}, {dtype}\n{device}, {threads} threads")
    plots.show(fig, f"Measured seconds of a {kind} pass of four layers against length on {device}")


for where in places:
    show(where, "forward", "tokens of the prompt")

# %%
for where in places:
    show(where, "training", "tokens of the sequence")

# %%
for where in places:
    show(where, "decode", "tokens held before the step")

# %% [markdown]
# A Mamba state is as large after 256 tokens as after 65,536, so its line is flat. Attention reads
# all keys and values for each new token.

# %%
rows = []
for where in places:
    for kind in ("forward", "training", "decode"):
        row = {"device": where[0], "pass": kind}
        for name in NAMES[1:]:
            row[f"{name} from"] = said(crossing(*both(where, kind, name)))
        rows.append(row)
table(rows)

# %%
for where in places:
    for name in NAMES[1:]:
        at = crossing(*both(where, "decode", name))
        assert at is not None and at < 65536
        flat = curve(where, "decode", name)
        assert max(flat.values()) < 2 * min(flat.values())
    for kind in ("forward", "training"):
        one, other = both(where, kind, "mamba2")
        first, last = min(one), max(one)
        assert other[last] / one[last] < other[first] / one[first]
        assert one[last] / one[first] > last / first, "attention grows faster than the length"

# %% [markdown]
# In seconds a layer that needs fewer FLOPs may still be slower: what counts is also how many FLOPs
# a second it reaches. This is the committed sweep at its longest common length.

# %%
rows = []
for where in places:
    for name in NAMES:
        mine = [r for r in committed if place(r) == where and r["block"] == name]
        last = max((r for r in mine if r["pass"] == "forward"), key=lambda r: r["tokens"])
        rows.append(
            {
                "layer": name,
                "tokens": last["tokens"],
                "GFLOP": round(last["flops"] / 1e9),
                "GFLOP/s": round(last["flops_per_second"] / 1e9),
                "of the roofline": f"{last['roofline']:.0%}",
                "peak MiB": round(last["peak_bytes"] / 2**20),
            }
        )
table(rows)

# %% [markdown]
# ## Exercises
#
# **1.** A Mamba-2 layer stands for attention and the MLP behind it. Give attention an MLP of four
# times the width, and compare the FLOPs of the pair with two Mamba-2 layers, which have fewer
# parameters. Where do they cross?

# %% tags=["answer"]
mlp = sized("mlp", Sizes(d_model=WIDTH, d_ff=4 * WIDTH))
pair = {n: layers["attention"].flops(l=n, attention="causal") + mlp.flops(l=n) for n in LENGTHS}
two = {n: 2 * layers["mamba2"].flops(l=n) for n in LENGTHS}
size = layers["attention"].params() + mlp.params()
print(f"parameters: {size:,} and {2 * layers['mamba2'].params():,}")
print(
    f"attention and MLP cost more than two Mamba-2 layers from {said(crossing(pair, two))} tokens"
)
assert crossing(pair, two) < found["flops", "forward", "mamba2"]

# %% [markdown]
# **2.** Attention with fewer key heads keeps a smaller cache. With one key head for eight query
# heads, from which context on does Mamba-2 read fewer bytes for a token?

# %% tags=["answer"]
narrow = layers["attention"].but(n_kv_heads=1)
reads = {n: work(narrow, "decode", shape("decode", 1, 1, n), "bf16").nbytes for n in LENGTHS}
at = crossing(reads, counted["nbytes", "decode", "mamba2"])
full = found["nbytes", "decode", "mamba2"]
print(f"from {said(at)} tokens; with all its key heads attention reads more from {said(full)}")
assert at > 4 * full
