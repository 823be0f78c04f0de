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
# # What does a hybrid cost?
#
# **Goal.** Take the layer string of BlackMamba, Zamba or Zamba2 and say what it stores, what a
# token computes, and what a conversation keeps in memory; know where the rules of thumb for
# transformers fail.
# **Needs** a CPU and about fifteen seconds.
# Builds on [chapter 320](320_ssm_costs.py) and [chapter 330](330_transformer_costs.py).
#
# Three rules of thumb are on everyone's slide: training takes $6ND$ FLOPs, a hybrid with attention
# in every sixth layer has a KV cache six times smaller, and shared weights save memory. Each is
# wrong in an instructive way for the models of this chapter.

# %%
import warnings
from textwrap import fill

import matplotlib.pyplot as plt
import torch

from cookbook_lib import plots
from cookbook_lib.calculators.chips import chip
from cookbook_lib.calculators.presets import entry, preset
from cookbook_lib.calculators.report import grouped
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.specs import Mamba2
from cookbook_lib.commands.models import short
from cookbook_lib.plots import table

plots.use()
torch.manual_seed(0)
with warnings.catch_warnings(action="ignore"):  # no notices about progress bars,
    from transformers import Zamba2Config, Zamba2ForCausalLM, logging
logging.set_verbosity_error()  # nor about kernels that a CPU does not have

NAMES = ("blackmamba-2.8b", "zamba-7b-v1", "zamba2-1.2b", "zamba2-2.7b", "zamba2-7b")
blackmamba, zamba, small, medium, large = hybrids = [preset(name) for name in NAMES]
plots.model(medium)

# %% [markdown]
# ## Run: five strings
#
# `m` is a Mamba layer and `E` a layer of experts. `A` and `B` are Mamba layers that first run a
# *shared* transformer block: every `A` runs the same attention and MLP, every `B` those of a second
# one. What differs from use to use is small: a linear that leads the block's output into the layer,
# and in Zamba2 a LoRA.

# %%
print(fill("BlackMamba's preset says: " + entry("blackmamba-2.8b")["note"], 72))
table(
    [
        {
            "model": model.name,
            "layers": len(model.pattern),
            "layer string": "18 times m E" if model is blackmamba else short(model.pattern),
            "shared blocks": len(set(model.pattern) & set("AB")),
            "uses of them": sum(model.pattern.count(x) for x in "AB"),
        }
        for model in hybrids
    ]
)

# %% [markdown]
# ## Where do the parameters sit?
#
# For each model, what is stored and what one token multiplies with. An expert that the router does
# not pick is stored and not used. A shared block is stored once and used many times.

# %%
GROUPS = {
    "Mamba": ("mamba", "mamba2"),
    "transformer block": ("attention", "mlp"),
    "experts": ("moe",),
    "own to each use": ("linear", "lora"),
    "embedding, head, norms": ("embedding", "head", "norm"),
}


def parts(model, count):
    """`params` or `params_used` of each group."""
    rows = grouped(model.rows(Run()), "component")
    return {
        g: sum(r[count] for r in rows if r["component"] in names) for g, names in GROUPS.items()
    }


fig, ax = plt.subplots(figsize=(6, 4.2))
ticks = []
for i, model in enumerate(hybrids):
    for j, count in enumerate(("params", "params_used")):
        y, left = -(2.6 * i + j), 0
        ticks.append((y, f"{model.name}, stored" if j == 0 else "used"))
        for k, size in enumerate(parts(model, count).values()):
            ax.barh(y, size / 1e9, left=left / 1e9, height=0.85, color=plots.COLORS[k])
            left += size
        ax.text(left / 1e9 + 0.1, y, f"{left / 1e9:.2f}", va="center")
        assert left == (model.params() if j == 0 else model.params_used())
for k, group in enumerate(GROUPS):
    ax.bar(0, 0, color=plots.COLORS[k], label=group)
