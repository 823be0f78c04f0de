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
# # Hybrids: follow one token through Zamba2
#
# **Goal.** Say what happens to a token in each layer of a Zamba2, compute it by hand from the
# weights on disk, and tell what Zamba, Jamba and Falcon-H1 do otherwise.
# **Needs** a CPU and about ten seconds.
#
# [Attention](110_dense_transformers.py) can look anything up and pays for it with a cache that
# grows. A state space keeps a state of one size and forgets. A hybrid has many layers of the second
# kind and a few of the first. The models differ in *where* the attention sits, *what* it reads, and
# *who owns* its weights.

# %%
import inspect
import io
import os
import warnings
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models

from cookbook_lib import plots
from cookbook_lib.blocks.checkpoint import load_checkpoint
from cookbook_lib.blocks.models import Zamba2
from cookbook_lib.blocks.models.language_model import Pass
from cookbook_lib.blocks.models.zamba import Zamba
from cookbook_lib.calculators.presets import preset
from cookbook_lib.cli import main
from cookbook_lib.plots import table

plots.use()
torch.manual_seed(0)
torch.set_grad_enabled(False)
torch.set_num_threads(1)  # products as small as here's are slower on two
with warnings.catch_warnings(action="ignore"):  # no notices about progress bars,
    from transformers import FalconH1Config, FalconH1Model, Zamba2Config, Zamba2ForCausalLM, logging
logging.set_verbosity_error()  # nor about kernels that a CPU does not have
logging.disable_progress_bar()

# %% [markdown]
# ## Four hybrids
#
# **Zamba** ([arXiv:2405.16712](https://arxiv.org/abs/2405.16712)) is a stack of Mamba layers. Some
# of them first ask a transformer block, attention and MLP, and all ask *the same one*.

# %%
plots.model(preset("zamba-7b-v1"))

# %% [markdown]
# **Zamba2** ([arXiv:2411.15242](https://arxiv.org/abs/2411.15242)) has Mamba-2 layers, two shared
# blocks that take turns, and a LoRA for each use, so that the uses are not quite alike.

# %%
plots.model(preset("zamba2-2.7b"))

# %% [markdown]
# **Jamba** ([arXiv:2403.19887](https://arxiv.org/abs/2403.19887)) shares nothing. Each layer has a
# mixer of tokens, Mamba or attention, and then an MLP or
# [experts](120_mixture_of_experts.py).

# %%
plots.model(preset("jamba-v0.1"))

# %% [markdown]
# **Falcon-H1** ([arXiv:2507.22448](https://arxiv.org/abs/2507.22448)) has both in *every* layer,
# side by side: parallel heads.

# %%
plots.model(preset("falcon-h1-0.5b"))

# %% [markdown]
# ## Run: a Zamba2 that fits on a page
#
# `transformers` makes a tiny Zamba2 and saves it, as it would save a real one. Two shared blocks
# take turns as in the 2.7B model, and the LoRAs are on the attention too, as in the 1.2B model. The
# weights are random, of a size at which every part has a say: the *values* below mean nothing, the
# *way* of a token is that of the published models. Its tokens are the printable characters.

# %%
config = Zamba2Config(
    vocab_size=95,
    hidden_size=64,
    layers_block_type=[{"m": "mamba", "h": "hybrid"}[x] for x in "mmhmhmhmhm"],
    num_hidden_layers=10,
    n_mamba_heads=8,
    mamba_d_state=16,
    chunk_size=8,
    num_attention_heads=4,
    intermediate_size=128,
    num_mem_blocks=2,
    adapter_rank=4,
    use_shared_attention_adapter=True,
    **dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id"]),
)
theirs = Zamba2ForCausalLM(config).eval()
for name, p in theirs.named_parameters():
    if p.dim() > 1:
        p.normal_(std=0.35 if "embed" in name else 0.7 * p.shape[-1] ** -0.5)
