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
# # Collectives, proved and measured
#
# **Goal.** Say what each collective does, derive algbw and busbw, prove that a benchmark measured
# what it prints, and read off a link's latency and rate.
# **Needs** a CPU and about forty seconds.
#
# A benchmark of communication can be wrong in ways that a table of numbers hides: the compiler has
# removed the collective, the clock stops too early, the size is that of all ranks. So here each
# number comes with three proofs: the collective is in the program, it moves so many numbers, and
# the result is right.

# %%
import inspect
from dataclasses import replace
from fractions import Fraction

import jax
import matplotlib.pyplot as plt
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P
from matplotlib.colors import ListedColormap

from cookbook_lib import plots
from cookbook_lib.calculators.chips import chip
from cookbook_lib.calculators.wires import Collective
from cookbook_lib.commands.output import nbytes, seconds
from cookbook_lib.communication import broken, jax_bench, torch_bench
from cookbook_lib.communication.collectives import COLLECTIVES, ROWS, wire
from cookbook_lib.communication.fit import ALGORITHMS, fit
from cookbook_lib.communication.fitting import links_report
from cookbook_lib.communication.jax_ops import compiled, given
from cookbook_lib.communication.jax_ranks import AXIS, joined
from cookbook_lib.communication.launch import launch
from cookbook_lib.communication.member import member
from cookbook_lib.communication.proof import moved
from cookbook_lib.results import committed

plots.use()

# %% [markdown]
# ## What each of them does
#
# Four ranks, a message of four parts. The colour of a cell says whose data it is; grey is the sum
# of all ranks. Left of each arrow is what the ranks put in, right of it what they have at the end.

# %%
N = 4
SUM = sum(2**r for r in range(N))  # each rank's cells hold a power of two, so a sum shows itself
COLOUR = {2**r: r for r in range(N)} | {SUM: N}
CMAP = ListedColormap([*plots.COLORS[:N], "#5b5f66"])


def picture(cells):
    """Rank by rank, cell by cell, whose data it is; nothing where nothing is defined."""
    found = np.full((N, N), np.nan)
    for rank, row in enumerate(cells):
        if row is not None:
            offset = rank if len(row) == 1 else 0
            found[rank, offset : offset + len(row)] = [COLOUR[int(x)] for x in row]
    return found


def start(rank):
    return np.full(N, 2.0**rank)


fig, axes = plt.subplots(4, 3, figsize=(5.8, 5.6))
fig.get_layout_engine().set(w_pad=0.15)
for ax, row in zip(axes.flat, ROWS, strict=True):
    before = [row.puts(r, N, start) for r in range(N)]
    if row.name in ("broadcast", "scatter"):
        before[1:] = [None] * (N - 1)  # what the others have does not matter
    if row.name == "send":
        before[1:] = [None] * (N - 1)
    after = [row.gets(r, N, start) for r in range(N)]
    both = np.hstack([picture(before), np.full((N, 2), np.nan), picture(after)])
    ax.pcolormesh(both[::-1], cmap=CMAP, vmin=0, vmax=N, edgecolors=plots.PAPER, linewidth=1)
    ax.annotate("", (5.8, 2), (4.2, 2), arrowprops={"arrowstyle": "->", "color": plots.INK})
    ax.set_title(row.name)
    ax.set_aspect("equal")
    ax.axis("off")
plots.show(fig, "Before and after each of twelve collectives, by whose data each rank holds")

# %% [markdown]
# ## How large is a message, and what is busbw?
#
# NCCL's tests print two bandwidths. **algbw** is the size over the time, $S / t$. **busbw** is
# algbw times a factor that makes numbers of different collectives and of different $n$ comparable:
# it is the rate that each rank's link must have carried, on a flat network, whatever the algorithm.
#
# The factor can be counted. Here is a ring all-reduce on numbers, with each part that a rank sends
# counted: first sums travel round, then the finished parts.


