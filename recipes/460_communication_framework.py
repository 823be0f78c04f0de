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
# # Which layer is slow?
#
# **Goal.** Lay a microbenchmark and a framework over each other and say what each layer adds; know
# what buckets, compilers, number formats and overlap change, which no microbenchmark shows.
# **Needs** a CPU and about a minute; two cores are enough.
# Builds on [chapter 450](450_communication_micro.py).
#
# `nccl-tests` and the OSU benchmarks time one collective and nothing else. Training runs the same
# collective through a framework, for a hundred tensors, beside compute. When training is slower
# than the benchmark promised, the question is: in which layer?
#
# Two ranks on two cores share everything, so nothing here says what a cluster does. What carries
# over is how to measure it, and what runs: messages, bytes, rounding. These are asserted; seconds
# are shown.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from cookbook_lib import plots
from cookbook_lib.benchmarks import layers as layer_bench
from cookbook_lib.benchmarks import parallel_steps as steps
from cookbook_lib.benchmarks.buckets import gradient_sizes
from cookbook_lib.calculators.collectives import collectives
from cookbook_lib.calculators.parallel import Parallel
from cookbook_lib.calculators.presets import preset
from cookbook_lib.commands.output import nbytes as size
from cookbook_lib.commands.output import seconds as time
from cookbook_lib.communication import compiled, fusion, jax_bench, overlap_torch, torch_bench
from cookbook_lib.communication.fit import fit
from cookbook_lib.communication.launch import launch
from cookbook_lib.communication.layers import LITTLE, SLOW, over, slowest_of, walk
from cookbook_lib.communication.links import missing
from cookbook_lib.communication.micro import taken
from cookbook_lib.communication.nccl_tests import nccl_tests
from cookbook_lib.communication.osu import osu
from cookbook_lib.communication.overlap import measured as overlapped
from cookbook_lib.communication.plain_mpi import plain_mpi
from cookbook_lib.communication.rounding import added_in_bf16, bf16_sums
from cookbook_lib.plots import table

plots.use()
RANKS = 2

# %% [markdown]
# ## Run: read what others measured
#
# Both tools print tables, in units of their own: microseconds, GB/s of nccl-tests, MB/s of OSU,
# all in powers of ten. The parsers give the same rows as `cookbook bench comm`, in SI units. Here
# are two published tables: an NVL72 rack
# ([coreweave/nccl-tests#43](https://github.com/coreweave/nccl-tests/pull/43)) and two A100 with
# four NVLinks ([EESSI/software-layer#716](https://github.com/EESSI/software-layer/pull/716)).

# %%
NVL72 = """\
# Rank 71 Group 0 Pid 14840 on slurm-gb200-207-171 device 3 [0x01] NVIDIA Graphics Device
# size count type redop root time algbw busbw #wrong time algbw busbw #wrong
 536870912 134217728 float sum -1 1806.7 297.16 586.06 0 1835.9 292.43 576.74 0
 8589934592 2147483648 float sum -1 20299 423.16 834.57 0 20006 429.37 846.82 0
"""
NVLINK = """\
# OSU MPI-CUDA Bandwidth Test v7.2
# Size      Bandwidth (MB/s)
1024                  299.62
33554432            93130.52
"""
with tempfile.TemporaryDirectory() as name:
    (one := Path(name, "nccl.txt")).write_text(NVL72)
    (other := Path(name, "osu.txt")).write_text(NVLINK)
    rows = [*nccl_tests(one, op="all_reduce")[::2], *osu(other)]
    one.write_text(NVL72.replace("586.06", "297.16"))  # a bus bandwidth that forgot its factor
    try:
        nccl_tests(one, op="all_reduce")
    except ValueError as error:
        refused = str(error).replace(f"{name}/", "")
print(refused)
assert "busbw is 297.16, expected 586.1 GB/s" in refused
table(
    [
        {
            "by": row["backend"],
            "op": row["op"],
            "ranks": row["ranks"],
            "size": size(row["nbytes"]),
            "seconds": time(taken(row)),
            "busbw, GB/s": f"{row['busbw'] / 1e9:.1f}",
        }
        for row in rows
    ]
)