ax.set_yticks(*zip(*ticks, strict=True))
ax.set(xlabel="parameters (billions): what is stored, what a token uses", xlim=(0, 13))
ax.grid(axis="y", visible=False)
ax.legend(loc="lower right", bbox_to_anchor=(1, 0.3))
plots.show(
    fig, "Zamba models use 1.4 to 1.6 times what they store; BlackMamba uses a quarter of it"
)

# %% [markdown]
# Are the bars right? The parts of Zamba2 have closed forms. With width $d$, inner width $I = 2d$,
# $H$ heads of the scan, $G$ groups, state $N$, $C$ taps, rank $r$ and MLPs of width $4d$:


# %%
def closed_form(model, adapters):
    """Formula and count of each part of a Zamba2 model; adapters: of the MLP, or of q, k, v too."""
    mamba = dict(model.layer(0))["model.layers.0.mamba"]
    d, I, H, G, N = mamba.d_model, mamba.d_inner, mamba.nheads, mamba.ngroups, mamba.d_state
    C, r, L = mamba.d_conv, 128, len(model.pattern)
    uses, blocks = len(model.pattern) - model.pattern.count("m"), len(set(model.pattern)) - 1
    layer = d * (2 * I + 2 * G * N + H) + (I + 2 * G * N) * (C + 1) + 3 * H + I + I * d + d
    return {
        "Mamba layers": ("L(d(2I+2GN+H) + (I+2GN)(C+1) + 3H + I + Id + d)", L * layer),
        "shared blocks": ("blocks · (14d² + 12d² + 3d)", blocks * (26 * d * d + 3 * d)),
        "LoRA on the MLP": ("uses · r(d + 8d)", uses * r * 9 * d),
        "LoRA on q, k, v": ("uses · 3r(2d + 2d)", uses * 12 * r * d * ("qkv" in adapters)),
        "linear of each use": ("uses · d²", uses * d * d),
        "embedding, final norm": ("32000d + d", 32000 * d + d),
    }


medium_parts, small_parts = closed_form(medium, "mlp"), closed_form(small, "mlp qkv")
by_hand = {"Zamba2-1.2B": small_parts, "Zamba2-2.7B": medium_parts}
sums = {name: sum(n for _, n in found.values()) for name, found in by_hand.items()}
assert sums == {"Zamba2-1.2B": small.params(), "Zamba2-2.7B": medium.params()}
rows = [
    {"part": part, "formula": formula, "Zamba2-1.2B": small_parts[part][1], "Zamba2-2.7B": n}
    for part, (formula, n) in medium_parts.items()
]
table([*rows, {"part": "all", **sums}])

# %% [markdown]
# The formulas could share our mistakes. `transformers` does not: it builds the modules, and every
# parameter must have the same name and size. A shared weight appears under its first name only.

# %%
with torch.device("meta"):  # shapes without memory
    module = Zamba2ForCausalLM(Zamba2Config(**entry("zamba2-2.7b")["config"]))
theirs = {name: p.numel() for name, p in module.named_parameters()}
print(f"transformers: {len(theirs)} parameters, {sum(theirs.values()):,} elements")
print("the same names and sizes:", theirs == medium.weights())
assert theirs == medium.weights()
assert small.params() == 1_215_064_704  # the total of the published checkpoint

# %% [markdown]
# ## Two totals for one model
#
# Zyphra's own code ([Zamba2](https://github.com/Zyphra/Zamba2) at `1b182f4`) gives *each* of the
# two shared blocks a LoRA for *every* use, although a use runs only one of the blocks.
# `transformers` allocates the ones that run. Both are honest totals of the same function. This
# book prints the second, because the rest never changes an output.

# %%
rows = []
for model, published in ((small, 1_215_064_704), (medium, 2_688_756_640), (large, 7_410_423_632)):
    lora = grouped(model.rows(Run()), "component")
    lora = sum(row["params"] for row in lora if row["component"] == "lora")
    blocks = len(set(model.pattern) & set("AB"))
    allocated = model.params() + (blocks - 1) * lora
    assert allocated == published  # counted by building Zyphra's code
    rows.append(
        {
            "model": model.name,
            "LoRA, used": lora,
            "LoRA, never used": (blocks - 1) * lora,
            "total as printed here": model.params(),
            "total of Zyphra's code": allocated,
        }
    )
