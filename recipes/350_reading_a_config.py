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
# # From a config.json to a model
#
# **Goal.** Read a published `config.json` and say what each field decides; get the same model from
# every spelling of the same file; and have a wrong file refused instead of counted.
# **Needs** a CPU and about fifteen seconds.
#
# Someone hands you a checkpoint and asks: how large, how fast, how much memory? All that you need
# is in one small file. It is also where calculators go wrong most often, because a field that a
# reader does not know has a value all the same.

# %%
import json
import subprocess
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill

import matplotlib.pyplot as plt
import torch

from cookbook_lib import plots
from cookbook_lib.calculators.configs import READERS, from_dict, read_config
from cookbook_lib.calculators.presets import entry, names, preset
from cookbook_lib.calculators.specs import Mamba1
from cookbook_lib.commands.models import short
from cookbook_lib.plots import table

plots.use()
with warnings.catch_warnings(action="ignore"):  # no notices about progress bars,
    from transformers import AutoConfig, AutoModelForCausalLM, Zamba2Config, logging
logging.set_verbosity_error()  # nor about kernels that a CPU does not have

config = entry("zamba2-2.7b")["config"]
kinds = config["layers_block_type"]
summary = f"{len(kinds)} names: {', '.join(kinds[:3])}, …, {kinds.count('hybrid')} of them hybrid"
print(json.dumps(config | {"layers_block_type": summary}, indent=2, ensure_ascii=False))

# %% [markdown]
# ## Run: what does each field decide?
#
# This is Zamba2-2.7B, the model of [the last chapter](340_hybrid_costs.py). One way to learn what a
# field means is to change it and see what moves. Each row below changes one field and reads the
# file again.

# %%
model = from_dict(config, "Zamba2-2.7B")
shorter = kinds[:-6]  # without one hybrid and five Mamba layers
fewer = ["mamba" if i == 51 else kind for i, kind in enumerate(kinds)]
changes = {
    "hidden_size": {"hidden_size": 5120},
    "num_hidden_layers": {"num_hidden_layers": len(shorter), "layers_block_type": shorter},
    "layers_block_type": {"layers_block_type": fewer},
    "n_mamba_heads": {"n_mamba_heads": 40},
    "mamba_d_state": {"mamba_d_state": 128},
    "mamba_ngroups": {"mamba_ngroups": 8},
    "num_attention_heads": {"num_attention_heads": 16, "num_key_value_heads": 16},
    "num_key_value_heads": {"num_key_value_heads": 8},
    "intermediate_size": {"intermediate_size": 5120},
    "num_mem_blocks": {"num_mem_blocks": 1},
    "adapter_rank": {"adapter_rank": 64},
    "use_mem_rope": {"use_mem_rope": True},
    "use_shared_attention_adapter": {"use_shared_attention_adapter": True},
    "vocab_size": {"vocab_size": 64000},
    "chunk_size (absent)": {"chunk_size": 128},
    "mamba_expand (absent)": {"mamba_expand": 4},
    "rms_norm_eps (absent)": {"rms_norm_eps": 1e-6},
}


def measure(m):
    return {
        "parameters, M": m.params() / 1e6,
        "used, M": m.params_used() / 1e6,
        "MFLOP a token": m.flops(l=4096) / 4096e6,
        "KV bytes a token": m.state_bytes("kv", s=1),
        "state, MiB": (m.state_bytes() - m.state_bytes("kv")) / 2**20,
    }


def number(value, sign=""):
    return f"{value:{sign},.2f}".rstrip("0").rstrip(".")


rows, before = [], measure(model)
rows.append({"field": "as published", "now": ""} | {k: number(v) for k, v in before.items()})
for field, change in changes.items():
    after = measure(from_dict(config | change, field))
    moved = {k: number(after[k] - before[k], "+") if after[k] != before[k] else "" for k in before}
    now = change[field.partition(" ")[0]]
    rows.append(
        {"field": field, "now": f"{len(now)} names" if isinstance(now, list) else now} | moved
    )
silent = [row["field"] for row in rows[1:] if not any(row[k] for k in before)]
assert silent == ["num_attention_heads", "use_mem_rope", "rms_norm_eps (absent)"]
table(rows)