# %%
def ring_all_reduce(data):
    """Sum rows by a ring, in place; what each rank has sent, in messages."""
    n = len(data)
    parts = [np.array_split(row, n) for row in data]
    sent = [Fraction(0)] * n
    for step in range(2 * (n - 1)):
        moving = [(r, (r - step) % n, parts[r][(r - step) % n].copy()) for r in range(n)]
        for r, which, part in moving:  # all ranks send at once, each to the next
            sent[r] += Fraction(1, n)
            into = parts[(r + 1) % n]
            into[which] = into[which] + part if step < n - 1 else part
    return [np.concatenate(p) for p in parts], sent


rows = []
for n in (2, 3, 4, 8):
    data = np.random.default_rng(n).integers(0, 100, (n, 8 * n))
    results, sent = ring_all_reduce(data)
    assert all((result == data.sum(0)).all() for result in results)
    assert set(sent) == {Fraction(2 * (n - 1), n)}
    assert float(sent[0]) == COLLECTIVES["all_reduce"].bus(n)
    rows.append({"ranks": n, "each sends": f"{sent[0]} S", "busbw / algbw": float(sent[0])})
plots.table(rows)

# %% [markdown]
# The same count for all rows of the table. **S** is per rank: the whole tensor that goes in or
# comes out, whichever is larger. So all-gather's S is what each rank has at the *end*,
# reduce-scatter's what it has at the *beginning*. `total` is what all ranks together must send, by
# any algorithm.

# %%
for row in ROWS:
    for n in range(2, 65):
        assert row.total(n) / n <= row.bus(n) <= row.total(n)  # the busiest link, and all links
plots.table(
    {
        "collective": row.name,
        "busbw / algbw": f"{row.bus(4):g}",
        "total / S": f"{row.total(4):g}",
        "gloo runs": row.runs.get("gloo", ""),
        "JAX on a CPU runs": row.runs.get("cpu", ""),
    }
    for row in ROWS
)

# %% [markdown]
# What users ask about it, and what follows from the definition:
#
# - *Why is busbw above algbw when n > 2?*
#   ([nccl-tests #159](https://github.com/NVIDIA/nccl-tests/issues/159))
#   For all-reduce the factor is $2(n-1)/n$: each rank sends nearly two messages for one that is
#   reduced.
# - *Does the factor change with the algorithm?*
#   ([#274](https://github.com/NVIDIA/nccl-tests/issues/274))
#   No. It is the least that point-to-point messages on a flat network need. A tree may send
#   more over some links, and the tests cannot see
#   that.
# - *How can busbw exceed the link?*
#   ([#153](https://github.com/NVIDIA/nccl-tests/issues/153)) If the network adds up itself (NVLS,
#   SHARP), fewer bytes travel than the factor assumes. Then busbw compares, and measures no wire.
# - *Why is all-to-all's busbw twice the card's rate on two nodes?*
#   ([#130](https://github.com/NVIDIA/nccl-tests/issues/130)) With many GPUs in a node about half of
#   the message stays inside; busbw counts all of it.

# %% [markdown]
# ## Look at the program first
#
# JAX compiles a collective before it runs, so the text can be read. Four devices in this process:

# %%
ranks = joined(member(), 4)
mesh = ranks.__enter__()  # until the end of the chapter
x = given("all_reduce", mesh, 1024, "bf16")
program = compiled("all_reduce", mesh, x).as_text()
print("\n".join(line.strip()[:88] for line in program.splitlines() if " all-reduce(" in line))
(found,) = moved(program, 4)
assert (found.kind, found.dtype, found.numbers) == ("all_reduce", "f32", 1024)
found

# %% [markdown]
# The message is in bf16, and the program sends `f32`: on a CPU XLA widens what it sends, and puts
# twice as many bytes on the wire as the size says. And what does each of the others become?

# %%
b = {
    op: moved(compiled(op, mesh, given(op, mesh, 1024, "fp32")).as_text(), 4) for op in COLLECTIVES
}
assert {m.kind for m in b["broadcast"]} == {"all_reduce"}
plots.table(
    {
        "asked for": op,
        "in the program": ", ".join(sorted({m.kind for m in found})),
        "how many": len(found),
        "sent in all / S": f"{sum(m.total for m in found) / 1024:g}",
        "due by the table": f"{wire(op, 4, 'cpu'):g}",
    }
    for op, found in b.items()
)

