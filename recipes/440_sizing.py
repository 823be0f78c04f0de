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
# # Which width is fastest here?
#
# **Goal.** Choose the sizes of a model for the device that it runs on: predict what tiles, waves
# and alignment cost, measure whether that is so, and say when a measurement cannot tell.
# **Needs** a CPU and about thirty seconds.
# Builds on [chapter 410](410_block_benchmarks.py).
#
# A GPU computes a product of matrices in tiles, and deals the tiles out to its multiprocessors in
# waves. Tiles at the edge are computed whole, the last wave waits for its few tiles, and rows that
# do not begin at a multiple of 16 bytes take a slow path. So two widths that differ by a percent
# can differ by half in speed. Everything below that says *predicted* follows from shapes alone;
# everything *measured* is a row in `docs/data/gemms.jsonl`, or was timed by the cell above it.

# %%
import matplotlib.pyplot as plt
import torch

from cookbook_lib import plots, results
from cookbook_lib.benchmarks.gemm import fastest, operands, total
from cookbook_lib.benchmarks.timing import Stop, WallClock, compare
from cookbook_lib.calculators import presets
from cookbook_lib.calculators.gemms import SMS, Gemm
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.sizing import UNALIGNED, useful
from cookbook_lib.calculators.specs import Mamba2
from cookbook_lib.calculators.varied import own, varied, vary
from cookbook_lib.measuring import Ratio
from cookbook_lib.plots import table

plots.use()
zamba2 = presets.preset("zamba2-2.7b")
print(f"{zamba2.name} is {own(zamba2, 'd_model')} wide")

# %% [markdown]
# ## Predict: tiles, waves, alignment
#
# The products are those of the model's own rows: projections, the head, and what attention and the
# scan hold inside. Only the width of the stream changes. What a spec derives from it follows, as
# the inner width of Mamba-2 does; heads and the width of the MLP stay as the model states them.

# %%
widths = (2304, 2432, 2496, 2528, 2560, 2592, 2624, 2688, 2816)
found = varied(zamba2, "d_model", widths, Run(l=4096))


def predicted(uses, chip):
    """The useful share of the time of all of them, if arithmetic bounds it."""
    return sum(u.flops for u in uses) / sum(u.flops / useful(u.product, chip) for u in uses)


in_proj = {d: next(u.product for u in found[d] if "in_proj" in u.where) for d in widths}
chips = ("h100", "a100", "l40s")
table(
    [
        {
            "d_model": d,
            "in_proj": in_proj[d].n,
            "by 8": "yes" if in_proj[d].n % 8 == 0 else "no",
            **{chip: f"{predicted(found[d], chip):.1%}" for chip in chips},
        }
        for d in widths
    ]
)

# %% [markdown]
# Predicted, not measured. The column to look at is the third one. Every width here is a multiple
# of 32, most of 64, as the guides ask for. But the width of Mamba-2's `in_proj` is $z$, $x$, $B$,
# $C$ and one number for each head, and there is a head for every 32 channels of the stream: only a
# multiple of 256 gives heads in eights. A transformer of the same widths has no such trap.

# %%
steps = range(2304, 2817, 32)
lines = varied(zamba2, "d_model", steps, Run(l=4096))
fig, ax = plt.subplots()
for chip in chips:
    ax.plot(steps, [predicted(lines[d], chip) for d in steps], "o-", label=chip)
ax.set(xlabel="d_model", ylabel="useful share, predicted", ylim=(0, 1))
ax.legend()
plots.show(fig, "Predicted useful share over the width: it peaks where in_proj is a multiple of 8")
whole = [d for d in steps if vary(zamba2, "d_model", d) and in_proj[2560].n and d % 256 == 0]
assert all(predicted(lines[d], "h100") > predicted(lines[d + 32], "h100") for d in whole[:-1])