table(rows)

# %% [markdown]
# ## Why 6ND is wrong
#
# $6ND$ counts six FLOPs for each of $N$ parameters and $D$ tokens: two forward, four backward. That
# is one use of each parameter per token. Which $N$ makes it true? Parameters are in millions.

# %%
tokens = 4096
rows = []
for model in [*hybrids, preset("mistral-7b-v0.1")]:
    step = model.step_flops(l=tokens, attention="causal") / tokens
    stored, active, used = model.params(), model.params_active(), model.params_used()
    rows.append(
        {
            "model": model.name,
            "stored": f"{stored / 1e6:,.1f}",
            "active": f"{active / 1e6:,.1f}",
            "used": f"{used / 1e6:,.1f}",
            "GFLOP a token": f"{step / 1e9:.2f}",
            "to 6·stored": f"{step / (6 * stored):.2f}",
            "to 6·active": f"{step / (6 * active):.2f}",
            "to 6·used": f"{step / (6 * used):.2f}",
        }
    )
    assert 1 < step / (6 * used) < 1.11
table(rows)

# %% [markdown]
# With $N$ stored, the rule asks for more than four times too much compute for BlackMamba, and for
# more than a third too little for every Zamba. Active parameters mend the first and not the
# second: *used* parameters mend both. For Mistral, whose layers share nothing, all three agree,
# and that is why the rule is on every slide. What remains above one is arithmetic without weights:
# attention over 4096 tokens and the scan. [How wrong is 6ND?](355_how_wrong_is_6nd.py) takes the
# rule to other models and to long contexts.

# %%
rows = []
for model in hybrids:
    forward = model.costs(l=tokens, attention="causal")
    whole = sum(r.flops for r in forward)
    kinds = {
        "products with weights": [r for r in forward if r.params and r.kind == "matmul"],
        "attention over tokens": [r for r in forward if r.op in ("scores", "values")],
    }
    kinds["scan, conv, the rest"] = [r for r in forward if not any(r in k for k in kinds.values())]
    assert sum(r.flops for k in kinds.values() for r in k) == whole
    shares = {name: f"{sum(r.flops for r in k) / whole:.1%}" for name, k in kinds.items()}
    rows.append({"model": model.name} | shares)
table(rows)

# %% [markdown]
# What *used* means can be built. Give every use a block of its own: rename the shared weights, so
# that nothing is shared any more. The FLOPs do not change, the cache does not change, and what is
# stored becomes what was used.


# %%
def without_sharing(model):
    """The same model with a private copy of the shared block at each use."""
    layers = (
        (letter, tuple((name.replace("{first}", "{i}"), block) for name, block in layout))
        for letter, layout in model.layers
    )
    return model.but(layers=tuple(layers))


rows = []
for model in hybrids[1:]:
    twin = without_sharing(model)
    assert twin.params() == twin.params_used() == model.params_used()
    assert twin.flops(l=tokens) == model.flops(l=tokens)
    assert twin.state_bytes(s=tokens) == model.state_bytes(s=tokens)
    rows.append(
        {
            "model": model.name,
            "stored": model.params(),
            "stored without sharing": twin.params(),
            "saved by sharing": f"{1 - model.params() / twin.params():.0%}",
        }
    )
table(rows)

# %% [markdown]
# So a shared block saves weights, and costs the compute of a larger model. A budget has to know:

# %%
D = 3e12  # tokens, as reported in zyphra.com/post/zamba2-small for the 2.7B
rule = 6 * medium.params() * D
really = medium.step_flops(l=tokens, attention="causal") / tokens * D
h100_days = (really - rule) / (0.4 * chip("h100").flops) / 86400
print(f"{medium.name} on {D:.0e} tokens: 6ND says {rule:.2e} FLOP, the rows {really:.2e}")
print(f"the difference is {h100_days:,.0f} days of an H100 that reaches 40% of its bf16 peak")
assert 1.5 < really / rule < 1.6