# %% [markdown]
# Read it row by row. `num_mem_blocks` changes what is stored and not what is used. The cache is in
# the hands of the hybrid layers and of `num_key_value_heads`. `chunk_size` changes FLOPs and
# nothing else. The number of attention heads, the rotary embedding and the epsilon of a norm change
# no count at all: half as many heads are twice as wide.
#
# ## The path of one field
#
# Nothing above knows Zamba2 twice. A reader turns the file into specs, once, and each spec is a
# list of einsums over its own fields. Follow `mamba_d_state`: it becomes the field `d_state` of a
# `Mamba2`, and from there it reaches every row in which that axis, or a width made of it, appears.

# %%
layer = dict(model.layer(0))["model.layers.0.mamba"]
wider = dict(from_dict(config | changes["mamba_d_state"], "wider").layer(0))["model.layers.0.mamba"]
print(fill(str(layer), 76))
pairs = list(zip(layer.costs(l=4096), wider.costs(l=4096), strict=True))
moved = [(a, b) for a, b in pairs if (a.params, a.flops) != (b.params, b.flops)]
assert wider == layer.but(d_state=128)
assert {a.op for a, _ in moved} >= {"in_proj.weight", "conv1d.weight", "scores", "chunk_state"}
assert "out_proj.weight" not in {a.op for a, _ in moved}
table(
    [
        {
            "row": a.op,
            "FLOPs in symbols": a.formula.replace(" ", " · "),
            "parameters": a.params,
            "with d_state 128": b.params,
            "MFLOP": round(a.flops / 1e6),
            "then": round(b.flops / 1e6),
        }
        for a, b in moved
    ]
)

# %% [markdown]
# ## Three files, one model
#
# The same model comes in several spellings. `transformers` can save every field, or only those that
# differ from the defaults of the class: such a file does not say that there are 54 layers. And
# files from before Zamba2 was part of `transformers` use other names. A reader has to know the
# defaults and the names, or it counts another model.

# %%
scratch = TemporaryDirectory()
folder = Path(scratch.name)
everything = Zamba2Config(**config).to_dict()
default = Zamba2Config().to_dict()
old = {
    "num_hidden_layers": 54,
    "hidden_size": 2560,
    "hybrid_layer_ids": [i for i, kind in enumerate(kinds) if kind == "hybrid"],
    "state_size": 64,
    "mamba_headdim": 64,
    "expansion_factor": 2,
    "conv_dimension": 4,
    "num_attention_heads": 32,
    "attention_hidden_size": 5120,
    "ffn_hidden_size": 10240,
    "num_mem_blocks": 2,
    "use_shared_block_lora": True,
    "use_shared_attention_lora": False,
    "lora_rank": 128,
    "vocab_size": 32000,
}
files = {
    "every field": everything,
    "without defaults": {k: v for k, v in everything.items() if v != default.get(k)},
    "old names": old,
}
rows = []
for name, fields in files.items():
    path = folder / name.replace(" ", "-") / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"model_type": "zamba2"} | fields))
    again = read_config(path.parent)
    rows.append(
        {
            "file": name,
            "fields": len(fields),
            "says d_state as": next(
                (k for k in ("mamba_d_state", "state_size") if k in fields), "-"
            ),
            "parameters": again.params(),
            "every weight the same": again.weights() == model.weights(),
            "every state the same": again.states(s=4096) == model.states(s=4096),
        }
    )
    assert again.weights() == model.weights() and again.states(s=4096) == model.states(s=4096)
print("without defaults:", json.dumps(files["without defaults"]))
table(rows)

# %% [markdown]
# ## How other families say their layers
#
# What is hybrid about a model is in one or two fields, and each family has its own way to say it: a
# list of names, a period and an offset, a string of letters, or nothing at all. The pattern is the
# same thing in one notation. The cell also builds each file with `transformers`, and compares every
# parameter by name and size.

