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
# # When does a cluster pay?
#
# **Goal.** Run the count of [chapter 220](220_token_counts.py) and the pipeline of
# [chapter 210](210_zyda.py) on a real Ray cluster; measure what the cluster costs; say from which
# size on it pays; and plan a search for duplicates among 1.6 billion documents on paper.
# **Needs** a CPU, the package `ray`, and about a minute. Without `ray` the plan remains.
#
# A cluster has more cores. It also has to be started, each task is sent over a network, and each
# node loads Python and the library anew. Below some size that costs more than it saves.

# %%
import json
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tokenizers as hf

from cookbook_lib import plots
from cookbook_lib.data.banding import Banding
from cookbook_lib.data.clusters import chained, speakers
from cookbook_lib.data.components import forest
from cookbook_lib.data.gauge import Gauge
from cookbook_lib.data.local import local_corpus
from cookbook_lib.data.nodes import connected, local_cluster
from cookbook_lib.data.pipeline import Pipeline
from cookbook_lib.data.runs import run
from cookbook_lib.data.scaling import (
    Place,
    Search,
    break_even,
    fitted,
    sorted_in,
    with_tasks,
)
from cookbook_lib.data.steps import PRESETS, Source
from cookbook_lib.data.tokens import count
from cookbook_lib.plots import table

plots.use()
CORES = 2
folder = Path(tempfile.mkdtemp())
there = find_spec("ray") is not None
print("Ray is installed" if there else "Ray is not installed: only the plan on paper follows")

# %% [markdown]
# ## Run: one corpus, two places
#
# The corpus is what Python's packages say, once and several times over. Two sizes tell the two
# parts of a time apart: what is paid once, and what is paid for each byte.

# %%
texts = [
    json.loads(line)["text"]
    for name, path in local_corpus(folder / "local").items()
    if name != "code"  # most of which Zyda's filters drop before they cost anything
    for line in path.read_text().splitlines()
]


def write(name, copies):
    """Files of about a megabyte, and the bytes of text in them."""
    (folder / name).mkdir()
    for copy in range(copies):
        for part in range(8):
            rows = [
                {"id": f"{copy}.{part}.{i}", "text": f"{copy} {text}"}
                for i, text in enumerate(texts[part::8])
            ]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / name / f"{copy:02}{part}.jsonl").write_text(lines)
    return sum(len(f"{copy} {text}".encode()) for copy in range(copies) for text in texts)


sizes = {"small": write("small", 1), "large": write("large", 10)}
tokenizer = hf.Tokenizer(hf.models.BPE())
tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
trainer = hf.trainers.BpeTrainer(
    vocab_size=8192,
    special_tokens=["<|endoftext|>"],
    initial_alphabet=sorted(hf.pre_tokenizers.ByteLevel.alphabet()),
    show_progress=False,
)
tokenizer.train_from_iterator(texts[::4], trainer)
tokenizer.save(str(folder / "tokenizer.json"))


def counted(size, **where):
    report = count([str(folder / size)], str(folder / "tokenizer.json"), **where)
    return report.tokens


def piped(size, **where):
    source = Source(name="all", paths=(str(folder / size),))
    out = Path(tempfile.mkdtemp(dir=folder))
    pipeline = Pipeline(sources=(source,), steps=PRESETS["zyda"], format="jsonl")
    report = run(pipeline, out, **where)
    left = (p for part in ("kept", "removed") for p in sorted((out / part).iterdir()))
    return report["kept"], {p.name: p.read_bytes() for p in left}


def timed(work, repeats=2, **where):
    """What came out, and seconds for each size: the least of some runs."""
    results, seconds = {}, {}
    for size in sizes:
        for _ in range(repeats):
            started = time.perf_counter()
            results[size] = work(size, **where)
            took = time.perf_counter() - started
            seconds[size] = min(took, seconds.get(size, took))
    return results, seconds