# %% [markdown]
# A row is held against itself before it is believed: bandwidth against size over time, bus
# bandwidth against the factor of the collective, the printed mean against the rows. A table of
# processes that were each alone (a build without `MPI=1`, the usual reason for a bus bandwidth of
# 0) is refused too.
#
# ## Look: micro against framework
#
# The same all-reduce on this machine, three times: plain MPI on numpy arrays, `torch.distributed`
# with gloo, and a compiled JAX program in two processes. Each call is timed after a barrier, as
# long as its slowest rank takes, and each result is checked.

# %%
sizes = [8 * 8**k for k in range(7)]
mpi = plain_mpi("all_reduce", sizes, RANKS, seconds=0.05)
todo = {"todo": [("all_reduce", n) for n in sizes], "dtype": "fp32", "device": "cpu"}
gloo = launch(torch_bench.sweep, RANKS, todo | {"seconds": 0.1})[0]
jax = launch(jax_bench.sweep, RANKS, todo | {"seconds": 0.1})[0]
curves = {"plain MPI": mpi, "torch, gloo": gloo, "JAX, gloo": jax}
assert all(row["checked"] and row["nbytes"] in sizes for rows in curves.values() for row in rows)

fig, ax = plt.subplots()
for label, rows in curves.items():
    ax.plot([r["nbytes"] for r in rows], [1e6 * taken(r) for r in rows], "o-", label=label)
ax.set(xscale="log", yscale="log", xlabel="message (bytes)", ylabel="time of an all-reduce (µs)")
ax.set_xticks(sizes[::2], [size(n).replace(".00", "") for n in sizes[::2]])
ax.minorticks_off()
ax.legend()
plots.show(fig, "Time of an all-reduce against its size: the frameworks' curves start above MPI's")

# %%
overheads = {n: {} for n in sizes}
for rows in (gloo, jax):
    for row in over(mpi, rows):
        overheads[row["nbytes"]] |= {"MPI": time(row["below"])}
        by = row["backend"].split()[0]
        overheads[row["nbytes"]] |= {f"{by} adds": time(row["overhead"])}
        overheads[row["nbytes"]] |= {f"{by} / MPI": f"{row['ratio']:.1f}"}
ratios = [taken(row) / taken(below) for row, below in zip(gloo, mpi, strict=True)]
falls = ratios[0] > max(1, ratios[-1])  # a call costs something, and then the bytes do
print("the ratio falls with the size" if falls else "this run was too noisy to show it")
table([{"size": size(n)} | cells for n, cells in overheads.items()])

# %% [markdown]
# The overhead of a small message is the price of a call: through Python, a queue, a thread and a
# socket, where MPI writes to memory that the ranks share. The ratio falls with the size, and what
# remains is how often the bytes are copied. MPI is a layer too, not a bound: on another machine
# its algorithm may be the slower one.
#
# ## Which layer is slow?
#
# Now upwards, with the gradients of one Mamba-2 layer. The least is what the memory needs to copy
# the bytes that the busiest link would carry. Each layer is compared with the one that it stands
# on, by a rule with two limits: how many times its seconds are *little*, and from where it is
# *slow*; *noisy* says that the measured intervals allow another word. `cookbook bench layers`
# prints this for any model; `--micro FILE` takes nccl-tests or OSU as the layer below, `--link` a
# link's rate.

# %%
gradients = gradient_sizes("mamba2-130m", 1)
found = walk(layer_bench.measured(gradients, RANKS, None, None, 5, 0.3, 60.0))
print(f"{len(gradients)} gradients, {size(4 * sum(gradients))}")
print(f"the rule: little up to {LITTLE} times, slow above {SLOW:g} times")
print(f"the most is added by: {slowest_of(found)}")
assert [row["layer"] for row in found[:2]] == ["hardware", "micro"]
assert all(row["ratio"] > 0 for row in found[1:])
table(
    [
        {
            "layer": row["layer"],
            "what": row["what"],
            "seconds": time(row["seconds"]),
            "times": f"{row['ratio']:.2f}" if "ratio" in row else "",
            "of": row.get("below", ""),
            "verdict": row.get("verdict", ""),
        }
        for row in found
    ]
)

# %% [markdown]
# ## Many small tensors, or one bucket
#
# A message costs $t = 2\alpha + S / \beta$ between two ranks. A hundred small ones pay the
# $\alpha$ a hundred times. The line fitted to single messages predicts what one bucket saves; then
# it is measured, and the profiler's trace counts the messages.