# %%
SAYS = {
    "llama-3.1-8b": ("num_hidden_layers",),
    "mistral-7b-v0.1": ("num_hidden_layers", "sliding_window"),
    "jamba-v0.1": (),
    "nemotron-h-8b": ("hybrid_override_pattern",),
    "zamba-7b-v1": (),
    "zamba2-1.2b": ("layers_block_type",),
}
rows = []
for name, fields in SAYS.items():
    ours, given = preset(name), dict(entry(name)["config"])
    family = given.pop("model_type")
    with torch.device("meta"):  # shapes without memory
        built = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **given))
    theirs = {name: p.numel() for name, p in built.named_parameters()}
    assert theirs == ours.weights()
    said = [f"{k} {given[k]}" if not isinstance(given[k], list) else f"{k} […]" for k in fields]
    rows.append(
        {
            "model": ours.name,
            "its file says": "; ".join(said).replace("hybrid_override_pattern", "pattern")
            or "nothing: the class's defaults",
            "pattern": min(short(ours.pattern), ours.pattern, key=len),
            "parameters": sum(theirs.values()),
            "same as transformers": theirs == ours.weights(),
        }
    )
table(rows)

# %% [markdown]
# Jamba and Nemotron-H also come with the layers spelled out. Both spellings must give one model.

# %%
jamba, nemotron = preset("jamba-v0.1"), preset("nemotron-h-8b")
listed = ["attention" if i % 8 == 4 else "mamba" for i in range(32)]
period = {"model_type": "jamba", "attn_layer_period": 8, "attn_layer_offset": 4}
as_list = {"model_type": "jamba", "layers_block_type": listed}
assert from_dict(period, "jamba").weights() == from_dict(as_list, "jamba").weights()
assert from_dict(as_list, "jamba").weights() == jamba.weights()

words = {"M": "mamba", "-": "mlp", "*": "attention"}
named = dict(entry("nemotron-h-8b")["config"])
named["layers_block_type"] = [words[x] for x in named.pop("hybrid_override_pattern")]
assert from_dict(named, "nemotron").weights() == nemotron.weights()
print("Jamba from a period or a list, Nemotron-H from letters or names: the same weights")
print("Nemotron-H's letters:", "; ".join(f"{k}: {v}" for k, v in nemotron.legend().items()))

# %% [markdown]
# Two formats have no `model_type`: that of `mamba_ssm`, and BlackMamba's own. They are known by
# their fields. The weights of Mamba-2 are the same in both worlds. The state is not, since
# `mamba_ssm` keeps it in the dtype of the weights and `transformers` in float32.

# %%
native = {
    "d_model": 2560,
    "n_layer": 64,
    "vocab_size": 50277,
    "pad_vocab_size_multiple": 16,
    "ssm_cfg": {"layer": "Mamba2"},
}
ours, hub = from_dict(native, "native"), preset("mamba2-2.7b")
print(f"native {ours.params():,} parameters, hub {hub.params():,}")
print(f"SSM state: native {ours.state_bytes('ssm'):,} bytes, hub {hub.state_bytes('ssm'):,}")
assert ours.params() == hub.params() == 2_702_599_680
assert 2 * ours.state_bytes("ssm") == hub.state_bytes("ssm")

# %% [markdown]
# ## Wrong files
#
# A silent wrong number costs more than an error. Each of these gets one line that names the file,
# the field, the value and what is supported (wrapped below to fit the page).

# %%
wrong = {
    "a family that is not known": {"model_type": "mamba3"},
    "heads that do not divide the width": config | {"n_mamba_heads": 96},
    "a negative width": config | {"hidden_size": -2560},
    "a list that is too short": config | {"layers_block_type": kinds[:-1]},
    "a layer that no one knows": config | {"layers_block_type": [*kinds[:-1], "rwkv"]},
    "a number in words": config | {"vocab_size": "32k"},
    "not a number": config | {"mamba_d_state": float("nan")},
    "more experts for a token than there are": {
        "model_type": "mixtral",
        "num_local_experts": 8,
        "num_experts_per_tok": 9,
    },
    "a missing field": {"d_model": 2560, "n_layer": 64, "attn_layer_idx": [9], "attn_cfg": {}},
}
for what, fields in wrong.items():
    try:
        from_dict(fields, "config.json")
    except ValueError as error:
        assert "\n" not in str(error) and str(error).startswith("config.json: ")
        print(
            f"{what}:", fill(str(error), 76, initial_indent="  ", subsequent_indent="  "), sep="\n"
        )
    else:
        raise AssertionError(f"{what} was read as if it were right")