temporary = TemporaryDirectory()
folder = Path(temporary.name) / "tiny-zamba2"
theirs.save_pretrained(folder)
tokenizer = Tokenizer(models.BPE(vocab={chr(32 + i): i for i in range(95)}, merges=[]))
tokenizer.decoder = decoders.Fuse()
tokenizer.save(str(folder / "tokenizer.json"))
table({"file": f.name, "bytes": f.stat().st_size} for f in sorted(folder.iterdir()))

# %% [markdown]
# Our model reads the folder. Its layer string shows the wiring: `m` is a Mamba-2 layer; `A` and `B`
# are Mamba-2 layers that first ask shared block A or B.

# %%
model = load_checkpoint(folder)
print(type(model).__name__, model.spec.pattern)
plots.model(replace(model.spec, name=folder.name))
assert isinstance(model, Zamba2) and model.spec.pattern == "mmAmBmAmBm"

# %% [markdown]
# ## Step 0: a row of the embedding
#
# We follow the last character of a line, the `2`. Its way starts as a row of a table. That row
# is kept for the whole way: we call it $x_0$. `W` holds the tensors of the file, under their names.

# %%
W = load_file(folder / "model.safetensors")
line = "One token through Zamba2"
tokens = torch.tensor([tokenizer.encode(line).ids])
x0 = W["model.embed_tokens.weight"][tokens]  # 1 l d
print(f"{tokens.shape[1]} tokens; the last is {line[-1]!r}, number {tokens[0, -1].item()}")
print(f"x0 has shape {tuple(x0.shape)}; the last row has norm {x0[0, -1].norm():.2f}")

# %% [markdown]
# ## Steps 1 and 2: two Mamba-2 layers
#
# Each norms the stream, lets Mamba-2 mix it with what came before, and adds the result:
# $x \leftarrow x + \mathrm{Mamba}(\mathrm{norm}(x))$. How Mamba-2 works inside is the
# [chapter before this one](130_state_space_models.py); here it is a module.


# %%
def norm(x, weight):
    return F.rms_norm(x, weight.shape, weight, eps=1e-5)


x = x0
for i in (0, 1):
    mamba = model.get_submodule(f"model.layers.{i}.mamba")
    x = x + mamba(norm(x, W[f"model.layers.{i}.input_layernorm.weight"]))
    print(f"after layer {i}: norm of the followed token {x[0, -1].norm():.2f}")

# %% [markdown]
# ## Step 3: ask the shared block
#
# Layer 2 is the first that asks. The block does not read the stream alone. It reads the stream and
# $x_0$ *side by side*, twice as wide, so that it sees what the token was at the start, however far
# the stream has moved. A norm over all of it follows.

# %%
A = "model.layers.2.shared_transformer."  # the name of block A is that of its first use
steps = {}
wide = torch.cat([x, x0], -1)
steps["[x, x0] side by side"] = wide
y = norm(wide, W[A + "input_layernorm.weight"])
steps["normed"] = y

# %% [markdown]
# Then come queries, keys and values. Their matrices are those of the block, plus a product of two
# narrow ones that belongs to *this use*: a LoRA, $W + B A$ with $A$ of `rank` rows.


# %%
def with_lora(weight, adapters, use):
    """A shared matrix as use number `use` has it."""
    return W[weight] + W[f"{adapters}.{use}.1.weight"] @ W[f"{adapters}.{use}.0.weight"]


def qkv(letter, use):
    return with_lora(
        f"{A}self_attn.{letter}_proj.weight", f"{A}self_attn.linear_{letter}_adapter_list", use
    )


heads, width = 4, 32  # of attention: together 2 d
q = (y[0, -1] @ qkv("q", 0).T).view(heads, width)  # of the followed token
k, v = ((y[0] @ qkv(letter, 0).T).view(-1, heads, width) for letter in "kv")  # of all tokens
steps["query, 4 heads"] = q
scores = torch.einsum("hk, shk -> hs", q, k) * (width / 2) ** -0.5
weights = scores.softmax(-1)
read = torch.einsum("hs, shk -> hk", weights, v).flatten()
steps["what the heads read"] = read
print(f"scores are scaled by (head_dim / 2) ** -0.5 = {(width / 2) ** -0.5:.4f}, and not by")
print(f"head_dim ** -0.5 = {width**-0.5:.4f}, as half of what a head reads is the embedding")