# %%
for op, found in b.items():
    assert sum(m.total for m in found) == 1024 * wire(op, 4, "cpu")
print("every program sends what its row says")

# %% [markdown] tags=["bug"]
# Three benchmarks of [zcookbook](https://github.com/Zyphra/zcookbook) (`benchmarks/communication`
# at `ec06304`), written anew with the same mistakes. The first prints several terabits per second
# for a broadcast on a CPU. What does it measure?

# %% tags=["bug"]
print(inspect.getsource(broken.broadcast))

# %% tags=["answer"]
claim = broken.broadcast(mesh, 1024)
assert "holds no collective" in claim.complaints()[0] and not moved(claim.program, 4)
print("\n".join(claim.complaints()))

# %% [markdown] tags=["answer"]
# `jax.lax.broadcast` adds dimensions to an array. `x[0]` is the first number that the device has
# itself, so each device repeats its own number and none sends anything. A check of the result, or
# one look at the compiled program, shows it.

# %% [markdown] tags=["bug"]
# The second sends point to point between two devices. Which line does the clock wait for?

# %% tags=["bug"]
print(inspect.getsource(broken.pt2pt))

# %% tags=["answer"]
pair = type(mesh)(mesh.devices[:2], mesh.axis_names)
claim = broken.pt2pt(pair, 1024)
assert "the clock did not wait for the result of exchange" in claim.complaints()
print("\n".join(claim.complaints()))

# %% [markdown] tags=["answer"]
# `result` is what the warm-up returned. It is there already, so waiting for it takes no time, and
# the clock stops while the messages travel. The size counts both devices too. The two permutes
# themselves are right.

# %% [markdown] tags=["bug"]
# The third is an all-reduce. Two things are wrong; the checks find one, and after it is mended the
# other.

# %% tags=["bug"]
print(inspect.getsource(broken.all_reduce))

# %% tags=["answer"]
claim = broken.all_reduce(mesh, 1024)
print(claim.complaints()[0])
mended = replace(claim, nbytes=claim.nbytes // 4)
print("with the size of one rank:", mended.complaints()[0])
assert "0.25 times as many" in claim.complaints()[0]
assert len(mended.complaints()) == 1 and "wrong numbers" in mended.complaints()[0]

# %% [markdown] tags=["answer"]
# `x.nbytes` is that of the array over all devices, so the message and both bandwidths come out four
# times too large with four devices. And `pmean` divides: it is an all-reduce and one more pass over
# the memory.

# %% [markdown] tags=["bug"]
# One in PyTorch, from [EleutherAI/cookbook](https://github.com/EleutherAI/cookbook) at `827ee3b`
# with `--async-op`: the handle is dropped. Here the last rank comes a fifth of a second late. How
# long does the first rank measure?

# %% tags=["answer"]
first, *_ = launch(broken.dropped_handle, 2, {"count": 2**20, "late": 0.2})
print(f"measured on rank 0: {seconds(first['seconds'])}, with rank 1 late by {seconds(0.2)}")
print(first["complaint"])
assert first["complaint"] and first["seconds"] < 0.2

# %% [markdown] tags=["answer"]
# An all-reduce cannot end before the last rank has begun it, and this one seems to. Timed was how
# long it takes to *start* one. Our check compares the very buffer of the timed call, as the clock
# left it, with numbers that are exact in the dtype.

# %% [markdown]
# ## Measure
#
# `cookbook bench comm` runs a sweep. Each point is a median; the band is from the 10th to the 90th
# percentile of single calls, each as long as the slowest rank took. What looks like noise is two
# processes that share a CPU with everything else.
#
# ```bash
# cookbook bench comm --backend torch --op all_reduce --devices 2 --min-bytes 8 --max-bytes 64Mi
# cookbook bench comm --backend jax --op all --devices 4 --dtype bf16 --json --out rows.jsonl
# torchrun --nproc-per-node 8 -m cookbook_lib bench comm --op all_gather --device cuda
# srun -N 2 --ntasks-per-node 8 cookbook bench comm --op all_reduce --device cuda
# mpirun -n 16 cookbook bench comm --backend jax --op permute
# ```

# %%
sizes = [2**k for k in range(3, 22, 3)]
todo = [("all_reduce", size) for size in sizes]
plain = {"todo": todo, "dtype": "fp32", "device": "cpu", "seconds": 0.05}
measured = {
    "torch, gloo, 2 processes": launch(torch_bench.sweep, 2, plain)[0],
    "JAX, gloo, 2 processes": launch(jax_bench.sweep, 2, plain)[0],
    "JAX, 2 devices of a process": launch(jax_bench.sweep, 1, plain | {"devices": 2})[0],
}
fig, (left, right) = plt.subplots(1, 2, figsize=(5.8, 3.2))
for name, rows in measured.items():
    assert all(row["checked"] for row in rows) and len(rows) == len(sizes)
    times = [row["seconds"] for row in rows]
    (drawn,) = left.loglog(sizes, [t["median"] for t in times], marker="o")
    low, high = [t["p10"] for t in times], [t["p90"] for t in times]
    left.fill_between(sizes, low, high, alpha=0.2, color=drawn.get_color())
    right.loglog(sizes, [row["busbw"] for row in rows], marker="o", label=name)
left.set(xlabel="message (bytes)", ylabel="seconds", title="all-reduce, fp32")
right.set(xlabel="message (bytes)", ylabel="busbw (bytes/s)")
right.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 1.25))
plots.show(fig, "Small messages take a constant time; large ones approach a constant bandwidth")