WORK = {"count": counted, "pipeline": piped}
here = {name: timed(work, workers=CORES) for name, work in WORK.items()}
table(
    {"size": size, "MB of text": round(nbytes / 1e6, 1)}
    | {f"{name} (s)": round(here[name][1][size], 2) for name in WORK}
    for size, nbytes in sizes.items()
)

# %% [markdown]
# Now the cluster: a head without cores, which holds the list of tasks, and two nodes of one core
# each. They are processes of this machine, but they speak to each other as machines do. So what
# is measured is the least that a cluster costs: a real network and a shared disk are slower.

# %%
seconds = {}
if there:
    started = time.perf_counter()
    with local_cluster(CORES) as cluster, connected(cluster.address) as ray:
        seconds["start the nodes, connect"] = time.perf_counter() - started
        task = ray.remote(num_cpus=1)(lambda: None)
        started = time.perf_counter()
        ray.get([task.remote() for _ in range(CORES)])
        seconds["first task of each core"] = time.perf_counter() - started
        started = time.perf_counter()
        ray.get([task.remote() for _ in range(300)])
        seconds["each further task"] = (time.perf_counter() - started) / 300
        where = {"engine": "ray", "address": cluster.address}
        far = {name: timed(work, **where) for name, work in WORK.items()}
    for name in WORK:
        assert far[name][0] == here[name][0]  # counts; and each byte that the pipeline wrote
    print(f"{far['count'][0]['large']:,} tokens in both places")
    print(f"{len(far['pipeline'][0]['large'][1])} files of the pipeline, the same to the byte")
    for name, s in seconds.items():
        print(f"{name}: {s:.4f} s")

# %% [markdown]
# The same code ran in both places; `--engine ray --address HOST:PORT` is all that changes on the
# command line. A test does the same while a worker is killed and a node is taken away.
#
# ## Look: a line for each place
#
# A time is what is paid once, plus bytes over the rate of all cores. Two sizes give both numbers:
#
# $$T(n) = T_0 + \frac{n}{r\,c}$$
#
# Where the larger size took no longer than the smaller one, something else was at work on the
# machine. Then the table says so, and the rate is that of the larger run with its start in it.

# %%
at = {"here": here} | ({"cluster": far} if there else {})
fits, noisy = {}, []
for name in WORK:
    for place, result in at.items():
        small, large = ((sizes[size], result[name][1][size]) for size in ("small", "large"))
        if large[1] <= small[1]:  # ten times the work in no more time is noise
            noisy.append(f"{name}, {place}")
            small = (0, 0.0)
        fits[name, place] = fitted(small, large, cores=CORES)
table(
    {
        "work": name,
        "place": place,
        "large (s)": f"{at[place][name][1]['large']:.2f}",
        "once (s)": "too noisy" if f"{name}, {place}" in noisy else f"{fit.start:.2f}",
        "MB/s a core": f"{fit.rate / 1e6:.1f}",
    }
    for (name, place), fit in fits.items()
)

# %% [markdown]
# A cluster of as many cores does the same work at a rate of the same order. Its workers stay loaded
# from one run to the next, where processes here start anew each time; but the cluster itself has to
# be started, which is not in this table. So it pays when it has **more** cores, and the question
# needs a second number: how many. The model takes the rate of a core from this machine, and from
# the cluster its start and its cost of a task. It is a model: it says nothing of the disk that all
# nodes read from, nor of nodes that are slow or fail.

# %%
START = sum(list(seconds.values())[:2]) if there else 10.0  # not measured without Ray: a guess
TASK = list(seconds.values())[2] if there else 0.002
PIECE = 64e6  # bytes of a task; the files of a large corpus are larger than here
NODE = 92  # cores of a node of Zyda's cluster, github.com/Zyphra/Zyda_processing, README
points = []
fig, ax = plt.subplots()
n = np.geomspace(1e6, 1e13, 100)
for name in WORK:
    local = fits[name, "here"]
    near = Place(start=local.start, rate=local.rate, cores=NODE)
    for nodes in (2, 8):
        away = Place(
            start=START + local.start,
            rate=with_tasks(local.rate, TASK, PIECE),
            cores=nodes * NODE,
        )
        even = break_even(near, away)
        assert abs(near.seconds(even) - away.seconds(even)) < 1e-6 * near.seconds(even)
        points.append((name, nodes, even, near.seconds(even)))
        if name == "pipeline":
            ax.plot(n, [away.seconds(x) for x in n], label=f"{nodes} nodes")
            ax.plot(even, near.seconds(even), "o", color=plots.INK)
    if name == "pipeline":
        ax.plot(n, [near.seconds(x) for x in n], label="1 node, no cluster")