# %% [markdown]
# ## Measure: what has been run where
#
# `cookbook bench gemm --vary d_model --near 2560 --out rows.jsonl` times each shape that a width
# needs, once, and checks the result against float64; `make gpu` does the same on a GPU. A row says
# what its median is and how well it is known. The cell below takes every device that has rows for
# these widths. Sums are compared for each FLOP, since a wider model does more.

# %%
rows = [r for r in results.committed("gemms") if r["benchmark"] == "gemm"]
places = sorted({(r["device"], r["dtype"], r["m"]) for r in rows if r["layout"] == "nk"})


def measured(device, dtype, tokens):
    """The widths that have all their rows on a device, and what their products take together."""
    mine = [r for r in rows if (r["device"], r["dtype"]) == (device, dtype)]
    each = varied(zamba2, "d_model", widths, Run(l=tokens))
    totals = {d: total(uses, mine) for d, uses in each.items()}
    return {d: t for d, t in totals.items() if t.seconds}


sweeps = {place: totals for place in places if len(totals := measured(*place)) > 1}
for (device, dtype, tokens), totals in sweeps.items():
    best, near = fastest(totals)
    print(f"{device}, {dtype}, {tokens} tokens: {best} is the fastest, ", end="")
    print(f"not told apart from {', '.join(map(str, near))}" if near else "and no other comes near")
gpus = [device for device, _, _ in sweeps if "NVIDIA" in device or "AMD Instinct" in device]
print("GPUs with rows:", ", ".join(gpus) or "none yet; make gpu adds them")
assert sweeps

# %%
fig, ax = plt.subplots()
for (device, dtype, tokens), totals in sweeps.items():
    top = max(r["ceilings"]["flops"] for r in rows if (r["device"], r["dtype"]) == (device, dtype))
    d = list(totals)
    middle = [totals[x].rate / top for x in d]
    low = [m - totals[x].flops / totals[x].high / top for m, x in zip(middle, d, strict=True)]
    high = [totals[x].flops / totals[x].low / top - m for m, x in zip(middle, d, strict=True)]
    label = f"{device}, {dtype}, {tokens} tokens"
    ax.errorbar(d, middle, yerr=(low, high), fmt="o-", capsize=3, label=label)
ax.set(xlabel="d_model", ylabel="of a large product's FLOP/s", ylim=(0, 1.05))
ax.legend()
plots.show(fig, "Measured share of the device's own ceiling over d_model, with intervals")

# %% [markdown]
# The intervals are those of the medians, added up; they say nothing about what the machine did
# between one width and the next. Where curves are closer than they are from run to run, let the
# sides take turns, as in the next part.
#
# ## The case of 10,922 and 10,944
#
# A SwiGLU that is $8/3$ times as wide as its stream of 4,096 is 10,922 wide. The authors of
# [arXiv:2401.14489](https://arxiv.org/abs/2401.14489) wrote a script that looks for a better width
# nearby, and [stas00/ml-engineering](https://github.com/stas00/ml-engineering) (at `a4549bc6`)
# reports what it found on an H100. What do tiles and waves say to it?

# %%
reported = {10922: 272.73e12, 10944: 398.38e12}  # FLOP/s, as reported there
gain = reported[10944] / reported[10922]


def shapes(d_ff, tokens=4096, d_model=4096):
    """The script's product, which sums over d_ff; and the two of an MLP with these tokens."""
    return {
        "the script's": Gemm("bmm", 4, d_model, d_model, d_ff, ("d_model",), ("d_ff",)),
        "up": Gemm("up", 1, tokens, d_ff, d_model, ("d_ff",), ("d_model",)),
        "down": Gemm("down", 1, tokens, d_model, d_ff, ("d_model",), ("d_ff",)),
    }