# %% [markdown]
# The left panel is flat, then grows: a start-up time and a rate. That is the whole model:
#
# $$t = \alpha \cdot \text{steps} + \frac{\text{volume}}{\beta}$$
#
# A ring all-reduce has $2(n-1)$ steps and puts $2(n-1)/n$ messages on each link; a tree has fewer
# steps and more bytes. Formulas are those of Thakur, Rabenseifner and Gropp (2005).

# %%
plots.table(
    {
        "collective": op,
        "algorithm": name,
        "steps, n = 8": f"{formula(8)[0]:g}",
        "volume / S, n = 8": f"{formula(8)[1]:g}",
    }
    for op, table in ALGORITHMS.items()
    if len(table) > 1
    for name, formula in table.items()
)

# %% [markdown]
# ## A link whose rate is known
#
# Does such a fit tell the truth? `links.network` puts each rank into a network namespace of its
# own, with one interface, and `tc` limits the interface to a known rate; nodes can hang on a slower
# uplink. That needs root on Linux, so these rows were measured before and lie in `docs/data`.

# %%
rows = committed("links")
rate, uplink = rows[0]["rate"], next(row["uplink"] for row in rows if row["uplink"])
print(f"{rows[0]['device']}, torch {rows[0]['versions']['torch']}, {rows[0]['date'][:10]}")
report = links_report(rows)
plots.table(
    {
        "collective": found["op"],
        "tier": found["tier"],
        "fits best": found["algorithm"],
        "alpha": seconds(found["alpha"]),
        "beta / set": f"{found['beta'] / (rate if found['tier'] == 'near' else uplink):.2f}",
        "residual": f"{found['residual']:.1%}",
    }
    for found in report["collectives"]
)

# %%
near = next(f for f in report["collectives"] if (f["op"], f["tier"]) == ("all_reduce", "near"))
far = next(f for f in report["collectives"] if (f["op"], f["tier"]) == ("all_reduce", "far"))
assert abs(near["beta"] / rate - 1) < 0.1 and abs(far["beta"] / uplink - 1) < 0.1
fig, (left, right) = plt.subplots(1, 2, figsize=(5.8, 3.2), width_ratios=(3, 2))
for i, (tier, nodes) in enumerate((("near", 1), ("far", 2))):
    group = [r for r in rows if r["op"] == "all_reduce" and r["nodes"] == nodes]
    fitted = fit(group)
    for n, marker in ((2, "o"), (4, "s")):
        some = [r for r in group if r["ranks"] == n]
        terms = ALGORITHMS["all_reduce"]["ring"](n)
        sizes = [r["nbytes"] for r in some]
        label = f"{tier}, {n} ranks"
        left.loglog(
            sizes,
            [r["seconds"]["median"] for r in some],
            marker,
            color=plots.COLORS[i],
            label=label,
        )
        grid = np.geomspace(min(sizes), max(sizes))
        left.loglog(grid, [fitted.seconds(*terms, s) for s in grid], color=plots.COLORS[i], lw=0.8)
        off = [r["seconds"]["median"] / fitted.seconds(*terms, r["nbytes"]) - 1 for r in some]
        right.semilogx(sizes, np.array(off) * 100, marker, color=plots.COLORS[i])