# %% [markdown]
# ## The command line
#
# `cookbook` (or `python -m cookbook_lib`) does all of this without Python. It takes a preset's
# name, a `config.json`, or the folder that holds one.


# %%
def cookbook(*args):
    """What `cookbook …` prints and how it ends, run where the files from above are."""
    command = [sys.executable, "-m", "cookbook_lib", *args]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    print("$ cookbook", *args)
    print(done.stdout + done.stderr + f"(exit code {done.returncode})\n")
    return done


shown = cookbook("cost", "old-names", "--tokens", "4096", "--context", "131072")
assert shown.returncode == 0 and f"{model.params():,}" in shown.stdout

# %% [markdown]
# A program asks for `--json`; a user's mistake is one line and exit code 2.

# %%
command = [sys.executable, "-m", "cookbook_lib", "cost", "zamba2-2.7b", "--json"]
report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
for key in ("params", "params_used_per_token", "flops_per_token", "cache_bytes"):
    print(f"{key:>21}  {report[key]:,.0f}")
assert report["params"] == model.params() and report["flops"] == model.flops(l=4096)
assert report["cache_bytes"] == model.state_bytes(s=4096)

(folder / "broken.json").write_text('{"model_type": "zamba2", "adapter_rank": 0}')
for mistake in ("zamba2-2.8b", "broken.json"):
    assert cookbook("cost", mistake).returncode == 2
scratch.cleanup()

# %% [markdown]
# ## All presets
#
# Every model of this book, from its own file: what it stores, what a token runs with, and what a
# conversation keeps. FLOPs are forward, with causal attention over 4096 tokens.

# %%
presets = [preset(name) for name in names()]
table(
    [
        {
            "model": m.name,
            "layers": len(m.pattern),
            "stored, M": round(m.params() / 1e6),
            "active, M": round(m.params_active() / 1e6),
            "used, M": round(m.params_used() / 1e6),
            "GFLOP a token": f"{m.flops(l=4096, attention='causal') / 4096e9:.2f}",
            "cache at 4k, MiB": f"{m.state_bytes(s=4096) / 2**20:,.1f}",
            "cache at 128k, MiB": f"{m.state_bytes(s=131072) / 2**20:,.1f}",
        }
        for m in presets
    ]
)

# %% [markdown]
# Which of them hold a long conversation in less memory than their own weights? Those whose filled
# dot lies left of the square.

# %%
large = sorted((m for m in presets if m.params() > 1e9), key=lambda m: m.state_bytes(s=131072))
fig, ax = plt.subplots(figsize=(6, 5.6))
for i, m in enumerate(large):
    short_mib, long_mib = (m.state_bytes(s=s) / 2**20 for s in (4096, 131072))
    ax.plot([short_mib, long_mib], [i, i], color=plots.COLORS[0], lw=1.5)
    ax.plot(short_mib, i, "o", color=plots.COLORS[0], mfc=plots.PAPER, ms=5)
    ax.plot(long_mib, i, "o", color=plots.COLORS[0], ms=5)
    ax.plot(2 * m.params() / 2**20, i, "s", color=plots.COLORS[1], ms=5)
ax.plot([], [], "o", color=plots.COLORS[0], mfc=plots.PAPER, label="cache at 4k tokens")
ax.plot([], [], "o", color=plots.COLORS[0], label="cache at 128k tokens")
ax.plot([], [], "s", color=plots.COLORS[1], label="weights")
ax.set(xscale="log", xlabel="memory in bf16, one sequence", ylim=(-0.8, len(large) + 3))
ax.set_xticks([1, 16, 256, 4096, 65536], ["1 MiB", "16 MiB", "256 MiB", "4 GiB", "64 GiB"])
ax.set_yticks(range(len(large)), [m.name for m in large])
ax.minorticks_off()
ax.legend(loc="upper left", ncols=2)
plots.show(fig, "Cache and weights of the presets: pure SSMs stay flat, MHA outgrows its weights")