# %% [markdown]
# `o_proj` leads back to the width of the stream. An MLP follows, with a LoRA on its first matrix.
# There is **no residual inside**: the MLP reads what the attention says, and the block's answer is
# what the MLP says. Nothing has been added to anything yet.

# %%
said = read @ W[A + "self_attn.o_proj.weight"].T
steps["attention says"] = said
up = with_lora(
    A + "feed_forward.gate_up_proj.weight", A + "feed_forward.gate_up_proj_adapter_list", 0
)
gate, value = (norm(said, W[A + "pre_ff_layernorm.weight"]) @ up.T).chunk(2)
answer = (F.gelu(gate) * value) @ W[A + "feed_forward.down_proj.weight"].T
steps["the MLP says: the answer"] = answer

# %% [markdown]
# ## Step 4: the answer is a hint to Mamba
#
# A linear that belongs to layer 2 alone turns the answer. The result is added to what this layer's
# Mamba *reads*, and to nothing else. The stream goes past it:
#
# $$x \leftarrow x + \mathrm{Mamba}(\mathrm{norm}(x + L_2\,\mathrm{block}(x, x_0)))$$

# %%
hint = answer @ W["model.layers.2.linear.weight"].T
steps["the layer's own linear: the hint"] = hint
reads = norm(x[0, -1] + hint, W["model.layers.2.mamba_decoder.input_layernorm.weight"])
steps["what Mamba reads"] = reads
table(
    {
        "the followed token": step,
        "shape": " × ".join(map(str, t.shape[-1:] if t.dim() == 3 else t.shape)),
        "norm": f"{(t[0, -1] if t.dim() == 3 else t).norm():.2f}",
    }
    for step, t in steps.items()
)

# %% [markdown]
# Is that what the published code does? We listen to `transformers` at three places of its layer 2:
# what the block answers, what the linear makes of it, and what the Mamba gets.

# %%
heard = {}
layer = theirs.model.layers[2]
hooks = [
    layer.shared_transformer.register_forward_hook(
        lambda module, args, out: heard.update(answer=out[0] if isinstance(out, tuple) else out)
    ),
    layer.linear.register_forward_hook(lambda module, args, out: heard.update(hint=out)),
    layer.mamba_decoder.input_layernorm.register_forward_hook(
        lambda module, args, out: heard.update(reads=out)
    ),
]
want = theirs(tokens, use_cache=False).logits
for hook in hooks:
    hook.remove()


def error(got, want):
    """The largest difference, relative to the largest value."""
    return ((got - want).abs().max() / want.abs().max()).item()


by_hand = {"answer": answer, "hint": hint, "reads": reads}
errors = {name: error(ours, heard[name][0, -1]) for name, ours in by_hand.items()}
print({name: f"{e:.1e}" for name, e in errors.items()})
assert max(errors.values()) < 1e-5

# %% [markdown]
# ## All layers
#
# The library says the same in a few lines, for all tokens and every layer:

# %%
print(inspect.getsource(Zamba.layer))
print(inspect.getsource(Zamba.ask))

# %% [markdown]
# After the last layer come a norm and the product with the embedding, which is the head too. The
# logits are those of `transformers`:

# %%
logits = model(tokens)
gap = error(logits, want)
print(f"{logits.numel():,} logits, largest relative difference {gap:.1e}")
assert gap < 1e-5

# %% [markdown]
# Now watch the followed token on its way: how long the stream is, how much each layer adds to it,
# and how loud the hints are.

# %%
run, x = Pass(), x0
rows = [{"layer": "embedding", "stream": x0[0, -1].norm().item()}]
for i, parts in enumerate(model.uses):
    new = model.layer(parts, x, x0, run)
    row = {"layer": f"{i} {model.spec.pattern[i]}", "stream": new[0, -1].norm().item()}
    row["the layer adds"] = (new - x)[0, -1].norm().item()
    if "linear" in parts:
        row["hint"] = run(parts["linear"], model.ask(parts, x, x0, run))[0, -1].norm().item()
    rows.append(row)
    x = new