# %%
tensors, each = 100, 1000
task = {"sizes": [each] * tensors, "caps": [2**16, 2**30], "repeats": 7}
ways = launch(fusion.bucket_sweep, RANKS, task)[0]
took = {row["how"]: row["seconds"]["median"] for row in ways}
line = fit(gloo)  # alpha and beta; a ring of two takes two steps, and sends the message once
predicted = tensors * line.seconds(2, 1, 4 * each) / line.seconds(2, 1, 4 * each * tensors)
ratio = took["one by one"] / took[f"buckets of {2**30}"]
print(f"one bucket is {ratio:.1f} times as fast; the fitted line says {predicted:.1f}")
assert ratio > 3
assert [len(row["messages"]) for row in ways[:4]] == [tensors, tensors, 6, 1]
table(
    [
        {
            "summed": row["how"].replace(f"{2**16}", "64 KiB").replace(f"{2**30}", "1 GiB"),
            "messages": len(row["messages"]),
            "bytes": sum(row["messages"]),
            "median": time(row["seconds"]["median"]),
        }
        for row in ways
    ]
)

# %% [markdown]
# The last row is only filling and emptying the bucket. It is the price of fusion, and for large
# tensors it can be more than the latency saved: the table of layers above has both, *tensors* and
# *buckets*, for the gradients of a Mamba layer, most of which lie in two matrices. DDP therefore
# lets gradients *be* views of its buckets. Its rule: fill from the last parameter to the first,
# close a bucket when it has reached `bucket_cap_mb`. A hook sees which buckets it makes:

# %%
caps = [0.5, 4.0, 25.0]
ddp = launch(fusion.ddp_step, RANKS, {"sizes": gradients, "caps": caps, "repeats": 3})[0]
nbytes = [4 * n for n in gradients]
rows = []
for row in ddp:
    ours = [sum(nbytes[i] for i in b) for b in fusion.packed(nbytes, int(row["cap"] * 2**20))]
    assert row["buckets"] == ours
    rows.append(
        {
            "bucket_cap_mb": row["cap"],
            "buckets": len(row["buckets"]),
            "largest": size(max(row["buckets"])),
            "our rule": "the same",
            "adds to the backward pass": time(row["adds"]["median"]),
        }
    )
table(rows)

# %% [markdown]
# A bucket can be far larger than its cap: one matrix is never cut. With a larger cap summing
# starts later.
#
# ## What a compiler combines
#
# The same many sums, written one by one, given to `torch.compile` and to `jax.jit`. How many
# messages remain?

# %%
task = {"tensors": 30, "count": 1000, "repeats": 7}
rows = [("torch", row) for row in launch(compiled.in_torch, RANKS, task)[0]]
rows += [("JAX", row) for row in launch(compiled.in_jax, RANKS, task)[0]]
messages = {row["how"]: len(row["messages"]) for _, row in rows}
assert messages == {"eager": 30, "compiled": 30, "a program each": 30, "one program": 1}
print("as a CUDA graph:", compiled.why_no_graph() or "possible here")
table(
    [
        {
            "by": by,
            "how": row["how"],
            "messages": len(row["messages"]),
            "numbers in each": row["messages"][0] // 4,
            "median": time(row["seconds"]["median"]),
        }
        for by, row in rows
    ]
)

# %% [markdown]
# XLA combines what it finds in one program; `torch.compile` leaves thirty messages, traced here
# without making kernels (`backend="aot_eager"`). So in torch buckets are the framework's work, or
# yours, and in JAX the compiler's. On GPUs, where a launch is the cost, a CUDA graph keeps the
# messages and removes the launches: `compiled.in_a_graph` captures NCCL's sums; it needs a GPU and
# is not measured here.
#
# ## What a sum in bf16 is
#
# A sum of bf16 gradients sends half the bytes. Where is it rounded? Three answers are possible:
# after each addition, once at the end, or the message is converted. The inputs are known, so the
# answer can be computed.

# %%
sums = [launch(bf16_sums, n, {"count": 20_000})[0] for n in (2, 3, 4)]
for row in sums:
    assert row["messages"] == {"bf16": [40_000], "fp32": [80_000]}
    assert row["step_by_step"] == 1.0