# %% [markdown]
# ## Active parameters: BlackMamba
#
# BlackMamba's name says both sizes: 630M of 2.8B. A token runs one of eight experts; the memory
# holds all. There is no attention, so nothing grows with the context.

# %%
per_token = blackmamba.flops(l=1)
state = blackmamba.state_bytes(s=4096)
print(f"active {blackmamba.params_active() / 1e6:.1f} M of {blackmamba.params() / 1e6:.1f} M")
print(f"forward {per_token / 1e9:.3f} GFLOP a token;", end=" ")
print(f"2 · active is {2 * blackmamba.params_active() / 1e9:.3f}")
print(f"state {state / 1e6:.2f} MB for a sequence, after 4 thousand tokens or after 1 million")
assert (blackmamba.params_active(), blackmamba.params()) == (628_770_832, 2_783_213_584)
assert state == blackmamba.state_bytes(s=2**20) and blackmamba.state_bytes("kv", s=2**20) == 0

# %% [markdown]
# ## The KV cache: one for each use
#
# A shared block has one set of weights. Does it also have one cache? Run a tiny Zamba2 whose two
# hybrid layers share their block, and look at what it keeps.

# %%
config = Zamba2Config(
    hidden_size=64,
    num_hidden_layers=4,
    layers_block_type=["mamba", "hybrid", "mamba", "hybrid"],
    num_mem_blocks=1,
    n_mamba_heads=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    intermediate_size=128,
    vocab_size=100,
)
tiny = Zamba2ForCausalLM(config).eval()
with torch.no_grad():
    cache = tiny(torch.arange(8)[None], use_cache=True).past_key_values
one, other = (tiny.model.layers[i].shared_transformer.self_attn.k_proj.weight for i in (1, 3))
first, second = cache.layers[1].keys, cache.layers[3].keys
print("the two uses read the same weight in memory:", one.data_ptr() == other.data_ptr())
print(f"the two uses keep keys of shape {tuple(first.shape)} each;", end=" ")
print(f"largest difference between them: {(first - second).abs().max():.2f}")
assert one.data_ptr() == other.data_ptr() and first.data_ptr() != second.data_ptr()
assert not torch.allclose(first, second, atol=0.1)

# %% [markdown]
# A key is $W_K$ times the *input* of that use, and the input is different in every layer. The same
# matrix on different inputs gives different keys, so each use keeps its own. Sharing weights does
# not share the cache.
#
# ## "A KV cache six times smaller"
#
# That is what the Zamba2 report claims, as reported from
# [arXiv:2411.15242](https://arxiv.org/abs/2411.15242). It is a count of layers. But the shared
# attention works on the stream and the embeddings side by side, so its keys and values are $2d$
# wide. Against attention of width $d$ in all $L$ layers, $U$ uses keep
#
# $$\frac{L \cdot 2 \cdot d}{U \cdot 2 \cdot 2d} = \frac{L}{2U}$$
#
# times fewer bytes.

# %%
rows = []
for model in hybrids[1:]:
    uses, d = sum(model.pattern.count(x) for x in "AB"), model.letters["m"][0][1].d_model
    kv = model.state_bytes("kv", s=1)  # bf16: two bytes for each element
    everywhere = len(model.pattern) * 2 * d * 2  # keys and values, two bytes each
    rows.append(
        {
            "model": model.name,
            "layers / uses": f"{len(model.pattern) / uses:.2f}",
            "KV bytes a token": kv,
            "width d in all layers": everywhere,
            "ratio in bytes": f"{everywhere / kv:.2f}",
        }
    )
    assert kv == uses * 2 * 2 * d * 2 and everywhere / kv == len(model.pattern) / (2 * uses)
assert [row["ratio in bytes"] for row in rows] == ["2.92", "3.17", "3.00", "3.12"]
table(rows)

# %% [markdown]
# And few transformers of this size still keep a head of keys for every head of queries. Beside
# grouped queries (GQA), the picture turns:

# %%
others = (
    "mistral-7b-v0.1",
    "llama-3.1-8b",
    "phi-3-mini-4k",
    "llama-2-7b",
    "nemotron-h-8b",
    "bamba-9b",
)
models = sorted([*hybrids[1:], *map(preset, others)], key=lambda m: m.state_bytes("kv", s=1))
bytes_per_token = {m.name: m.state_bytes("kv", s=1) for m in models}
fig, ax = plt.subplots(figsize=(5.8, 3.7))
for i, m in enumerate(models):
    shared, ssm = "A" in m.pattern, any(k in m.pattern for k in "mM")
    color = plots.COLORS[0] if shared else plots.COLORS[2] if ssm else plots.COLORS[1]
    ax.barh(i, bytes_per_token[m.name] / 1024, color=color)
    ax.text(
        bytes_per_token[m.name] / 1024 + 5, i, f"{bytes_per_token[m.name] / 1024:.0f}", va="center"
    )
ax.set_yticks(range(len(models)), [m.name for m in models])
for k, label in enumerate(("shared attention", "transformer", "hybrid with GQA")):
    ax.bar(0, 0, color=plots.COLORS[k], label=label)
ax.set(xlabel="KV cache for each token of context (KiB, bf16)", xlim=(0, 570))
ax.grid(axis="y", visible=False)
ax.legend(loc="lower right")
plots.show(
    fig, "KV bytes a token: Zamba-7B needs more than a GQA transformer, hybrids with GQA least"
)

# %%
more = bytes_per_token["Zamba-7B-v1"] / bytes_per_token["Mistral-7B-v0.1"]
print(f"Zamba-7B keeps {more:.2f} times what Mistral-7B keeps for a token")
assert bytes_per_token["Mistral-7B-v0.1"] == 32 * 2 * 8 * 128 * 2  # layers, k and v, heads, width
assert bytes_per_token["Zamba-7B-v1"] == 13 * 2 * 7424 * 2 and 2.9 < more < 3

# %% [markdown]
# (Mistral's published window stops the growth of its cache after 4096 tokens; the bar is what a
# token adds before that.) Hybrids that keep attention narrow, with a few GQA layers of their own,
# have the smallest caches here.
#
# ## Where state beats cache
#
# Beside the KV cache every Mamba layer keeps its convolution and SSM state. It is the same at every
# context, and for short ones it is the larger part. At which context does the cache overtake that
# state (kept in float32 as `transformers` does, or in bf16), and at which the weights? The first
# does not depend on the batch, since every sequence has both. The second does: all sequences share
# the weights. (The [counting conventions](../docs/conventions.md) say what is kept in which dtype.)

# %%
rows = []
for model in hybrids[1:]:
    kv, weights = model.state_bytes("kv", s=1), 2 * model.params()
    conv, ssm = model.state_bytes("conv"), model.state_bytes("ssm")
    crossing = {
        "state at": (conv + ssm) / kv,
        "in bf16 at": (conv + ssm / 2) / kv,
        "weights at, batch 1": weights / kv,
        "batch 8": weights / (8 * kv),
    }
    tokens_from = {name: int(s) + 1 for name, s in crossing.items()}
    s = tokens_from["state at"]
    assert model.state_bytes("kv", s=s) > conv + ssm >= model.state_bytes("kv", s=s - 1)
    s = tokens_from["batch 8"]
    assert model.state_bytes("kv", b=8, s=s) > weights >= model.state_bytes("kv", b=8, s=s - 1)
    row = {"model": model.name, "state, MiB": round((conv + ssm) / 2**20, 1)}
    rows.append(row | {"weights, GiB": f"{weights / 2**30:.2f}"} | tokens_from)
table(rows)

# %%
TICKS = [64, 256, 1024, 4096, 16384, 65536]
SIZES = {2**k: f"{2**k} GiB" if k >= 0 else f"{2 ** (10 + k)} MiB" for k in range(-6, 9, 2)}