left.set(xlabel="message (bytes)", ylabel="seconds")
left.legend(fontsize=7)
right.axhline(0, lw=0.8, color=plots.INK)
right.set(xlabel="message (bytes)", ylabel="measured beyond the fit (%)", ylim=(-30, 30))
plots.show(fig, "Lines of alpha and beta through all-reduce inside a node and between two nodes")

# %% [markdown]
# The fit of all-reduce finds the rate that `tc` has set to within a tenth, in both tiers. What is
# missing are mostly headers: a frame of 1514 bytes carries 1448 of TCP's. Small messages of four
# processes on two cores lie far above the right panel: they wait for the CPU, not for the wire, and
# Huber's weights keep them from pulling the lines. Where the residual is
# large, no formula of the table is what the library does.
#
# The interfaces also count. What do gloo's ranks send, in messages, beyond what the table says is
# needed?

# %%
wires = committed("wires")
counted = []
for small, large in zip(wires[::2], wires[1::2], strict=True):
    assert small["op"] == large["op"] and large["nbytes"] == 2 * small["nbytes"]
    grown = (np.array(large["sent"]) - np.array(small["sent"])) / small["nbytes"]
    due = wire(small["op"], 4, "gloo")
    counted.append(
        {
            "collective": small["op"],
            "each rank sends": ", ".join(f"{max(x, 0):.2f}" for x in grown),
            "in all": f"{grown.sum():.2f}",
            "due": f"{due:g}",
            "more": f"{grown.sum() / due - 1:.0%}",
        }
    )
    least = {"reduce": 1 + 1 / 4}.get(small["op"], 1)
    assert 0.9 * least < grown.sum() / due < 1.2 * least, small["op"]
plots.table(counted)

# %% [markdown]
# Headers hardly show: the interface hands on pieces of up to 64 KiB and counts one header each.
# `reduce` sends a quarter more: gloo adds up parts on all ranks and then sends those to the root.
# `reduce_scatter` sends two messages for each one that is needed, because in this version of
# PyTorch gloo runs an all-reduce instead; its busbw is half of what the wires carry. `broadcast` is
# a tree: the root sends twice, a second rank once, two not at all.

# %% [markdown]
# ## Into the plan
#
# `cookbook links` writes the fit, and `cookbook train-time --links` takes it in place of the rates
# of the data sheet: both tiers' $\beta$, and their $\alpha$ for each step.
#
# ```bash
# cookbook bench comm --op all_reduce,all_gather --device cuda --max-bytes 1Gi --out rows.jsonl
# cookbook links rows.jsonl --out links.json
# cookbook train-time zamba2-7b --gpus 64 --links links.json
# ```
#
# What does a step's latency do? The gradients of a small tensor over eight GPUs of one node, with a
# delay of ten microseconds in each step, which is an assumption here:

# %%
h100 = chip("h100")
slow = replace(h100, link_delay=10e-6)
rows = []
for size in (2**12, 2**18, 2**24, 2**30):
    one = Collective("dp", "gradients", "all-reduce", size, 1, 8, 1)
    bare, real = one.seconds(h100), one.seconds(slow)
    assert abs(real - bare - 14 * 10e-6) < 1e-12
    rows.append({"message": nbytes(size), "rate alone": seconds(bare), "with delay": seconds(real)})
plots.table(rows)