cells = []
for name in shapes(1):
    bad, good = (shapes(d)[name] for d in (10922, 10944))
    tiles = good.efficiency(SMS["h100"]) / bad.efficiency(SMS["h100"])
    cells.append(
        {
            "product": name,
            "waves": f"{bad.tiling(SMS['h100']).waves} and {good.tiling(SMS['h100']).waves}",
            "gain by tiles": f"{tiles - 1:+.1%}",
            "10,922 by 8": "yes" if 10922 % 8 == 0 else "no",
        }
    )
assert shapes(10922)["the script's"].tiling(132) == shapes(10944)["the script's"].tiling(132)
assert round(gain - 1, 2) == 0.46 and abs(gain * UNALIGNED - 1) < 1e-9
print(f"reported: {gain - 1:+.0%} on an H100")
table(cells)

# %% [markdown]
# Tiles and waves predict next to nothing: they are the same for both widths in the script's
# product, and almost the same in an MLP's. What is left is alignment. A row of 10,922 numbers in
# 16 bits is no multiple of 16 bytes. Our calculators do not derive what that costs. They take it
# from this very case, so it would be no proof to hold them against it.
#
# ### What does a CPU do?
#
# Both widths take turns, on this machine, now. The ratio is the time of 10,922 over that of 10,944,
# for each FLOP and round by round, so what slows the machine down slows down both.

# %%
device_stop = Stop(seconds=2.5)
TOKENS = 128


def per_flop(name, dtype):
    """How much longer 10,922 takes than 10,944 for each FLOP."""
    runs = {}
    for d in (10922, 10944):
        p = shapes(d, TOKENS)[name]
        case = {"count": 1, "m": p.m, "n": p.n, "k": p.k, "layout": "nk", "dtype": dtype}
        x, w, out = operands(case, "cpu")
        runs[d] = lambda x=x[0], w=w[0], out=out[0]: torch.mm(x, w, out=out)
    took = compare(runs, WallClock(), device_stop)
    pairs = zip(took.timings[10922].samples, took.timings[10944].samples, strict=True)
    ratio = Ratio(rounds=[a / b * 10944 / 10922 for a, b in pairs], precision=0.02)
    return took.timings[10922], ratio


said = {"slower": "10,922 is slower", "faster": "10,922 is faster", "equal": "no difference"}
live = []
for dtype in ("bf16", "fp32"):
    for name in ("up", "down"):
        timing, ratio = per_flop(name, dtype)
        low, high, _ = ratio.interval
        rate = shapes(10922, TOKENS)[name].flops / timing.median
        live.append(
            {
                "product": f"{name}, {dtype}",
                "GFLOP/s": f"{rate / 1e9:,.0f}",
                "time ratio": f"{ratio.median:.3f}",
                "interval": f"{low:.3f} to {high:.3f}",
                "so": said.get(ratio.verdict, "cannot be told apart"),
            }
        )
table(live)

# %% [markdown]
# A CPU has no tiles of 128 and no multiprocessors, but its instructions also load whole lines of
# 64 bytes, and its libraries pack or copy what does not fit them. Whether that shows depends on the
# library, the dtype and the load of the machine; believe the last column only as far as the
# interval allows.
#
# ### And a GPU?
#
# Whatever rows there are for the two widths, in the three products:

# %%
both = [r for r in rows if {10922, 10944} & {r["n"], r["k"]} and r.get("seconds")]
table(
    [
        {
            "device": r["device"],
            "product": f"{r['count']} of {r['m']} x {r['k']} x {r['n']}",
            "dtype": r["dtype"],
            "TFLOP/s": f"{r['flops_per_second'] / 1e12:.1f}",
        }
        for r in both
    ]
    or [{"device": "none yet", "product": "make gpu measures them", "dtype": "", "TFLOP/s": ""}]
)

# %% [markdown]
# ## Exercises
#
# **1.** A Mamba-2 layer has an expansion of 2, heads of 64, a state of 128 and one group. For which
# widths between 2,304 and 2,816 is `in_proj` a multiple of 8, and what would heads of 128 change?