def axes(title):
    """Memory against context, in powers of four."""
    fig, ax = plt.subplots(figsize=(6, 3.7))
    ax.set(xscale="log", yscale="log", xlabel="context (tokens)", title=title)
    ax.set_xticks(TICKS, ["64", "256", "1k", "4k", "16k", "64k"], minor=False)
    ax.set_yticks(list(SIZES), SIZES.values())
    ax.minorticks_off()
    return fig, ax


context = [2**k for k in range(6, 18)]
fig, ax = axes("Zamba2-2.7B in memory")
weights, state = 2 * medium.params(), medium.state_bytes(s=1) - medium.state_bytes("kv", s=1)
ax.axhline(weights / 2**30, color=plots.COLORS[2])
ax.text(64, weights / 2**30, "weights", va="bottom")
for b, style in ((1, "-"), (8, "--")):
    cache = [medium.state_bytes("kv", b=b, s=s) / 2**30 for s in context]
    ax.plot(context, cache, style, color=plots.COLORS[0])
    ax.annotate(f"KV, batch {b}", (context[-1], cache[-1]), (5, -4), textcoords="offset points")
    ax.axhline(b * state / 2**30, ls=style, color=plots.COLORS[1])
    ax.text(2**19.2, b * state / 2**30, f"state, batch {b}", va="bottom", ha="right")
    for level in (b * state, weights):
        at = level / medium.state_bytes("kv", b=b, s=1)
        ax.plot(at, level / 2**30, "o", color=plots.INK)
        place = {"xytext": (5, -12), "textcoords": "offset points"}
        ax.annotate(f"{int(at) + 1:,}", (at, level / 2**30), **place)
ax.set_xlim(50, 2**19.4)
plots.show(
    fig, "The KV cache of Zamba2-2.7B overtakes its state early, its weights at long context"
)

# %% [markdown]
# Below the first crossing most of what a conversation keeps is state, and shorter prompts save
# nothing. Beyond the second, the cache is the larger part of what the device holds.
#
# ## Change the string
#
# The string is the design. Zamba2-2.7B spaces its uses by hand, not evenly. Does that change what
# it costs? And what would more or no attention do?

# %%
strings = {
    "none": "m" * 54,
    "as published": medium.pattern,
    "every sixth": ("mmmmmA" + "mmmmmB") * 4 + "mmmmmA",
    "every third": "mmAmmB" * 9,
    "every layer": "AB" * 27,
}
variants = {name: medium.but(pattern=pattern) for name, pattern in strings.items()}
every_sixth, published = variants["every sixth"], variants["as published"]
assert every_sixth.params() == published.params() == 2_662_214_560
assert every_sixth.flops(l=4096) == published.flops(l=4096)
none, every = variants["none"], variants["every layer"]
assert none.state_bytes("kv", s=4096) == 0 and every.params() < 1.5 * none.params()
assert every.params_used() > 5 * none.params_used()
table(
    [
        {
            "attention": name,
            "uses": len(model.pattern) - model.pattern.count("m"),
            "stored, M": round(model.params() / 1e6),
            "used, M": round(model.params_used() / 1e6),
            "GFLOP a token at 4k": f"{model.flops(l=4096, attention='causal') / 4096e9:.2f}",
            "cache at 4k, MiB": round(model.state_bytes(s=4096) / 2**20),
            "cache at 128k, GiB": f"{model.state_bytes(s=131072) / 2**30:.2f}",
        }
        for name, model in variants.items()
    ]
)

# %%
fig, ax = axes("Cache of one sequence, for attention in …")
for name in ("none", "every sixth", "every third", "every layer"):
    gib = [variants[name].state_bytes(s=s) / 2**30 for s in context]
    ax.plot(context, gib, "o-")
    ax.annotate(name, (context[-1], gib[-1]), (5, -4), textcoords="offset points")
gqa = [bytes_per_token["Mistral-7B-v0.1"] * s / 2**30 for s in context]
ax.plot(context, gqa, ":", color=plots.INK)
place = {"xytext": (8, -12), "textcoords": "offset points"}
ax.annotate("Mistral's shape, no window", (context[6], gqa[6]), **place)
ax.set_xlim(50, 2**19.8)
plots.show(fig, "Cache against context: attention in every sixth layer keeps more than a GQA model")