assert error(model.head(x), want) < 1e-5  # the same walk, layer by layer

fig, ax = plt.subplots()
for name, style in (("stream", "o-"), ("the layer adds", "s-"), ("hint", "^")):
    at = [i for i, row in enumerate(rows) if name in row]
    ax.plot(at, [rows[i][name] for i in at], style, label=name)
ax.set_xticks(range(len(rows)), ["x0", *(f"{i}\n{k}" for i, k in enumerate(model.spec.pattern))])
ax.set(xlabel="after layer", ylabel="norm, of the followed token", ylim=(0, None))
ax.legend()
plots.show(fig, "The stream grows with each layer; the hints of layers A and B are not added to it")

# %% [markdown]
# A hint speaks only through the Mamba of its layer. Two checks. Silence the Mamba of layer 2: the
# stream passes the layer unchanged, to the last bit, whatever the block says. Silence the linear:
# what remains is a plain Mamba-2 layer.


# %%
def silent(x, *state, **_):
    return torch.zeros_like(x)


def silenced(parts, role):
    return parts | {role: parts[role]._replace(module=silent)}


x = x0
for parts in model.uses[:2]:
    x = model.layer(parts, x, x0, run)
third = model.uses[2]
full = model.layer(third, x, x0, run)
no_mamba = model.layer(silenced(third, "mamba_decoder.mamba"), x, x0, run)
no_hint = model.layer(silenced(third, "linear"), x, x0, run)
plain = x + run(third["mamba_decoder.mamba"], run(third["mamba_decoder.input_layernorm"], x))
print("without the Mamba the stream is unchanged:", torch.equal(no_mamba, x))
print("without the hint it is a Mamba-2 layer:   ", torch.equal(no_hint, plain))
print(f"the hint changes what the layer adds by {(full - plain).norm() / (plain - x).norm():.0%}")
assert torch.equal(no_mamba, x) and torch.equal(no_hint, plain) and not torch.equal(full, plain)

# %% [markdown]
# ## One token at a time
#
# In generation the followed token comes alone, and the past is in a cache. A Mamba-2 layer keeps
# the last few inputs of its convolution and its state, of one size for ever. A layer that asks
# keeps those and, beside them, the keys and values of its attention, `2 d` wide, for every token.

# %%
n = tokens.shape[1]
cache = model.new_cache(1, n)
alone = torch.cat([model(tokens[:, t : t + 1], cache) for t in range(n)], 1)
print(f"one by one against all at once: largest relative difference {error(alone, want):.1e}")
assert error(alone, want) < 1e-5

# %%
rows = []
for i, letter in enumerate(model.spec.pattern[:5]):
    held = {
        k: t for use, s in cache.states.items() if use.startswith(f"{i}.") for k, t in s.items()
    }
    row = {"layer": f"{i} {letter}"}
    for k in ("conv", "ssm", "k", "v"):
        row[k] = " × ".join(map(str, held[k].shape[1:])) if k in held else ""
    rows.append(row | {"bytes": sum(t.nbytes for t in held.values())})
table(rows)

# %% [markdown]
# The calculator of this book says beforehand how many bytes that will be, and `transformers` holds
# as many:

# %%
past = theirs(tokens, use_cache=True).past_key_values
kept = [
    t
    for l in past.layers
    for x in vars(l).values()
    for t in (x.values() if isinstance(x, dict) else [x])
]
kept = sum(t.nbytes for t in kept if torch.is_tensor(t))
counted = model.spec.state_bytes(s=n, dtype="fp32")
print(f"held {cache.nbytes:,} bytes, calculated {counted:,}, in transformers {kept:,}")
assert cache.nbytes == counted == kept

# %% [markdown]
# ## One block, several users
#
# Layers 2 and 6 do not have equal weights for the block. They have the *same* ones: one object in
# memory, stored once, trained by the gradients of both. What they keep of a text is not shared. A
# key is a matrix times what *this* layer reads, and the stream has moved on between them.