# %% tags=["answer"]
def good(headdim, by=8):
    wide = (Mamba2(d_model=d, headdim=headdim) for d in range(2304, 2817, 64))
    return [block.d_model for block in wide if block.d_in_proj % by == 0]


print("heads of 64: ", good(64))
print("heads of 128:", good(128))
assert good(64) == [2304, 2560, 2816] and good(128) == [2560]
for d in good(64):
    heads = 2 * d // 64
    assert (4 * d + 2 * 128 + heads) % 8 == 0 and heads % 8 == 0

# %% [markdown] tags=["answer"]
# All other parts are multiples of 8 already, so the number of heads has to be one. Half as many
# heads need twice the step.

# %% [markdown]
# **2.** GPT-2's tokenizer has 50,257 tokens. What do tiles, waves and alignment predict for the
# head of a model of width 2,560 and 4,096 tokens on an H100, if the vocabulary is padded to 50,264,
# to 50,304 or to 50,432? Which part of the gain is alignment?

# %% tags=["answer"]
head = {
    v: Gemm("head", 1, 4096, v, 2560, ("vocab",), ("d_model",))
    for v in (50257, 50264, 50304, 50432)
}
first = head[50257].flops / useful(head[50257], "h100")
for v, product in head.items():
    time = product.flops / useful(product, "h100")
    tiles = product.efficiency(SMS["h100"])
    print(f"{v:,}: tiles and waves {tiles:.1%} useful, predicted time {time / first:.3f}")
aligned = head[50264].flops / useful(head[50264], "h100") / first
assert abs(aligned / UNALIGNED - 1) < 0.01  # all of it comes with the first 7 rows
assert head[50264].tiling(132).waves == head[50304].tiling(132).waves

# %% [markdown] tags=["answer"]
# The first seven rows bring everything that is predicted; the rest is habit. Whether 50,264 is as
# good as 50,304 in truth is for a row of `make gpu` to say.

# %% [markdown]
# ## Find the bug
#
# [`swiglu-maf-bench.py`](https://github.com/stas00/ml-engineering) (at `168be203`) says that it
# looks for the width "that would give the highest TFLOPS for a matmul of
# `[b*s, h]×[h, 8/3*h]`". Below are its lines that make the operands, with its sizes. The clock, the
# warm-up and the count of FLOPs are right. What is it that is measured?

# %%
d_hidden, batch_size = 4096, 2**2


def benchmark_bmm(b, m, n, k):
    """The shapes of A, B and C, and the FLOPs that the script counts."""
    return (b, m, n), (b, n, k), (b, m, k), 2 * b * m * n * k


A, B, C, flops = benchmark_bmm(batch_size, m=d_hidden, n=10922, k=d_hidden)
print(f"A {A}, B {B}, C {C}: {flops / 1e12:.2f} TFLOP")

# %% tags=["answer"]
theirs, up = shapes(10922)["the script's"], shapes(10922, tokens=4 * 4096)["up"]
assert (theirs.count, theirs.m, theirs.k) == A and (theirs.count, theirs.k, theirs.n) == B
assert theirs.flops == flops == up.flops
print("its n is the axis that is summed: d_ff is the inner size, as in the down projection,")
print(f"and {theirs.count} weights are multiplied, one for each sequence, where a model has one")
for name, product in {"measured": theirs, "meant": up}.items():
    way = product.tiling(SMS["h100"])
    shape = f"{product.count} of {product.m} x {product.k} x {product.n}"
    print(f"{name:9}{shape:24} {way.tiles:5} tiles, {way.waves} waves, {way.efficiency:.1%} useful")

# %% [markdown] tags=["answer"]
# The FLOPs agree, so nothing looks wrong. But tiles are cut from the result, whose sizes here do
# not depend on the width that is searched for: this search can find alignment, and can never see a
# wave. For the up projection, which is what the text names, the answer may differ. The fair part:
# what it reports for 10,922 is real, and its advice, to search near 8/3 on the device itself, is
# the right one.