# %% [markdown]
# Order costs nothing: only quality depends on it. From no attention to all layers the stored
# parameters grow by less than half; what a token uses and computes grows more than fivefold, and
# the cache at long context by orders of magnitude. That is the trade of a shared block: cheap to
# store, not cheap to use. And where the width of the cache counts, few KV heads help more than few
# uses: the dotted line belongs to a model with attention in every layer.
#
# ## Exercises
#
# **1.** A device has 24 GB. Zamba2-2.7B is to serve eight sequences of 32,768 tokens each, with
# weights and cache in bf16. How many uses of the shared blocks fit?


# %% tags=["answer"]
def with_uses(n):
    """Zamba2-2.7B with n uses, at the end of the string: only their number matters here."""
    return medium.but(pattern="m" * (54 - n) + ("AB" * n)[:n])


def needs(n):
    return 2 * with_uses(n).params() + with_uses(n).state_bytes(b=8, s=32768)


most = max(n for n in range(55) if needs(n) <= 24e9)
print(f"{most} uses take {needs(most) / 1e9:.1f} GB, the published 9 take {needs(9) / 1e9:.1f} GB")
assert needs(most) <= 24e9 < needs(most + 1) and most < 9

# %% [markdown]
# **2.** Give Zamba-7B's shared attention fewer KV heads than its 16, until a token adds less than
# in Mistral-7B. How many remain, and what does it do to the FLOPs of decoding after 32k tokens?


# %% tags=["answer"]
def with_kv_heads(model, n):
    layers = (
        (k, tuple((x, b.but(n_kv_heads=n) if b.component == "attention" else b) for x, b in layout))
        for k, layout in model.layers
    )
    return model.but(layers=tuple(layers))


enough = [n for n in (1, 2, 4, 8, 16) if with_kv_heads(zamba, n).state_bytes("kv", s=1) < 131_072]
fewer = with_kv_heads(zamba, max(enough))
before, after = zamba.flops(l=1, s=32768), fewer.flops(l=1, s=32768)
print(f"{max(enough)} heads: {fewer.state_bytes('kv', s=1):,} bytes a token, 131,072 in Mistral")
print(f"decoding {before / 1e9:.1f} -> {after / 1e9:.1f} GFLOP: only the projections shrink")
scores = [sum(r.flops for r in m.costs(l=1, s=32768) if r.op == "scores") for m in (zamba, fewer)]
assert max(enough) == 4 and scores[0] == scores[1] and after < before

# %% [markdown]
# **3.** The Zamba paper is quoted with 80 layers and 13 uses
# ([arXiv:2405.16712](https://arxiv.org/abs/2405.16712), as reported); the released configuration
# has 76 layers. How many parameters does each make?

# %% tags=["answer"]
eighty = zamba.but(pattern=zamba.pattern + "m" * 4)
print(f"76 layers: {zamba.params():,} parameters; 80 layers: {eighty.params():,}")
assert zamba.pattern.count("A") == eighty.pattern.count("A") == 13
assert zamba.params() == 7_232_490_496  # transformers' ZambaForCausalLM from the released config
assert round(eighty.params() / 1e9, 4) == 7.5786

# %% [markdown]
# **4.** What would a token of BlackMamba-2.8B cost if all eight experts ran? Compare with
# $2 \cdot$ stored parameters.

# %% tags=["answer"]
layers = (
    (k, tuple((name, b.but(topk=8) if b.component == "moe" else b) for name, b in layout))
    for k, layout in blackmamba.layers
)
dense = blackmamba.but(layers=tuple(layers))
print(
    f"{dense.flops(l=1) / 1e9:.2f} GFLOP, {dense.flops(l=1) / blackmamba.flops(l=1):.2f} times;",
    end=" ",
)
print(f"2 · stored is {2 * blackmamba.params() / 1e9:.2f}")
assert 1 < dense.flops(l=1) / (2 * blackmamba.params()) < 1.01

