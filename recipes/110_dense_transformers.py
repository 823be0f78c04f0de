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
# # Dense transformers: who talks to whom?
#
# **Goal.** Say what each layer of a transformer does to a sequence, run the two blocks that it is
# made of, and see what attention costs you later in a hybrid.
# **Needs** a CPU and a few seconds.
#
# A transformer alternates two blocks. Attention moves information between tokens, the MLP works on
# each token alone. Here is a published one, drawn from its own configuration.

# %%
import inspect

import matplotlib.pyplot as plt
import torch

from cookbook_lib import plots
from cookbook_lib.blocks.attention import Attention, attention_parallel, attention_recurrent
from cookbook_lib.blocks.mlp import MLP
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.presets import preset
from cookbook_lib.plots import table

plots.use()
torch.set_num_threads(1)  # the blocks are too small for two
torch.manual_seed(0)
llama = preset("llama-3.1-8b")
plots.model(llama)

# %% [markdown]
# ## Run: attention from its definition
#
# A token's query is compared with the keys of all tokens before it and its own; the softmax of the
# scores weighs their values. Token by token, that is all:

# %%
print(inspect.getsource(attention_recurrent))

# %% [markdown]
# Training and prefill run all queries at once, through PyTorch's fused kernel. Both are the same
# function. A library that you can trust asserts that, and so does this page.

# %%
q = torch.randn(2, 8, 37, 16, dtype=torch.float64)  # batch, query heads, tokens, head_dim
k, v = torch.randn(2, 2, 2, 37, 16, dtype=torch.float64)  # two key heads, for four queries each
slow = attention_recurrent(q, k, v)
fast = attention_parallel(q, k, v, causal=True)
error = ((fast - slow).abs().max() / slow.abs().max()).item()
print(f"largest relative difference {error:.1e}")
assert error < 1e-10

# %% [markdown]
# ## Look: which token reaches which
#
# Take one block, nudge input token $j$, and watch output token $i$: the size of
# $\partial y_i / \partial x_j$. Nothing shows better what a block mixes.


# %%
def influence(block, tokens=24, width=16):
    """(tokens, tokens): how much output i depends on input j, from the exact Jacobian."""
    x = torch.randn(1, tokens, width)
    jacobian = torch.autograd.functional.jacobian(block, x)  # 1 i d 1 j d
    return jacobian[0, :, :, 0].norm(dim=(1, 3))


d = 16
full = specs.Attention(d_model=d, n_heads=4, n_kv_heads=2, head_dim=8)
blocks = {
    "attention": Attention(full, rope=RoPE()),
    "window of 6": Attention(full.but(window=6), rope=RoPE()),
    "MLP": MLP(specs.MLP(d_model=d, d_ff=4 * d)),
}
reach = {name: influence(block) for name, block in blocks.items()}
fig, axes = plt.subplots(1, 3, figsize=(7.5, 2.9), sharey=True)
for ax, (name, size) in zip(axes, reach.items(), strict=True):
    ax.imshow((size > 1e-8).float() * (0.25 + 0.75 * size / size.max()), cmap="Blues", vmin=0)
    ax.set(title=name, xlabel="input token")
    ax.grid(False)
axes[0].set_ylabel("output token")
plots.show(fig, "Attention fills the lower triangle, a window a band, an MLP only the diagonal")

# %%
touched = {name: (size > 1e-8) for name, size in reach.items()}
i, j = torch.tril_indices(24, 24)
assert touched["attention"][i, j].all() and not touched["attention"].triu(1).any()
assert not touched["window of 6"].tril(-6).any()
assert torch.equal(touched["MLP"], torch.eye(24, dtype=torch.bool))
{name: f"{int(seen.sum())} of {24 * 24} pairs" for name, seen in touched.items()}

# %% [markdown]
# The triangle is the strength and the price. Every pair of tokens has a path of one step, so that
# any detail can be looked up; and the number of pairs grows with the square of the length.
#
# ## Positions
#
# Without positions a query sees a bag: all tokens up to its own, in no order. RoPE turns each pair
# of channels by an angle that grows with the position
# ([arXiv:2104.09864](https://arxiv.org/abs/2104.09864)), so that a score depends only on the two
# vectors and on how far apart they are. Shift the whole sequence, and nothing changes:

# %%
x = torch.randn(1, 12, d)
block = blocks["attention"]
empty = {s.name: torch.zeros(s.shape) for s in full.states(b=1, s=112, dtype="fp32")}
at_100 = block(x, dict(empty), start=100, mask=torch.arange(112)[None] >= 100)  # hide what is empty
shift = (at_100 - block(x)).abs().max().item()
print(f"the same tokens at positions 0 and 100: largest difference {shift:.1e}")
assert shift < 1e-4

