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
# # Serving a hybrid
#
# **Goal.** Read a prompt in pieces, decode a batch, say how near a step comes to what memory
# allows, compare with `transformers` on the same weights, and list what a scheduler has to know.
# **Needs** a CPU and about half a minute.
#
# The chapter on [serving](380_serving.py) predicts times from a roofline, and the one on
# [states](610_states_and_caches.py) shows what can be done with a cache. Here a model runs: a
# Zamba2 of 12 layers, three of which ask a shared transformer block, with random weights.

# %%
import time
from collections import Counter
from statistics import median

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cookbook_lib import plots
from cookbook_lib.benchmarks.shapes import config_of, fill, random_model
from cookbook_lib.calculators.chips import chip
from cookbook_lib.calculators.hardware import roofline
from cookbook_lib.calculators.presets import preset
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.serving import Serving
from cookbook_lib.calculators.storage import Storage
from cookbook_lib.commands.output import nbytes, seconds
from cookbook_lib.decoding.rows import clear
from cookbook_lib.plots import table
from cookbook_lib.results import committed

plots.use()
torch.set_grad_enabled(False)
model = random_model(config_of("zamba2-mid", 384), torch.float32, "cpu")
spec = model.spec
print(f"{spec.params():,} parameters, {spec.params_used():,} used by a token")
plots.model(spec)

# %% [markdown]
# ## Prefill, whole and in pieces
#
# A long prompt that is read at once keeps everyone else waiting. In pieces the server decodes for
# others in between. The result is the same; only the shape of the products changes.


# %%
def timed(run, repeats: int = 3) -> float:
    """Median seconds, after one call that does not count."""
    took = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return median(took[1:])