# %% [markdown]
# Below a megabyte the message costs its steps, whatever its size: so small tensors are fused into
# buckets.
#
# ## Beside it: nccl-tests and OSU
#
# Ours measures what a framework gets. Two programs measure the layer below; if they are fast and
# the framework is not, the framework is the place to look.
#
# ```bash
# git clone https://github.com/NVIDIA/nccl-tests && make -C nccl-tests MPI=1
# ./nccl-tests/build/all_reduce_perf -b 8 -e 1G -f 2 -g 8            # one node
# mpirun -np 16 -N 8 ./nccl-tests/build/all_reduce_perf -b 8 -e 1G -f 2 -g 1   # two nodes
# mpirun -np 2 osu_bw -m 8:67108864       # point to point, one way
# mpirun -np 2 osu_bibw                   # both ways at once
# mpirun -np 16 osu_allreduce -m 8:67108864 -f
# ```
#
# | flag | nccl-tests | OSU |
# |---|---|---|
# | sizes | `-b` from, `-e` to, `-f` factor | `-m` from:to |
# | who | `-g` GPUs of each process, `-t` threads | one process a rank; `-d cuda`: GPU memory |
# | how often | `-n` calls timed together, `-w` warm-up | `-i` calls, `-x` warm-up |
# | checks | `-c 1`, the column `#wrong` must be 0 | `-c` |
# | numbers | time in µs, algbw, busbw in GB/s | latency in µs; `-f` adds minimum, maximum |
#
# OSU prints no busbw: its size is that of the buffer of each rank *before* the collective, so its
# all-gather of 1 MiB is NCCL's of $n$ MiB. NCCL's tests time many calls together; ours times each
# after a barrier, so ours are longer for small messages.

# %% [markdown]
# ## Exercises
#
# **1.** Eight GPUs in a node, and an all-gather of 1 GiB (the result on each) takes 3 ms. What are
# algbw and busbw, and which of them do you compare with the data sheet's link?

# %% tags=["answer"]
algbw = 2**30 / 3e-3
busbw = algbw * COLLECTIVES["all_gather"].bus(8)
print(
    f"algbw {algbw / 1e9:.0f} GB/s, busbw {busbw / 1e9:.0f} GB/s of {chip('h100').link / 1e9:.0f}"
)
assert busbw == algbw * 7 / 8 and busbw < chip("h100").link

# %% [markdown] tags=["answer"]
# busbw: each GPU has an eighth already, so only seven eighths came over its link.

# %% [markdown]
# **2.** From which message size on does a ring beat recursive doubling for an all-reduce of 8
# ranks, if α is 10 µs and β is 100 GB/s?

# %% tags=["answer"]
alpha, beta = 10e-6, 100e9
ring, doubling = (ALGORITHMS["all_reduce"][name](8) for name in ("ring", "recursive doubling"))
size = alpha * (ring[0] - doubling[0]) * beta / (doubling[1] - ring[1])
times = [alpha * s + v * size / beta for s, v in (ring, doubling)]
assert abs(times[0] - times[1]) < 1e-12
print(f"from {nbytes(size)} on; there both take {seconds(times[0])}")

# %% [markdown]
# **3.** A program in JAX should gather 64 numbers on each of 4 devices. What does the compiled text
# hold if every device only asks for its own part again?


# %% tags=["answer"]
def pointless(part):
    """Gather all parts, then keep one's own."""
    everything = lax.all_gather(part, AXIS, axis=0, tiled=True)
    return lax.dynamic_slice_in_dim(everything, lax.axis_index(AXIS), 1, axis=0)


x = given("permute", mesh, 64, "fp32")
wrapped = jax.shard_map(pointless, mesh=mesh, in_specs=P(AXIS), out_specs=P(AXIS), check_vma=False)
text = jax.jit(wrapped).lower(x).compile().as_text()
kept = [m.kind for m in moved(text, 4)]
print(kept or "no collective: the compiler has seen through it")
assert len(kept) <= 1, "more than was asked for"

# %% [markdown] tags=["answer"]
# Whether the compiler keeps it depends on its version, and that is the point: read the program that
# is timed.

# %%
_ = ranks.__exit__(None, None, None)
print("left the mesh of", mesh.size, "devices")