assert sums[0]["at_the_end"] == 1.0 and sums[2]["at_the_end"] < 0.9
assert sums[0]["error in bf16"] < sums[1]["error in bf16"] < sums[2]["error in bf16"]
program = launch(
    jax_bench.sweep,
    RANKS,
    todo | {"todo": [("all_reduce", 4096)], "dtype": "bf16"} | {"seconds": 0.05},
)
print("what XLA for CPUs runs for a bf16 sum:", program[0][0]["ran"])
assert program[0][0]["ran"] == "all_reduce f32"
table(
    [
        {
            "ranks": row["ranks"],
            "rounded each time": f"{row['step_by_step']:.0%}",
            "rounded once": f"{row['at_the_end']:.0%}",
            "error in bf16": f"{row['error in bf16']:.2e}",
            "error in fp32": f"{row['error in fp32']:.2e}",
        }
        for row in sums
    ]
)

# %% [markdown]
# gloo sends bf16 and rounds after each addition: that explains every number. Two ranks add once,
# so both columns agree, and a test with two ranks cannot see the difference. The error grows with
# the ranks; in float32, rounded at the end, it does not. XLA for CPUs converts: its program sums
# float32, which is as exact and sends twice the bytes.
#
# ## What can hide
#
# Communication that runs beside compute costs nothing, if something else does it. Four times tell
# the part: alone, alone, in turn, together; hidden is what *together* saves, divided by the
# shorter of the two. 1 is all of it. Where this machine can make links of a known rate (Linux,
# root), the same runs over 50 MB/s.

# %%
links = [None] if (why := missing()) else [None, 50e6]
print("links of a known rate:", why or "possible here")
rows = []
for backend in ("torch", "jax"):
    for link in links:
        row = overlapped(backend, 2 * 2**20, RANKS, RANKS, link, repeats=5)
        took = {name: time(seconds["median"]) for name, seconds in row["seconds"].items()}
        path = "memory" if link is None else f"{link / 1e6:.0f} MB/s"
        took = {name.replace("communication", "sum"): t for name, t in took.items()}
        rows.append({"by": backend, "through": path} | took | {"hidden": f"{row['hidden']:.2f}"})
        if backend == "jax":
            assert row["starts"] is False
table(rows)

# %% [markdown]
# Through memory the sum *is* compute: gloo's threads copy and add on the cores that the products
# need, so how much hides changes from run to run, and is below 0 where both slow down. Through a
# slow link most of the time is waiting, and torch's handle lets part of it pass beside the
# products. JAX's program for CPUs holds one `all-reduce`, which does not start and end apart: it
# waits whatever the link. For GPUs XLA has an `all-reduce-start` and a `-done`, and its
# latency-hiding scheduler (`--xla_gpu_enable_latency_hiding_scheduler=true` in `XLA_FLAGS`, see
# [GPU performance tips](https://docs.jax.dev/en/latest/gpu_performance_tips.html)) moves compute
# between them.
#
# ## Steps of real layers
#
# What do parallel steps send, and is their result right? A Mamba-2 layer and a transformer layer
# of this package, split over two ranks by sequences (dp) or by channels (tp), each against the
# whole layer. In float64 the results agree to rounding; in bf16 the trace must hold what the
# [calculators](370_training_time.py) count from the einsums: name, count, bytes.

# %%
task = {"layers": list(steps.LAYERS), "ways": ["dp", "tp"], "dtypes": ["fp64", "bf16"]}
ranks = launch(steps.parallel_steps, RANKS, task)
rows = []
for exact, rough in zip(ranks[0][::2], ranks[0][1::2], strict=True):
    due = sorted(list(one) for one in steps.predicted(exact["layer"], exact["way"], RANKS))
    assert sorted(rough["trace"]) == due and exact["apart"] < 1e-12
    rows.append(
        {
            "layer": exact["layer"],
            "by": exact["way"],
            "in the trace": f"{len(due)} × {due[0][1]}",
            "bytes": sum(one[3] for one in rough["trace"]),
            "counted": sum(one[3] for one in due),
            "float64 apart by": f"{exact['apart']:.0e}",
        }
    )
assert all(rank[0]["layer"] == "mamba2" for rank in ranks)
table(rows)

# %% [markdown]
# ## Exercises
#
# **1.** How large must a bucket be so that latency is at most a tenth of its time? Take the
# $\alpha$ and $\beta$ that were fitted to gloo's curve.