# %%
first, later = ({k: u for k, u in model.uses[i].items() if "shared" in k} for i in (2, 6))
rows = []
for role in first:
    name = role.removeprefix("shared_transformer.")
    one, other = first[role].module, later[role].module
    both = list(zip(one.parameters(), other.parameters(), strict=True))
    rows.append(
        {
            "part of block A": name,
            "parameters": sum(p.numel() for p, _ in both),
            "in layers 2 and 6": "the same" if all(p is o for p, o in both) else "its own",
        }
    )
    assert all((p is o) == ("adapter" not in role) for p, o in both)
assert model.uses[2]["linear"].module is not model.uses[6]["linear"].module
table(rows)

# %%
keys = {i: cache.states[f"{i}.shared_transformer.self_attn"]["k"] for i in (2, 6)}
apart = ((keys[2] - keys[6]).norm() / keys[2].norm()).item()
published = max(error(ours, past.layers[i].keys) for i, ours in keys.items())
print(f"the keys of the two uses differ by {apart:.0%} of their size,")
print(f"and those of transformers from ours by {published:.1e}")
assert apart > 0.5 and published < 1e-5
stored = sum(p.numel() for p in model.parameters())
print(f"stored {stored:,} parameters; a token is multiplied with {model.spec.params_used():,}")
assert stored == model.spec.params() < model.spec.params_used()

# %% [markdown]
# So sharing saves the memory of weights. It does not save compute, nor cache:
# [what a hybrid costs](340_hybrid_costs.py) has the numbers of the published models.
#
# ## What does the LoRA change?
#
# Two uses of a block differ by their LoRAs. Each adds a matrix of rank $r$, so that the matrices of
# two uses differ by one of rank $2r$ at most. Give both uses the same input, and hear two answers.

# %%
delta = qkv("q", 0) - qkv("q", 2)  # uses 0 and 2 of all are block A's, 1 and 3 block B's
rank = torch.linalg.matrix_rank(delta, rtol=1e-5).item()
print(f"q_proj is {' × '.join(map(str, delta.shape))}; its two versions differ by rank {rank}")
assert rank == 2 * config.adapter_rank
answers = [model.ask(model.uses[i], x, x0, run) for i in (2, 6)]
differ = ((answers[0] - answers[1]).norm() / answers[0].norm()).item()
print(f"the same input, asked by layers 2 and 6: answers differ by {differ:.0%} of their size")
assert differ > 0.01

# %% [markdown]
# The percentage belongs to random weights. A LoRA is made to start at zero
# ([arXiv:2106.09685](https://arxiv.org/abs/2106.09685), section 4.1), so that the uses begin alike
# and training draws them apart. What a use costs beside a block of its own can be counted:

# %%
rows = []
for name in ("zamba2-1.2b", "zamba2-2.7b", "zamba2-7b"):
    spec = preset(name)
    layer = spec.letters["A"]
    own = sum(b.params() for n, b in layer if "{first}" in n and b.component != "lora")
    lora = sum(b.params() for _, b in layer if b.component == "lora")
    linear = sum(b.params() for _, b in layer if b.component == "linear")
    rows.append(
        {
            "model": spec.name,
            "shared block": own,
            "LoRA of a use": lora,
            "linear of a use": linear,
            "a use / a block": f"{(lora + linear) / own:.1%}",
        }
    )
    d, r = layer[2][1].d_model, 128
    assert own == 26 * d * d + 3 * d and linear == d * d  # 14 d² attention, 12 d² MLP, the norms
    assert lora == 9 * r * d + (12 * r * d if name == "zamba2-1.2b" else 0)
table(rows)

# %% [markdown]
# ## Jamba: everyone its own
#
# Jamba's wiring is the plain one, $x \leftarrow x + \mathrm{block}(\mathrm{norm}(x))$, block after
# block. What attention says goes into the stream at once, for all later layers to see. Its
# attention is narrow (few key heads), has weights of its own in each place, and no positions: the
# Mamba layers before it know the order. Size comes from experts.
#
# ## Falcon-H1: both at once
#
# With parallel heads, attention and Mamba read the *same* norm of the stream, and their outputs are
# added to it together: $x \leftarrow x + \mathrm{Mamba}(y) + \mathrm{attention}(y)$ with
# $y = \mathrm{norm}(x)$. Neither sees in this layer what the other found. (Falcon-H1 also
# multiplies each part by a constant. Hymba, [arXiv:2411.13676](https://arxiv.org/abs/2411.13676),
# is another of this kind; it weighs the two outputs by learned factors.) We listen again:

# %%
parallel = FalconH1Model(
    FalconH1Config(
        vocab_size=95,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        mamba_d_ssm=64,
        mamba_n_heads=4,
        mamba_d_head=16,
        mamba_d_state=16,
        mamba_chunk_size=8,
        ssm_out_multiplier=0.5,
        attention_out_multiplier=2.0,
    )
).eval()
layer, heard = parallel.layers[0], {}
for name in ("input_layernorm", "mamba", "self_attn", "pre_ff_layernorm"):
    layer.get_submodule(name).register_forward_hook(
        lambda module, args, kwargs, out, name=name: heard.update(
            {name: ([*args, *kwargs.values()][0], out[0] if isinstance(out, tuple) else out)}
        ),
        with_kwargs=True,
    )
parallel(tokens, use_cache=False)
before, y = heard["input_layernorm"]
after, _ = heard["pre_ff_layernorm"]
together = before + 0.5 * heard["mamba"][1] + 2.0 * heard["self_attn"][1]
print("both read the same norm:", torch.equal(heard["mamba"][0], y), end=", ")
print(torch.equal(heard["self_attn"][0], y))
print(f"the stream after both, against the sum by hand: {error(together, after):.1e}")
assert torch.equal(heard["mamba"][0], y) and torch.equal(heard["self_attn"][0], y)
assert error(together, after) < 1e-6

# %% [markdown]
# ## The four side by side

# %%
rows = []
for name in ("zamba-7b-v1", "zamba2-2.7b", "jamba-v0.1", "falcon-h1-0.5b"):
    spec = preset(name)
    uses = [(n, b) for n, b in spec.layout if b.component == "attention"]
    rows.append(
        {
            "model": spec.name,
            "attend": f"{len(uses)} of {len(spec.pattern)}",
            "stored": len({n for n, _ in uses}),
            "read": f"{uses[0][1].d_x // uses[0][1].d_model} d",
            "KV, bytes/token": spec.state_bytes("kv", s=1),
            "stored / used, B": f"{spec.params() / 1e9:.2f} / {spec.params_used() / 1e9:.2f}",
        }
    )
assert [row["attend"] for row in rows] == ["13 of 76", "9 of 54", "4 of 32", "36 of 36"]
assert [row["stored"] for row in rows] == [1, 2, 4, 36]
kv = [row["KV, bytes/token"] for row in rows]
assert max(kv) == kv[0] and min(kv) == kv[2]
table(rows)

# %% [markdown]
# The table says how many layers attend, how many attentions are stored for them, how wide the
# vector is that they read, what a token adds to the cache in bf16, and how many billion parameters
# are stored and used. The model that stores the fewest attentions has the largest cache; Jamba,
# which shares none, has the smallest. To share weights is one thing, to cache little another.

# %% [markdown]
# ## A real checkpoint
#
# The published weights are read in the same way. Fetch a folder once, with the Hub's own tool, and
# give it to the command:
#
# ```bash
# pip install huggingface_hub
# hf download Zyphra/Zamba2-1.2B --local-dir zamba2-1.2b
# cookbook generate zamba2-1.2b --prompt "A hybrid model is" --dtype bf16
# ```
#
# These lines are shown, not run: this page and the tests are made without the Hub, from files that
# `transformers` saves. The folder must hold `config.json`, `tokenizer.json` and `*.safetensors`;
# pickled weights are refused, and a tensor that is missing or not expected is named. What it takes:

# %%
rows = []
for name in ("zamba2-1.2b", "zamba2-2.7b", "zamba2-7b"):
    spec = preset(name)
    row = {"model": spec.name, "weights in bf16, GB": f"{2 * spec.params() / 1e9:.2f}"}
    row |= {f"cache at {k}k, GB": f"{spec.state_bytes(s=1024 * k) / 1e9:.2f}" for k in (4, 32)}
    rows.append(row)
table(rows)

# %% [markdown]
# The same command on our tiny folder. It has learned nothing, so it babbles; but it babbles exactly
# as `transformers` does: every character is the one that it finds likeliest after those before,
# with no cache at all. Where the variable `ZAMBA2` names a real folder, this cell runs that one.

# %%
real = os.environ.get("ZAMBA2")
where = Path(real).resolve() if real else folder
argv = ["generate", where.name, "--prompt", line, "--max-tokens", "32", "--temperature", "0"]
if real:
    torch.set_num_threads(os.cpu_count())
    argv += ["--dtype", "bf16", "--device", "cuda" if torch.cuda.is_available() else "cpu"]
out = io.StringIO()
with chdir(where.parent), redirect_stdout(out), redirect_stderr(io.StringIO()):
    main(argv)
print("$ cookbook", " ".join(f"'{x}'" if " " in x else x for x in argv))
print(out.getvalue())
if not real:
    ids = torch.tensor([tokenizer.encode(line + out.getvalue().removesuffix("\n")).ids])
    likeliest = theirs(ids, use_cache=False).logits.argmax(-1)
    assert ids.shape[1] == n + 32 and torch.equal(ids[:, n:], likeliest[:, n - 1 : -1])

# %% [markdown]
# **Good at**: long contexts, as few layers keep a cache; looking up what a state has lost; with
# shared blocks, attention in many places for the stored weights of one. **Bad at**: compute, as a
# shared block costs its full FLOPs and a cache of its own at every use, and that cache is twice as
# wide, because the block reads two vectors; serving, as two kinds of state have to be padded,
# packed and rolled back; design, as the places of attention are found by trial and not derived.
# What each part brings is measured on tiny models in
# [memory experiments](150_memory_experiments.py).
#
# ## Exercises
#
# **1.** Turn all LoRAs off. How much do the logits change? And if only those of the attention are
# off?


# %% tags=["answer"]
def muted(model, *kinds):
    """The same model with the LoRAs whose name has one of `kinds` adding nothing."""
    twin = type(model)(model.spec, model.options).eval()
    changed = {
        name: torch.zeros_like(w) if any(k in name for k in kinds) else w
        for name, w in model.state_dict().items()
    }
    twin.load_state_dict(changed)
    return twin


change = {}
for name, kinds in {"attention off": ["linear_"], "all off": ["_adapter_list"]}.items():
    got = muted(model, *kinds)(tokens)
    change[name] = ((got - want).norm() / want.norm()).item()
print({name: f"{c:.0%} of the size of the logits" for name, c in change.items()})
assert min(change.values()) > 0.01

# %% [markdown]
# **2.** The block norms the stream and $x_0$ together. The stream grows on its way, $x_0$ does not.
# Which share of what the block reads is $x_0$, at each use?

# %% tags=["answer"]
x, shares = x0, []
for parts in model.uses:
    if "linear" in parts:
        y = run(parts["shared_transformer.input_layernorm"], torch.cat([x, x0], -1))
        shares.append((y[..., 64:].square().sum() / y.square().sum()).item())
    x = model.layer(parts, x, x0, run)
print([f"{share:.0%}" for share in shares], "of the square: a loud stream drowns the embedding,")
print("unless the norm's weights, which the uses share too, give that half more")
assert shares == sorted(shares, reverse=True) and shares[0] < 0.5

# %% [markdown]
# **3.** A colleague scales the scores by `head_dim ** -0.5`, as everyone else does. By which factor
# are they off, and do the logits tell?

# %% tags=["answer"]
usual = Zamba2(model.spec, replace(model.options, scale=None)).eval()
usual.load_state_dict(model.state_dict())
factor, off = (width / 2) ** -0.5 / width**-0.5, error(usual(tokens), want)
print(f"the scores are {factor:.3f} times too small; the logits are off by {off:.1%}. No shape and")
print("no missing weight tells: a comparison with the original does")
assert abs(factor - 2**0.5) < 1e-12 and off > 1e-3