# %% [markdown]
# ## One token at a time
#
# When a model generates, the keys and values of old tokens do not change. They are kept, and each
# new token adds one of each: the KV cache. Here is the whole sequence against one token at a time,
# and the bytes that are held, which are what the calculator says.

# %%
cache = {s.name: torch.zeros(s.shape) for s in full.states(b=1, s=12, dtype="fp32")}
steps = torch.cat([block(x[:, i : i + 1], cache, start=i) for i in range(12)], 1)
gap = (steps - block(x)).abs().max().item()
held = sum(t.nbytes for t in cache.values())
print(f"largest difference {gap:.1e}; {held:,} bytes held")
assert gap < 1e-5
assert held == full.state_bytes(s=12, dtype="fp32")

# %% [markdown]
# ## Where the parameters and the FLOPs are
#
# Attention is the smaller part of the parameters and, at short lengths, of the work. The share that
# is quadratic grows with the context. [What a transformer costs](330_transformer_costs.py) derives
# the rows one by one.

# %%
weights = llama.params()
rows = []
for component in ("embedding", "norm", "attention", "mlp", "head"):
    own = {r.name: r.params for r in llama.costs() if r.component == component}
    row = {"component": component, "parameters": sum(own.values())}
    row["share"] = f"{row['parameters'] / weights:.1%}"
    for tokens in (4096, 131072):
        work = llama.costs(l=tokens, attention="causal")
        part = sum(r.flops for r in work if r.component == component)
        row[f"FLOPs at {tokens // 1024}k"] = f"{part / sum(r.flops for r in work):.1%}"
    rows.append(row)
assert sum(row["parameters"] for row in rows) == weights == 8_030_261_248  # the checkpoint's
table(rows)

# %% [markdown]
# **Good at**: looking up any earlier token exactly; training in parallel; mature kernels.
# **Bad at**: long contexts, where the cache and the time of each new token grow without end. That
# is the part that hybrids replace. [What is a state good for?](130_state_space_models.py) continues
# there.
#
# ## Exercises
#
# **1.** Take the positions and the mask away. What does attention then not know?

# %% tags=["answer"]
bag = Attention(full)  # no rope
shuffle = torch.randperm(12)
seen = torch.ones(1, 12, 12, dtype=torch.bool)  # every token sees every other


def unmasked(x):
    q, k, v = bag.heads(bag.project(x, {}))
    return attention_parallel(q, k, v, mask=seen)


moved = (unmasked(x[:, shuffle]) - unmasked(x)[:, :, shuffle]).abs().max().item()
print(f"shuffle the input and the output is shuffled alike, to {moved:.1e}: it knows no order")
assert moved < 1e-5

# %% [markdown]
# **2.** Llama 3.1 8B has 8 key heads for 32 queries. What would its cache be with 32, at 128k
# tokens? And with one (MQA)?

# %% tags=["answer"]
(attention,) = {block for _, block in llama.layout if block.component == "attention"}
layers = len(llama.pattern)
gib = {n: layers * attention.but(n_kv_heads=n).state_bytes(s=131072) / 2**30 for n in (32, 8, 1)}
print({n: f"{size:g} GiB" for n, size in gib.items()})
assert gib[8] * 2**30 == llama.state_bytes(s=131072) and gib[32] == 4 * gib[8] == 32 * gib[1]

# %% [markdown]
# **3.** How many layers of the window of 6 does it take until token 23 can depend on token 0? Try
# it on the influence matrix of a stack.


# %% tags=["answer"]
def sees(depth, i, j, tokens=24):
    """Whether output i of a residual stack of window layers depends on input j."""
    x = torch.randn(1, tokens, d, requires_grad=True)
    y = x
    for _ in range(depth):
        y = y + Attention(full.but(window=6), rope=RoPE())(y)
    y[0, i].sum().backward()
    return bool(x.grad[0, j].any())


depth = next(n for n in range(1, 9) if sees(n, i=23, j=0))
print(f"{depth} layers: each reaches 5 tokens further back, and 5 · {depth} >= 23")
assert 5 * (depth - 1) < 23 <= 5 * depth

# %% [markdown]
# ## Find the bug
#
# A public calculator takes the width of the MLP as an option, checks it, and prints the FLOPs of
# training Llama-2-7B on 300 billion tokens: the same number with `--ffn-hidden-size 11008` and
# without it ([EleutherAI/cookbook](https://github.com/EleutherAI/cookbook) at `827ee3b`,
# `calc_transformer_flops.py`; its totals for GPT-3 are right). By which factor is the MLP wrong?

# %% tags=["answer"]
right = specs.MLP(d_model=4096, d_ff=11008)
default = specs.MLP(d_model=4096, d_ff=4 * 4096)
factor = default.flops(l=1) / right.flops(l=1)
print(f"the default of 4 d_model is used whatever you say: {factor:.3f} times too high")
assert abs(factor - 16384 / 11008) < 1e-9