# %% tags=["answer"]
least = 9 * 2 * line.alpha * line.beta  # 2 alpha <= 0.1 (2 alpha + S / beta)
print(f"α {time(line.alpha)}, β {line.beta / 1e9:.2f} GB/s: buckets of at least {size(least)}")
share = 2 * line.alpha / line.seconds(2, 1, 25 * 2**20)
print(f"DDP's default of 25 MiB would spend {share:.2%} on latency")
assert abs(2 * line.alpha / line.seconds(2, 1, least) - 0.1) < 1e-9

# %% [markdown]
# **2.** Zamba2-1.2B is trained on 8 GPUs with 4 sequences of 4096 tokens. How many messages and
# bytes does a rank send in a step with tensor parallelism, and how many with data parallelism?
# Which can hide?

# %% tags=["answer"]
model = preset("zamba2-1.2b")
rows = []
for how in (Parallel(gpus=8), Parallel(gpus=8, tp=8, global_batch=4)):
    sent = collectives(model, how, 4096)
    rows.append(
        {
            "split": f"tp {how.tp}, dp {how.dp}",
            "messages": sum(c.times for c in sent),
            "GB sent": f"{sum(c.sent for c in sent) / 1e9:.2f}",
            "what": ", ".join(sorted({c.what for c in sent})),
        }
    )
assert rows[0]["messages"] == 1 < rows[1]["messages"]
table(rows)

# %% [markdown] tags=["answer"]
# The gradients of data parallelism are one message only on paper: in buckets each can hide behind
# the rest of the backward pass. The next operation of tensor parallelism needs the sum, so nothing
# hides unless the layer is cut once more.

# %% [markdown]
# **3.** The error of a bf16 sum grew with the ranks. How does it look at 64, where there is no
# machine to ask? Rounding after each addition is all that gloo did, so add so.

# %% tags=["answer"]
torch.manual_seed(0)
rows = []
for n in (2, 4, 16, 64):
    parts = list(torch.randn(n, 20_000, dtype=torch.bfloat16))
    exact = torch.stack(parts).double().sum(0)
    step_by_step = added_in_bf16(parts, tuple(range(n)))
    root = [
        ((y.double() - exact).square().mean() / exact.square().mean()).sqrt().item()
        for y in (step_by_step, exact.bfloat16())
    ]
    rows.append(
        {
            "ranks": n,
            "rounded each time": root[0],
            "rounded once": root[1],
            "ratio": root[0] / root[1],
        }
    )
assert rows[0]["ratio"] == 1 and rows[-1]["ratio"] > 3
table(rows)

# %% [markdown]
# ## Find the bug
#
# `benchmarks/communication/all_reduce.py` of
# [EleutherAI/cookbook](https://github.com/EleutherAI/cookbook) (at `5c3ffc7`) warms up,
# synchronises before and after, averages over trials and has an option `--async-op`. Its timed
# part is, in short: record the start, call `dist.all_reduce(input, async_op=args.async_op)` for
# each trial, record the end, synchronise. Without the option it is right. With it? Here is the
# same order of steps on gloo, beside one that waits.

# %%
nbytes = 16 * 2**20
clocks = launch(overlap_torch.launched, RANKS, {"nbytes": nbytes, "repeats": 7})[0]
bandwidth = {name: nbytes / clock["median"] / 1e9 for name, clock in clocks.items()}
for name, clock in clocks.items():
    print(f"{name:9} {time(clock['median']):>10}, busbw {bandwidth[name]:8.1f} GB/s")

# %% tags=["answer"]
memory = 4 * sum(gradients) / found[0]["seconds"] / 1e9  # the lowest layer above
print("The handle is dropped, and the end is recorded before the sum is done: the launch is timed.")
times = bandwidth["launched"] / memory
print(f"Memory copies {memory:.1f} GB/s; a sum cannot be {times:.0f} times as fast.")
assert clocks["launched"]["median"] < clocks["done"]["median"]

# %% [markdown] tags=["answer"]
# On GPUs it is the same: NCCL runs on a stream of its own, and the end event lies on the stream of
# compute, which was not told to wait. `handle.wait()` before the end is recorded mends it. What
# catches it: a bandwidth above the hardware's. `cookbook bench comm` cannot make the mistake,
# since it checks the result that the clock left behind.