ax.set(xscale="log", yscale="log", xlabel="bytes of text", ylabel="seconds, by the model")
ax.legend()
plots.show(fig, "Time of the pipeline against size for one node and for clusters of two and eight")
table(
    {"work": name, "nodes": nodes, "pays from (GB)": f"{even / 1e9:.1f}", "after (s)": f"{s:.0f}"}
    for name, nodes, even, s in points
)

# %%
assert break_even(near, Place(start=START + near.start, rate=near.rate, cores=NODE)) == np.inf
assert all(a[2] > b[2] for a, b in zip(points[::2], points[1::2], strict=True))
print("a cluster as large as the node never pays; a larger one pays sooner")

# %% [markdown]
# A run that one node ends sooner than the last column says has nothing to gain. A cluster that is
# up already has no start to pay, and then only the tasks count: that is why they should be large.

# %%
rate = fits["pipeline", "here"].rate
table(
    {
        "bytes of a task": f"{piece:,.0f}",
        "lost to the cluster": f"{1 - with_tasks(rate, TASK, piece) / rate:.2%}",
    }
    for piece in (1e4, 1e5, 1e6, 1e7, 64e6)
)

# %% [markdown]
# ## On paper: 1.6 billion documents
#
# **Nothing here was run at this size.** Bytes are counted, times are what small runs on this
# machine lead to expect, and both are for the ideal case. First, what a band costs: its keys are
# sorted, and whatever lies in one bucket is connected by a forest, which has fewer edges than there
# are documents. Forests of several workers are merged two by two.

# %%
DOCUMENTS = 1594.2e6  # huggingface.co/datasets/Zyphra/Zyda, the dataset's card
TOKENS = 1296.7e9  # the same
BYTES_A_TOKEN = 4  # of English with a large vocabulary; the small ones of chapter 220 hold less
tried = 1_000_000
gauge = Gauge()


def once(step, work):
    """What a piece of work gives, and its seconds."""
    with gauge(step):
        made = work()
    return made, gauge.seconds[step]