# %%
outgrown = [m.name for m in large if m.state_bytes(s=131072) > 2 * m.params()]
flat = [m.name for m in large if m.state_bytes(s=131072) == m.state_bytes(s=4096)]
print(fill("cache above the weights at 128k: " + ", ".join(outgrown), 76))
print(fill("the same cache at 4k and 128k: " + ", ".join(flat), 76))
assert {"Llama-2-7B", "Zamba2-2.7B"} <= set(outgrown) and "mamba-2.8b" in flat
assert "Jamba-v0.1" not in outgrown  # 52 billion parameters, four attention layers

# %% [markdown]
# (Mistral and Phi-3 are flat from 4k on for another reason: a sliding window. They forget.)
#
# ## Against published totals
#
# Few publish a count to the last digit. [KerasHub](https://github.com/keras-team/keras-hub) does,
# for its own implementations (`params` in the preset files), and the header of a checkpoint does.

# %%
PUBLISHED = {
    "llama-2-7b": (6_738_415_616, "KerasHub"),
    "llama-3.1-8b": (8_030_261_248, "KerasHub (llama3_8b_en, the same shape)"),
    "mistral-7b-v0.1": (7_241_732_096, "KerasHub"),
    "mixtral-8x7b-v0.1": (46_702_792_704, "KerasHub"),
    "phi-3-mini-4k": (3_821_079_552, "KerasHub"),
    "zamba2-1.2b": (1_215_064_704, "header of the checkpoint, as reported"),
}
rows = []
for name, (total, where) in PUBLISHED.items():
    count = preset(name).params()
    assert count == total
    rows.append({"model": preset(name).name, "ours": count, "published": total, "by": where})
table(rows)

# %% [markdown]
# ## Exercises
#
# **1.** Write a `config.json` for a Zamba2 with half the width of the 2.7B, one shared block and
# grouped queries with four KV heads. Keep the heads of the scan 64 wide. How many parameters does
# it have, and how many KV bytes a token?

# %% tags=["answer"]
half = config | {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "n_mamba_heads": 40,
    "num_mem_blocks": 1,
    "num_key_value_heads": 4,
}
small = from_dict(half, "half")
print(f"{small.params():,} parameters, {small.state_bytes('kv', s=1):,} KV bytes a token")
with torch.device("meta"):
    built = AutoModelForCausalLM.from_config(Zamba2Config(**half))