prompt = torch.randint(0, 1000, (1, 512), generator=torch.Generator().manual_seed(0))
cache = model.new_cache(1, 512)
rows, logits = [], {}
for piece in (512, 128, 16):

    def read(piece=piece):
        clear(cache)
        for part in prompt.split(piece, 1):
            logits[piece] = model(part, cache, logits="last")

    took = timed(read, 1)
    rows.append(
        {
            "piece": piece,
            "passes": -(-512 // piece),
            "prompt": seconds(took),
            "tokens/s": round(512 / took),
            "others wait": seconds(took / -(-512 // piece)),
        }
    )
    apart = (logits[piece] - logits[512]).abs().max() / logits[512].abs().max()
    assert apart < 1e-4
print(f"logits of pieces of 16 and of the whole differ by {apart:.1e} of the largest")
table(rows)

# %% [markdown]
# Small pieces read the weights more often: each pass reads all of them. A piece that is no multiple
# of the scan's chunk pads its last chunk.
#
# ## A step of decoding
#
# What does a step have to read? All weights that a token uses, and of each sequence its states and
# keys. A product of this machine's memory tells how fast that could be.

# %%
block = torch.ones(64 * 2**20)  # 256 MiB
bandwidth = block.nbytes / timed(block.sum, 5)
print(f"reading memory: {bandwidth / 1e9:.1f} GB/s")
wide = Storage(weights="fp32", embed="fp32", cache="fp32")
rows = []
for batch, context in ((1, 256), (1, 4096), (4, 256), (4, 4096), (16, 256)):
    held = fill(model.new_cache(batch, context + 8), context)
    token = torch.zeros(batch, 1, dtype=torch.long)

    def step(held=held, token=token):
        model(token, held)
        held.length -= 1

    took = timed(step, 7)
    run = Run(b=batch, l=1, s=context + 1)
    moved = roofline(spec, chip("cpu"), run, wide).fused_bytes
    rows.append(
        {
            "batch": batch,
            "context": context,
            "cache": nbytes(held.nbytes),
            "step": seconds(took),
            "tokens/s": round(batch / took, 1),
            "of the memory's rate": f"{moved / took / bandwidth:.0%}",
        }
    )
    assert held.nbytes == spec.state_bytes(b=batch, s=context + 8, dtype="fp32")
table(rows)

# %% [markdown]
# A batch shares the weights, so more sequences give more tokens a second, until their caches and
# the arithmetic take over. Where the last column is low, the time goes into many small operations
# or into arithmetic.
#
# ## Beside transformers
#
# The same weights, in the same memory, in turn; both start from equal caches filled with random
# numbers, and their logits are compared first. Measured by
# `cookbook bench generate --against transformers --context 1024 16384 --batch 1 8`:

# %%
measured = [r for r in committed("decoding") if r["kind"] == "generate"]
rows = []
for r in measured:
    ratio = r["times_as_fast"]
    rows.append(
        {
            "model": f"{r['model'].removeprefix('zamba2-')}, {r['dtype']}",
            "batch": r["batch"],
            "context": r["context"],
            "tokens/s": round(r["tokens_per_second"]["ours"], 1),
            "transformers": round(r["tokens_per_second"]["theirs"], 1),
            "times": round(ratio["median"], 2),
        }
    )
where = measured[0]
versions = where["versions"]
print(f"{where['device']}, {where['threads']} threads; mid is {where['width']} wide")
print(f"torch {versions['torch']}, transformers {versions['transformers']}")
mid = [r for r in measured if r["model"] == "zamba2-mid"]
fast = {(r["dtype"], r["batch"], r["context"]): r["times_as_fast"]["median"] for r in mid}
assert all(ratio > 1.5 for (dtype, *_), ratio in fast.items() if dtype == "bf16")
assert all(ratio > 1.5 for (_, *case), ratio in fast.items() if case != [1, 1024])
assert fast["fp32", 1, 16384] > 1.5 * fast["fp32", 1, 1024]
table(rows)

# %% [markdown]
# Three causes, and none of them is the model. A cache that grows by concatenation copies all keys
# and values at each token: that is the long context. States that are updated in place are read and
# written once instead of several times: that is the batch. And a product of few rows in bf16 reads
# its weights faster if PyTorch is given the weight first. *1.2b* is the true shape of Zamba2-1.2B.
# With one short sequence only the small operations are left to save: both sides read the same
# weights, and no code reads them faster than memory gives them. How much is left?

# %%
rows = []
for r in (r for r in measured if (r["batch"], r["context"]) == (1, 1024)):
    took = {side: r["seconds"][side]["median"] for side in ("ours", "theirs")}
    least = r["step_bytes"] / r["read_rate"]  # a large matrix times a vector, in the same rounds
    rows.append(
        {
            "model": f"{r['model'].removeprefix('zamba2-')}, {r['dtype']}",
            "reading takes": seconds(least),
            "of our step": f"{least / took['ours']:.0%}",
            "of theirs": f"{least / took['theirs']:.0%}",
            "at most": f"{took['theirs'] / least:.1f} times",
        }
    )
    assert took["ours"] > 0.95 * least
table(rows)

# %% [markdown]
# *At most* so many times as fast as `transformers` can any code be. The rest of our step is work on
# small tensors, one operation after the other. How many are there for one token?


# %%
class Operations(TorchDispatchMode):
    """Counts what is computed; views cost no work."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if not op.is_view:
            self.seen[op.overloadpacket.__name__] += 1
        return op(*args, **(kwargs or {}))


held = fill(model.new_cache(1, 64), 32)
with Operations() as counted:
    model(torch.zeros(1, 1, dtype=torch.long), held)
products = sum(counted.seen[name] for name in ("mv", "mm", "addmm"))
print(f"{counted.seen.total()} operations, of which {products} read a weight matrix")
assert products < counted.seen.total() / 4

# %% [markdown]
# ## What a scheduler must know
#
# A server of transformers counts one thing: pages of keys and values. A hybrid needs a second
# count: *slots* of states, whole ones, from the first token of a sequence to its last.

# %%
h100 = chip("h100")
rows = []
for name in ("llama-3.1-8b", "zamba2-7b", "zamba2-2.7b", "mamba2-2.7b"):
    s = Serving(model=preset(name), chip=h100)
    slot = s.cache(1, 1) - (s.cache(1, 2) - s.cache(1, 1))
    page = 16 * (s.cache(1, 2) - s.cache(1, 1))
    rows.append(
        {
            "model": s.model.name,
            "slot, MB": slot / 1e6,
            "page of 16 tokens, MB": page / 1e6,
            "batch at 1k": s.largest_batch(1024),
            "at 16k": s.largest_batch(16384),
        }
    )
    assert abs(s.cache(1, 161) - slot - 161 * page / 16) < 1
table(rows)

# %% [markdown]
# | Event | Keys and values | States |
# |---|---|---|
# | a sequence enters | pages as it grows | a whole slot at once |
# | a prompt in pieces | any cut | any cut; multiples of the chunk pad nothing |
# | a prefix is known | any number of tokens | only where a snapshot was taken |
# | a proposal is rejected | a shorter length | a snapshot, and accepted tokens once more |
# | memory is short | move or drop pages | move the slot: small; or read everything again |
# | a sequence forks | share pages | copy the slot |
# | a prompt is padded | left or right | left |
#
# When memory is short, is it better to move a sequence out and back, or to read it again?

# %%
rows = []
gain = {}
link = 50e9  # bytes/s, our round number for a PCIe 5 x16 link in one direction
for name in ("llama-3.1-8b", "zamba2-7b", "mamba2-2.7b"):
    s = Serving(model=preset(name), chip=h100)
    for context in (1024, 16384):
        move, again = 2 * s.cache(1, context) / link, s.prefill(1, context).fused
        rows.append(
            {
                "model": s.model.name,
                "context": context,
                "move out and back": seconds(move),
                "read again, at least": seconds(again),
            }
        )
        gain[name, context] = again / move
        rows[-1]["times"] = round(again / move, 1)
long = {name: gain[name, 16384] for name, context in gain if context == 16384}
assert min(long.values()) > 1 and max(long, key=long.get) == "mamba2-2.7b"
assert all(long[name] >= gain[name, 1024] for name in long)
table(rows)

# %% [markdown]
# *Times* above 1 means that moving is faster. The longer the context, the more a state is worth
# moving: the slot stays as it is, while reading again takes longer with each token.
#
# ## First token and memory, against a transformer
#
# The published comparison of Zamba2-2.7B with Phi-3-mini says a first token in half the time, 27%
# less memory and 1.29 times the tokens
# ([zyphra.com/post/zamba2-small](https://www.zyphra.com/post/zamba2-small)), without chip, batch
# and lengths. The command
# `cookbook bench first-token zamba2-2.7b phi-3-mini-4k --device cuda --graph` measures the two
# shapes with random weights and states every setting. Its rows stand beside the claim once a GPU
# has run it:

# %%
claims = {"first": 2.0, "further": 1.29, "memory": 0.27}  # zyphra.com/post/zamba2-small
gpu = [r for r in committed("decoding") if r["kind"] == "first-token"]
pair = {r["model"]: r for r in gpu if r["model"] in ("zamba2-2.7b", "phi-3-mini-4k")}
if len(pair) == 2:
    a, b = pair["zamba2-2.7b"], pair["phi-3-mini-4k"]
    print(f"{a['device']}, prompt {a['prompt']}, batch {a['batch']}, {a['dtype']}")
    for what in ("first", "further"):
        print(f"{what}: {b[what]['median'] / a[what]['median']:.2f} ({claims[what]} claimed)")
    saved = 1 - a["peak_bytes"] / b["peak_bytes"]
    print(f"memory: {saved:.0%} less ({claims['memory']:.0%} claimed)")
else:
    ours, other = (Serving(model=preset(n), chip=h100) for n in ("zamba2-2.7b", "phi-3-mini-4k"))
    less = 1 - (ours.weights + ours.cache(1, 2048)) / (other.weights + other.cache(1, 2048))
    print(f"not measured on a GPU yet; weights and cache of 2048 tokens: {less:.0%} less")
    assert abs(less - claims["memory"]) < 0.1

# %% [markdown]
# ## Exercises
#
# **1.** How many sequences of Zamba2-7B at 16k tokens fit on an H100 if keys and values take 8
# bits, and how many if the states take 16 bits instead of 32? Which of the two helps a hybrid more?

# %% tags=["answer"]
zamba = preset("zamba2-7b")
fits = {
    name: Serving(model=zamba, chip=h100, store=store).largest_batch(16384)
    for name, store in {
        "as they are": Storage(),
        "keys in 8 bits": Storage(cache="int8"),
        "states in 16 bits": Storage(ssm="bf16"),
    }.items()
}
print(fits)
print("at this context keys and values are most of the cache, also in a hybrid")
assert fits["keys in 8 bits"] > fits["states in 16 bits"] >= fits["as they are"]

# %% [markdown]
# **2.** Below which context is it the other way round?

# %% tags=["answer"]


def saved(context: int) -> tuple[float, float]:
    """Bytes saved by 8-bit keys and by 16-bit states."""
    stores = Storage(), Storage(cache="int8"), Storage(ssm="bf16")
    plain, keys, states = (store.states_nbytes(zamba, 1, context) for store in stores)
    return plain - keys, plain - states


turn = next(n for n in range(1, 10_000) if saved(n)[0] > saved(n)[1])
print(f"below {turn:,} tokens the states are the larger part")
assert saved(turn - 1)[0] <= saved(turn - 1)[1]