# %% [markdown]
# **4.** "Shared weights, so a shared cache": let both uses of block A write their keys and values
# to one place. Which is the first token with wrong logits, and why is it not the very first?

# %% tags=["answer"]
shared = model.new_cache(1, n)
shared.states["6.shared_transformer.self_attn"] = shared.states["2.shared_transformer.self_attn"]
got = torch.cat([model(tokens[:, t : t + 1], shared) for t in range(n)], 1)
wrong = [t for t in range(n) if error(got[:, t], want[:, t]) > 1e-4]
print(f"token {wrong[0]}. Token 0 is read back by the layer that has just written it; from then on")
print("layer 2 finds what layer 6 has left there")
assert wrong == list(range(1, n))

# %% [markdown]
# **5.** Move the first use to layer 0. What does it cost, and what does the block read there?

# %% tags=["answer"]
moved = model.spec.but(pattern="AmmBmAmBmm")
for spec in (model.spec, moved):
    cost = f"{spec.params():,} parameters, {spec.flops(l=n):,} FLOPs for {n} tokens"
    print(f"{spec.pattern}: {cost}, {spec.state_bytes(s=n, dtype='fp32'):,} bytes of cache")
assert (moved.params(), moved.flops(l=n)) == (model.spec.params(), model.spec.flops(l=n))
assert moved.state_bytes(s=n) == model.spec.state_bytes(s=n)
left, right = qkv("q", 0).chunk(2, 1)  # what multiplies the stream, what multiplies x0
once, twice = x0 @ (left + right).T, torch.cat([x0, x0], -1) @ qkv("q", 0).T
print("It costs nothing. But there x is x0, so the block reads the same vector twice, and a matrix")
print(f"of half the width would do as well: difference {error(once, twice):.1e}")
assert error(once, twice) < 1e-5

# %% [markdown]
# ## Find the bug
#
# Blocks A and B take turns. [transformers](https://github.com/huggingface/transformers) 5.14.1
# (`models/zamba2/modeling_zamba2.py`) tied the weights of the uses in this order, and kept a list
# of LoRAs in each block with a place for every use: both right. Which of the places a block fills
# depends on its number, and that was `layer_id % num_mem_blocks`. Here is what it comes to. Which
# models could not be built?

# %%
rows = []
for name in ("zamba2-1.2b", "zamba2-2.7b", "zamba2-7b"):
    spec = preset(name)
    ids = [i for i, letter in enumerate(spec.pattern) if letter != "m"]
    blocks = len(set(spec.pattern)) - 1
    rows.append(
        {
            "model": spec.name,
            "layers that ask": " ".join(map(str, ids)),
            "by layer_id": "".join("AB"[i % blocks] for i in ids),
            "as trained": "".join(spec.pattern[i] for i in ids),
        }
    )
table(rows)

# %% tags=["answer"]
wrong = {}
for row in rows:
    turns = list(zip(row["by layer_id"], row["as trained"], strict=True))
    wrong[row["model"]] = sum(a != b for a, b in turns)
    print(f"{row['model']}: {wrong[row['model']]} of {len(turns)} LoRAs are in the other block")
    alternating = "A" if row["model"] == "Zamba2-1.2B" else "AB"
    assert row["as trained"] == (alternating * len(turns))[: len(turns)]
assert list(wrong.values()) == [0, 4, 6]

# %% [markdown] tags=["answer"]
# The larger two. The layers *that ask* take turns, counted among themselves; whether their own
# numbers are even or odd has nothing to do with it. Zamba2-7B asks in layers 6 and 11 and then in
# every sixth, so that nearly all its numbers are odd. By the wrong number a use finds no LoRA in
# the block that it runs. transformers found that itself: its check of shared weights refused to
# build such a model ([#47994](https://github.com/huggingface/transformers/issues/47994)), and the
# release that this page compares with counts the layers that ask
# ([#48325](https://github.com/huggingface/transformers/pull/48325)).