assert small.params() == sum(p.numel() for p in built.parameters())
assert small.state_bytes("kv", s=1) == 9 * 2 * 4 * (2 * 1280 // 32) * 2

# %% [markdown]
# **2.** The 1.2B is saved without defaults. Which of its fields does the file leave out? And which
# of those would a reader get wrong that fills every gap with the value of Zamba2-2.7B?

# %% tags=["answer"]
fields = entry("zamba2-1.2b")["config"]
left_out = sorted(k for k, v in fields.items() if k != "model_type" and default[k] == v)
print("left out, because the 1.2B has the default:", ", ".join(left_out))
others = [k for k in left_out if config[k] != fields[k]]
print("where the 2.7B has another value:", ", ".join(others))
assert "num_mem_blocks" in others and "vocab_size" in left_out

# %% [markdown]
# **3.** Turn Mistral-7B into a hybrid: keep every eighth of its layers as attention without a
# window and make the others Mamba-1 of Jamba's kind. Jamba's own file is closer to that than
# Mistral's. Which fields do you set, and what is the cache at 128k tokens?

# %% tags=["answer"]
hybrid = from_dict(
    {
        "model_type": "jamba",
        "num_experts": 1,
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "attn_layer_period": 8,
        "attn_layer_offset": 4,
    },
    "hybrid Mistral",
)
full = from_dict(entry("mistral-7b-v0.1")["config"] | {"sliding_window": None}, "no window")
print(short(hybrid.pattern), f"{hybrid.params():,} parameters")
for m in (full, hybrid):
    print(f"{m.name}: {m.state_bytes(s=131072) / 2**30:.2f} GiB at 128k tokens")
assert hybrid.pattern.count("a") == 4
assert full.state_bytes("kv", s=131072) == 8 * hybrid.state_bytes("kv", s=131072)

# %% [markdown]
# ## Find the bug
#
# **A.** `calc/calc_transformer_mem.py` of [EleutherAI's
# cookbook](https://github.com/EleutherAI/cookbook) (at `827ee3b`) reads a model from the hub, which
# few calculators do, and its formula for a classic transformer is sound: it is right to a fraction
# of a percent for Pythia. Below is how it fills in its arguments from a configuration, and what it
# counts. Give it Mamba-130m. What went wrong, and where should it have stopped?


# %%
def eleuther(fields):
    """Parameters, and bytes of activations in training at batch 1, as that script counts them."""
    d, L = fields["hidden_size"], fields["num_hidden_layers"]
    heads = fields.get("num_attention_heads", 64)
    length = fields.get("max_position_embeddings", 2048)
    ratio, linears, vocab = fields.get("intermediate_size", d) / d, 2, fields["vocab_size"]
    embedding, norms = 2 * vocab * d + length * d, 8 * d * L + 2 * d
    params = embedding + norms + 4 * L * d * d + linears * L * ratio * d * d
    return int(params), length * d * L * (34 + 5 * heads * length / d)


rows = []
for name in ("pythia-1.4b", "mamba-130m", "llama-3.1-8b"):
    given = dict(entry(name)["config"])
    read = AutoConfig.for_model(given.pop("model_type"), **given).to_dict()
    if name.startswith("llama"):
        read["max_position_embeddings"] = 8192  # Llama-3-8B: the same shape
    theirs, activations = eleuther(read)
    ours = preset(name).params()
    row = {
        "model": preset(name).name,
        "theirs, M": f"{theirs / 1e6:.1f}",
        "ours, M": f"{ours / 1e6:.1f}",
    }
    row |= {"theirs / ours": f"{theirs / ours:.3f}"}
    rows.append(row | {"their activations, GiB": f"{activations / 2**30:.1f}"})
table(rows)

# %% tags=["answer"]
given = dict(entry("mamba-130m")["config"])
read = AutoConfig.for_model(given.pop("model_type"), **given).to_dict()
print("Mamba has no num_attention_heads:", "num_attention_heads" not in read)
print("so 64 heads are made up, with an attention matrix each: that is where the memory goes")
print(f"and intermediate_size ({read['intermediate_size']}) is the inner width, not an MLP's")
print("Llama's MLP has three matrices and its keys fewer heads; neither field is looked at")
print(f"a reader has to stop at model_type; this book's knows {len(READERS)} of them")
assert round(eleuther(read)[0] / 1e6, 1) == 192.2 and round(eleuther(read)[1] / 2**30, 1) == 31.2
assert preset("mamba-130m").params() == 129_135_360

# %% [markdown]
# **B.** [mlsysim](https://pypi.org/project/mlsysim/) 0.3.0 models state-space models as workloads
# of their own, knows that their state does not grow with the sequence, and names its source. For
# Mamba-2.8B it has 64 layers, `hidden_dim` 2560, `state_size` 16, and multiplies layers, batch,
# `hidden_dim`, `state_size` and bytes. What is missing, for a state in float32?

# %%
theirs = 64 * 1 * 2560 * 16 * 4
mamba = dict(preset("mamba-2.8b").layer(0))["backbone.layers.0.mixer"]
ours = 64 * mamba.state_bytes(dtype="fp32")
print(f"theirs {theirs / 2**20:.2f} MiB, ours {ours / 2**20:.2f} MiB")

# %% tags=["answer"]
assert isinstance(mamba, Mamba1) and mamba.d_inner == 2 * 2560
ssm, conv = (64 * mamba.state_bytes(kind, dtype="fp32") / 2**20 for kind in ("ssm", "conv"))
print(f"the scan runs over d_inner = {mamba.d_inner} channels: {ssm:.2f} MiB, twice theirs")
print(f"and the convolution keeps its last {mamba.d_conv} inputs: {conv:.2f} MiB")
three = 64 * mamba.d_inner * (mamba.d_state + mamba.d_conv - 1) * 4 / 2**20
print(
    f"with three taps, as llama.cpp keeps them, it is {three:.2f} MiB instead of {ssm + conv:.2f}"
)
assert ssm == 2 * theirs / 2**20 and three == 23.75