def chain(seed):
    """The forest of one band; in its buckets lie a few documents each."""
    keys = np.random.default_rng(seed).integers(tried * 3 // 2, size=(tried, 1), dtype=np.uint32)
    signed = np.repeat(keys, 4, axis=1)
    return signed, lambda: chained(signed, np.arange(tried), Banding(1, 4), [0])


(signed, one), (_, other) = chain(0), chain(1)
once("nothing", lambda: None)
first, band = once("a band", one)
second = other()
two, merge = once("merging two", lambda: forest(tried, first, second))
(speaker, distinct), head = once("labels", lambda: speakers(signed))
assert len(first[0]) == tried - len(np.unique(signed[:, 0])) < len(two[0]) < tried
each = {step: (gauge.peaks[step] - gauge.peaks["nothing"]) / tried for step in gauge.peaks}
table(
    {"a million documents": name, "seconds": f"{s:.2f}", "bytes each": round(each[name])}
    for name, s in (("a band", band), ("merging two", merge), ("labels", head))
)

# %%
plan = Search(documents=DOCUMENTS, permutations=128, bands=32)
table(
    {"on disk or in memory": name, "TB": f"{nbytes / 1e12:.3f}"}
    for name, nbytes in plan.table().items()
)

# %% [markdown]
# And the time, on the cluster that Zyda was made on: 8 nodes of 92 cores. Bands need memory rather
# than cores, so four bands at a time are sorted on each node, a core each.

# %%
NODES = 8  # github.com/Zyphra/Zyda_processing, README
text = TOKENS * BYTES_A_TOKEN
steps = {
    "filters and signatures": text / rate / (NODES * NODE),
    "bands, 4 a node": sorted_in(band, tried, DOCUMENTS) * plan.bands / (4 * NODES),
    "merging, 5 rounds": 5 * sorted_in(merge, tried, DOCUMENTS),
    "labels, one process": sorted_in(head, tried, DOCUMENTS),
}
hours = {name: s / 3600 for name, s in steps.items()}
table(
    {"step": name, "hours": f"{h:.2f}", "node-hours": f"{h * NODES:.1f}"}
    for name, h in (*hours.items(), ("all", sum(hours.values())))
)

# %%
memory = 4 * each["a band"] * DOCUMENTS
read = plan.bands * plan.signatures
print(f"memory of a node with 4 bands: {memory / 1e12:.2f} TB")
print(f"memory of the process with all labels: {each['labels'] * DOCUMENTS / 1e12:.2f} TB")
print(f"each band reads all signatures: {read / 1e12:.0f} TB from the disks")
print(f"at 2 GB/s a node that is {read / (NODES * 2e9) / 3600:.1f} hours more")

# %% [markdown]
# Beside it, as separate points, what was published. The two are not the same measurement: theirs
# is a time that passed, with reading, writing, waiting and another program; ours is arithmetic.

# %%
published = [  # github.com/Zyphra/Zyda_processing, README: the search for duplicates at 0.4
    ("nodes × cores", f"{NODES} × {NODE}", f"{NODES} × {NODE}, assumed"),
    ("memory of a node", "2 TB", f"{max(memory, each['labels'] * DOCUMENTS) / 1e12:.2f} TB used"),
    ("peak of the search", "1.5 TB", f"{memory / 1e12:.2f} TB"),
    ("time", "about 2 days", f"{sum(hours.values()):.1f} h, computing only"),
    ("node-hours", f"{NODES * 48}", f"{sum(hours.values()) * NODES:.0f}"),
]
table({"": what, "published": theirs, "on paper": ours} for what, theirs, ours in published)

# %%
assert memory < 2e12  # of a node
print("the plan takes", "less" if sum(hours.values()) < 48 else "more", "than what was published")

# %% [markdown]
# A plan that is far below what was measured is a reason to distrust the plan. What it leaves out
# is the disks first of all: every band reads all signatures again, and every text is read and
# written once. Then the verification of pairs, which reads texts that lie far apart. Who stays is
# decided by all workers, each of which has some of the clusters; but the labels are put together in
# one process, which no number of nodes makes faster.
#
# ## Exercises
#
# **1.** You have one node. Is it better to rent a second one for a corpus of 20 GB?

# %% tags=["answer"]
local = fits["pipeline", "here"]
one = Place(start=local.start, rate=local.rate, cores=NODE)
two = Place(start=local.start + START, rate=local.rate, cores=2 * NODE)
print(f"one node {one.seconds(20e9):.0f} s, two nodes {two.seconds(20e9):.0f} s")
print(f"it saves {one.seconds(20e9) - two.seconds(20e9):.0f} s, and setting it up takes longer")
assert two.seconds(20e9) > one.seconds(20e9) / 2, "a second node does not halve the start"

# %% [markdown]
# **2.** Zyda-2 has 8 bands of 16 instead of 32 bands of 4. What does that change in the plan?

# %% tags=["answer"]
other = Search(documents=DOCUMENTS, permutations=128, bands=8)
for name, nbytes in plan.table().items():
    print(f"{name:28} {nbytes / 1e12:6.3f} TB → {other.table()[name] / 1e12:6.3f} TB")
assert other.signatures == plan.signatures

# %% [markdown]
# Signatures stay what they are; keys, edges and the time of the bands are a quarter.