# %% [markdown]
# ## Find the bug
#
# **A.** `calc/calc_mamba_params.py` of [zcookbook](https://github.com/Zyphra/zcookbook) (at
# `ec06304`) knows Zamba's shared block as "global memory". Its attention terms are exact, it knows
# that the block reads $2d$ numbers and that its MLP is gated and not shrunk, and its Mamba-1 layer
# is right except for the norm. Below are its terms with the sizes of Zamba-7B and one projection
# every six layers. Which are wrong?

# %%
mamba = dict(zamba.layer(0))["model.layers.0.mamba"]
d, I, N, R, L = zamba.letters["m"][0][1].d_model, mamba.d_inner, mamba.d_state, mamba.rank, 76
stored = {row["component"]: row["params"] for row in grouped(zamba.rows(Run()), "component")}
terms = {
    "embedding": (d * 32000, stored["embedding"]),
    "Mamba layers": (L * (3 * d * I + 5 * I + 3 * N * I + 2 * R * I + I + I), stored["mamba"]),
    "norms": (L * 2 * d, stored["norm"]),
    "shared attention": (3 * (2 * d) ** 2 + 2 * d**2, stored["attention"]),
    "shared MLP": (12 * d, stored["mlp"]),
    "projections": (L // 6 * d * d, stored["linear"]),
}
rows = [{"term": k, "theirs": a, "the rows": b, "difference": a - b} for k, (a, b) in terms.items()]
theirs, ours = (sum(pair[i] for pair in terms.values()) for i in (0, 1))
table([*rows, {"term": "all", "theirs": theirs, "the rows": ours, "difference": theirs - ours}])

# %% tags=["answer"]
print(f"the MLP has 12 · d² parameters, not 12 · d: {12 * d * d:,} and not {12 * d:,}")
print(f"and the 13 uses are not 76 // 6 = {76 // 6}: the first three layers are set apart")
print(f"total {theirs / 1e9:.2f} B instead of {ours / 1e9:.2f} B: an error of a power hides well")
assert 12 * d * d == stored["mlp"] and 13 * d * d == stored["linear"]
assert terms["shared attention"][0] == terms["shared attention"][1]
assert ours == zamba.params() and round(theirs / 1e9, 2) == 7.05

# %% [markdown]
# **B.** [Megatron-LM](https://github.com/NVIDIA/Megatron-LM) counts the FLOPs of hybrid training
# in `megatron/training/training.py` (at `d98e8a64dd`). Its function for a Mamba layer has the three
# large terms, with groups and heads, and it says in a comment that the scan is an estimate. The
# inner width is `d_in = 2 * hidden_size`, which is right for most models.
# Nemotron-3-Nano has 2688 channels and 64 heads of 64, 8 groups and a state of 128. What is the
# count off by?


# %%
def megatron(d, d_in, N, G, H):
    """Forward FLOPs of a Mamba layer for one token: in_proj, scan, out_proj."""
    return 2 * d * (2 * d_in + 2 * G * N + H) + 7 * d_in * N + 2 * d_in * d


nemotron = Mamba2(d_model=2688, d_ssm=64 * 64, headdim=64, ngroups=8, d_state=128)
print(f"theirs {megatron(2688, 2 * 2688, 128, 8, 64) / 1e6:.1f} MFLOP,", end=" ")
print(f"the rows {nemotron.flops(l=1) / 1e6:.1f} MFLOP")

# %% tags=["answer"]
right = megatron(2688, nemotron.d_inner, 128, 8, 64)
ratio = megatron(2688, 2 * 2688, 128, 8, 64) / right
print(f"the inner width is heads · head size = {nemotron.d_inner}, not 2 · d_model = {2 * 2688}")
print(f"in_proj is then {nemotron.d_in_proj} wide, and the layer is counted {ratio:.3f} times")
error = right / nemotron.flops(l=1) - 1
print(f"with the right width their estimate is within {error:.1%} of the rows")
assert nemotron.d_in_proj == 10304  # rows of in_proj in the published model
assert round(ratio, 3) == 1.269 and abs(error) < 0.015
