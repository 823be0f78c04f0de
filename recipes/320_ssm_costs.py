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
# # What does a state-space layer cost?
#
# **Goal.** Derive every parameter and every FLOP of a Mamba-1 and a Mamba-2 layer, check each one
# against what PyTorch allocates and runs, and say what the scan, the chunk size and the state cost.
# **Needs** a CPU and about ten seconds.
# Builds on [chapter 310](310_cost_of_a_block.py).
#
# "How many FLOPs does a Mamba layer take?" is asked again and again, because the usual tools cannot
# see inside its kernel ([state-spaces/mamba#110](https://github.com/state-spaces/mamba/issues/110),
# [#310](https://github.com/state-spaces/mamba/issues/310),
# [#817](https://github.com/state-spaces/mamba/issues/817)). Here the layer is written in plain
# PyTorch, so that nothing hides.
#
# Letters: $D$ is `d_model`, $I$ is `d_inner`, $N$ is `d_state`, $R$ the rank of the time step,
# $H$ heads of $P$ channels each, $G$ groups of heads that share their $B$ and $C$.

# %%
import warnings
from math import sqrt
from textwrap import fill

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import einsum

from cookbook_lib import plots
from cookbook_lib.blocks.counted import Counted, beside, walked
from cookbook_lib.calculators.presets import preset
from cookbook_lib.calculators.runs import Run
from cookbook_lib.plots import table

plots.use()
torch.manual_seed(0)
with warnings.catch_warnings(action="ignore"):  # no notices about progress bars,
    from transformers import Mamba2Config, Mamba2Model, MambaConfig, MambaModel, logging
logging.set_verbosity_error()  # nor about kernels that a CPU does not have

spec = dict(preset("mamba-130m").layer(0))["backbone.layers.0.mixer"]
print(fill(str(spec), 76))

# %% [markdown]
# ## Mamba-1, parameter by parameter
#
# The layer ([arXiv:2312.00752](https://arxiv.org/abs/2312.00752), section 3) widens each token to
# $I$ channels, mixes four neighbours in each channel, and derives from the result what the state
# space needs: a time step $\Delta$ through a narrow middle of $R$ numbers, what to write ($B$) and
# what to read ($C$). $A$ and the skip $D$ do not depend on the token. The formula that you read in
# the table is the one that is computed, and the column *torch* is the same layer of `transformers`,
# which knows nothing of this book.

# %%
walk1 = {
    "in_proj.weight": ("channels x and gate z", "d_model * 2 * d_inner"),
    "conv1d.weight": ("taps of each channel", "d_inner * d_conv"),
    "conv1d.bias": ("", "d_inner"),
    "x_proj.weight": ("time step, B and C from x", "d_inner * (rank + 2 * d_state)"),
    "dt_proj.weight": ("time step of each channel", "rank * d_inner"),
    "dt_proj.bias": ("", "d_inner"),
    "A_log": ("decay of each channel and state", "d_inner * d_state"),
    "D": ("skip past the state", "d_inner"),
    "out_proj.weight": ("back to the model's width", "d_inner * d_model"),
}
mixer1 = MambaModel(MambaConfig(num_hidden_layers=1, hidden_size=768, vocab_size=8)).layers[0].mixer
table(walked(walk1, spec, mixer1))

# %% [markdown]
# The whole model adds one RMSNorm a layer, one at the end, and the embedding, which is the head
# too.

# %%
model = preset("mamba-130m")
d, layers, vocab = spec.d_model, len(model.pattern), 50280
by_hand = layers * (spec.params() + d) + d + vocab * d
print(f"{layers} · ({spec.params():,} + {d}) + {d} + {vocab:,} · {d} = {by_hand:,} parameters")
print(f"in_proj and out_proj hold {3 * d * spec.d_inner / spec.params():.1%} of a layer")
assert by_hand == model.params() == 129_135_360  # transformers' MambaForCausalLM, tied

# %% [markdown]
# ## Mamba-1, FLOP by FLOP
#
# Per token, with $\odot$ for products of elements:
#
# $$
# \begin{aligned}
# x, z &= W_{in} u, \quad x \leftarrow \mathrm{SiLU}(\mathrm{conv}(x)) \\
# \delta, B, C &= W_x x \\
# \Delta &= \mathrm{softplus}(W_\Delta \delta + b_\Delta) \\
# h &\leftarrow e^{\Delta A} \odot h + (\Delta \odot x) B^{\top} \\
# y &= h C + D \odot x \\
# \mathrm{out} &= W_{out} (y \odot \mathrm{SiLU}(z))
# \end{aligned}
# $$
#
# The function below says the same in PyTorch. `at("…")` names the row that the next lines belong
# to, so that the FLOPs that torch runs can be booked there. torch's own counter knows matrix
# products and convolutions; `Counted` adds one FLOP for each element that a product or a sum makes.


# %%
def mamba1(u, w, spec, at, scan):
    """A Mamba-1 layer: (b l d_model) -> (b l d_model); w: its weights by name."""
    at("in_proj.weight")
    x, z = F.linear(u, w["in_proj.weight"]).chunk(2, -1)
    at("conv1d.weight")
    past = F.pad(x.mT, (spec.d_conv - 1, 0))
    x = F.conv1d(past, w["conv1d.weight"], groups=spec.d_inner).mT
    at("conv1d.bias")
    x = F.silu(x + w["conv1d.bias"])
    at("x_proj.weight")
    dt, B, C = F.linear(x, w["x_proj.weight"]).split([spec.rank, spec.d_state, spec.d_state], -1)
    at("dt_proj.weight")
    dt = F.linear(dt, w["dt_proj.weight"])
    at("dt_proj.bias")
    dt = F.softplus(dt + w["dt_proj.bias"])
    at("A_log")
    decay = (dt[..., None] * -w["A_log"].exp()).exp()  # (b l d_inner d_state)
    at("dt_x")
    dx = dt * x
    at("write")
    write = dx[..., None] * B[:, :, None]
    at("carry")
    h = scan(decay, write)
    at("read")
    y = einsum("blin,bln->bli", h, C)
    at("D")
    y = y + w["D"] * x
    at("gate")
    y = y * F.silu(z)
    at("out_proj.weight")
    return F.linear(y, w["out_proj.weight"])


def one_by_one(decay, write):
    """The states h = decay h + write after each token: (b l …)."""
    h, states = torch.zeros_like(write[:, 0]), []
    for t in range(write.shape[1]):
        h = decay[:, t] * h + write[:, t]
        states.append(h)
    return torch.stack(states, 1)


u = torch.randn(1, 64, spec.d_model)
with torch.no_grad(), Counted() as at:
    ours = mamba1(u, mixer1.state_dict(), spec, at, one_by_one)
with torch.no_grad():
    theirs = mixer1.eval()(u)
error = (ours - theirs).abs().max() / theirs.abs().max()
print(f"largest relative difference from transformers' layer: {error:.0e}")
assert error < 1e-5

# %% [markdown]
# The equations are right. Now each row of the spec stands beside what torch ran, for the 64 tokens.

# %%
run = Run(l=64)
rows = beside(spec, run, at.flops)
assert all(row["equal"] == "yes" for row in rows)
table(rows)

# %%
shares = {
    "projections": [r for r in spec.rows(run) if "proj" in r.op],
    "scan": [r for r in spec.rows(run) if r.op in ("A_log", "dt_x", "write", "carry", "read")],
    "convolution": [r for r in spec.rows(run) if "conv" in r.op],
    "skip and gate": [r for r in spec.rows(run) if r.op in ("D", "gate")],
}
whole = sum(r.flops for part in shares.values() for r in part)
assert whole == spec.flops(l=64) == at.flops.total()
table(
    [
        {
            "part": name,
            "FLOPs a token": sum(r.flops for r in part) // 64,
            "share": f"{sum(r.flops for r in part) / whole:.1%}",
        }
        for name, part in shares.items()
    ]
)

# %% [markdown]
# ## The rule of thumb: nine, six or ten?
#
# For each channel and each of its $N$ states the rows above do six FLOPs a token: one for
# $\Delta A$, one to write, two to carry, two to read. The authors' answer in
# [mamba#110](https://github.com/state-spaces/mamba/issues/110) is nine. Both can be right: the
# rows count the recurrence, token by token; the answer counts a *parallel* scan, which combines
# about $2L$ pairs for $L$ tokens. One such pair is three FLOPs. Write it down and count.


# %%
def in_parallel(decay, write):
    """The same states by an associative scan over l = 2^k tokens; also the decay from the start."""
    if decay.shape[1] == 1:
        return decay, write

    def then(one, other):  # first one step, then the other: three FLOPs
        return one[0] * other[0], other[0] * one[1] + other[1]

    even, odd = (decay[:, 0::2], write[:, 0::2]), (decay[:, 1::2], write[:, 1::2])
    odd = in_parallel(*then(even, odd))  # the states after 2, 4, 6, … tokens
    rest = then([t[:, :-1] for t in odd], [t[:, 1:] for t in even])
    even = [torch.cat([t[:, :1], r], 1) for t, r in zip(even, rest, strict=True)]
    return [torch.stack([e, o], 2).flatten(1, 2) for e, o in zip(even, odd, strict=True)]


l = 512
decay, write = torch.rand(1, l, 4, 3, dtype=torch.float64), torch.randn(1, l, 4, 3).double()
carried = {}
for name, scan in {
    "token by token": one_by_one,
    "in parallel": lambda a, x: in_parallel(a, x)[1],
}.items():
    with Counted() as at:
        at(name)
        states = scan(decay, write)
    carried[name] = at.flops[name] / decay.numel()
    assert torch.allclose(states, one_by_one(decay, write))
    print(f"carry {name}: {carried[name]:.2f} FLOPs for each channel and state, {l} tokens")

per_state = {"rows": 4 + carried["token by token"], "rule of thumb": 9, "parallel": 4 + 6}
assert per_state["rows"] == 6 and 5.9 < carried["in parallel"] < 6

# %% [markdown]
# So nine lies between: six if the state is carried token by token, ten if in parallel. Below is
# what that does to a layer, and to the full rule, "two FLOPs for each parameter and nine for each
# channel and state".

# %%
rules = []
for size in ("130m", "370m", "790m", "1.4b", "2.8b"):
    layer = dict(preset(f"mamba-{size}").layer(0))["backbone.layers.0.mixer"]
    states = layer.d_inner * layer.d_state
    exact = layer.flops(l=4096) / 4096
    parallel, rule = exact + 4 * states, 2 * layer.params() + 9 * states
    rules.append(
        {
            "layer of": f"mamba-{size}",
            "MFLOP a token": exact / 1e6,
            "in parallel": parallel / 1e6,
            "the rule": rule / 1e6,
            "parallel / rows": round(parallel / exact, 4),
            "rule / rows": round(rule / exact, 4),
            "2 · params / rows": round(2 * layer.params() / exact, 4),
        }
    )
    assert 2 * layer.params() < exact < parallel < rule < 1.02 * exact
table(rules)

# %% [markdown]
# The rule is good. Six or ten hardly moves the layer, and less so the wider it is. The rule even
# lies above the parallel count, because it takes $A$ and the biases for weights of a matrix
# product. What goes wrong in practice is not the nine but the width: the scan runs over `d_inner`
# channels, not over `d_model`, as the thread goes on to say.
#
# ## Mamba-2, parameter by parameter
#
# Mamba-2 ([arXiv:2405.21060](https://arxiv.org/abs/2405.21060), sections 6 and 7) makes the decay
# one number for a whole head, and takes $\Delta$, $B$ and $C$ from the input in the same projection
# as $x$ and $z$. That removes `x_proj` and `dt_proj`, and makes room for a much wider state.

# %%
spec2 = dict(preset("mamba2-130m").layer(0))["backbone.layers.0.mixer"]
walk2 = {
    "in_proj.weight": (
        "z, x, B, C and a time step a head",
        "d_model * (2 * d_inner + 2 * ngroups * d_state + nheads)",
    ),
    "conv1d.weight": ("taps over x, B and C", "(d_inner + 2 * ngroups * d_state) * d_conv"),
    "conv1d.bias": ("", "d_inner + 2 * ngroups * d_state"),
    "dt_bias": ("time step of each head", "nheads"),
    "A_log": ("decay of each head", "nheads"),
    "D": ("skip of each head", "nheads"),
    "norm.weight": ("norm before the way out", "d_inner"),
    "out_proj.weight": ("back to the model's width", "d_inner * d_model"),
}
config2 = Mamba2Config(
    num_hidden_layers=1,
    hidden_size=spec2.d_model,
    num_heads=spec2.nheads,
    head_dim=spec2.headdim,
    state_size=spec2.d_state,
    n_groups=spec2.ngroups,
    chunk_size=spec2.chunk_size,
    vocab_size=8,
)
mixer2 = Mamba2Model(config2).layers[0].mixer.eval()
table(walked(walk2, spec2, mixer2))

# %%
model2 = preset("mamba2-130m")
by_hand = len(model2.pattern) * (spec2.params() + spec2.d_model) + spec2.d_model
by_hand += 50288 * spec2.d_model
print(f"mamba2-130m: {by_hand:,} parameters")
assert by_hand == model2.params() == 128_989_632  # transformers' Mamba2ForCausalLM, tied

# %% [markdown]
# ## Mamba-2, FLOP by FLOP: two ways to scan
#
# With one decay a head the scan can be written as matrix products. The sequence is cut into chunks
# of $Q$ tokens. Inside a chunk it is attention without softmax, whose mask holds the decays;
# between chunks a state is carried. The switch `scan` says which way is counted: `recurrent` is
# what decoding does, `chunked` is what training and prefill do.


# %%
def mamba2(u, w, spec, at, scan):
    """A Mamba-2 layer with one group: (b l d_model) -> (b l d_model)."""
    at("in_proj.weight")
    z, xBC, dt = F.linear(u, w["in_proj.weight"]).split([spec.d_inner, spec.d_xBC, spec.nheads], -1)
    at("conv1d.weight")
    xBC = F.conv1d(F.pad(xBC.mT, (spec.d_conv - 1, 0)), w["conv1d.weight"], groups=spec.d_xBC).mT
    at("conv1d.bias")
    xBC = F.silu(xBC + w["conv1d.bias"])
    x, B, C = xBC.split([spec.d_inner, spec.d_state, spec.d_state], -1)
    x = x.unflatten(-1, (spec.nheads, spec.headdim))
    at("dt_bias")
    dt = F.softplus(dt + w["dt_bias"])
    at("A_log")
    a = dt * -w["A_log"].exp()  # the logarithm of the decay: (b l h)
    at("dt_x")
    dx = dt[..., None] * x
    y = scan(dx, a, B, C, at)
    at("D")
    y = y + w["D"][:, None] * x
    at("gate")
    y = y.flatten(2) * F.silu(z)
    at("")  # inside the norm: not a row, see the conventions
    y = y * (y.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
    at("norm.weight")
    y = y * w["norm.weight"]
    at("out_proj.weight")
    return F.linear(y, w["out_proj.weight"])


def recurrent(x, a, B, C, at):
    """Token by token: y = C h with h = exp(a) h + x B."""
    at("write")
    write = x[..., None] * B[:, :, None, None]  # (b l h p n)
    at("carry")
    h = one_by_one(a.exp()[..., None, None], write)
    at("read")
    return einsum("blhpn,bln->blhp", h, C)


def chunked(x, a, B, C, at, q=spec2.chunk_size):
    """The same in chunks of q tokens, the last one padded."""
    l = x.shape[1]
    x, a, B, C = (F.pad(t, (0, 0) * (t.ndim - 2) + (0, -l % q)) for t in (x, a, B, C))
    x, a, B, C = (t.unflatten(1, (-1, q)) for t in (x, a, B, C))  # b c q …
    a = a.mT.cumsum(-1)  # since the chunk began: b c h q
    at("scores")
    scores = einsum("bcqn,bckn->bcqk", C, B)
    at("mask")
    later = torch.ones(q, q).triu(1).bool()
    mask = (a[..., :, None] - a[..., None, :]).masked_fill(later, -torch.inf).exp()
    scores = scores[:, :, None] * mask
    at("within")
    y = einsum("bchqk,bckhp->bcqhp", scores, x)
    at("to_end")
    x = x * (a[..., -1:] - a).exp().mT[..., None]
    at("chunk_state")
    write = einsum("bckn,bckhp->bchpn", B, x)
    at("carry")
    h = one_by_one(a[..., -1].exp()[..., None, None], write)
    h = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)  # a chunk reads what came before it
    at("between")
    before = einsum("bcqn,bchpn->bcqhp", C, h)
    at("from_start")
    y = y + before * a.exp().mT[..., None]
    return y.flatten(1, 2)[:, :l]


u = torch.randn(1, 2 * spec2.chunk_size, spec2.d_model)
counted = {}
with torch.no_grad():
    theirs = mixer2(u)
    for name, scan in {"recurrent": recurrent, "chunked": chunked}.items():
        with Counted() as at:
            ours = mamba2(u, mixer2.state_dict(), spec2, at, scan)
        counted[name] = at
        error = (ours - theirs).abs().max() / theirs.abs().max()
        print(f"{name}: largest relative difference from transformers' layer {error:.0e}")
        assert error < 1e-4

# %% [markdown]
# The two ways give the same output. In chunks, row by row:

# %%
run = Run(l=u.shape[1], scan="chunked")
rows = beside(spec2, run, counted["chunked"].flops)
assert all(row["equal"] == "yes" for row in rows)
inside = counted["chunked"].outside / spec2.flops(l=u.shape[1])
print(f"left out: the arithmetic inside the norm, {inside:.2%} of the layer")
assert inside < 0.01
table(rows)

# %% [markdown]
# And as the recurrence: only the rows of the scan change.

# %%
rows = beside(spec2, Run(l=u.shape[1], scan="recurrent"), counted["recurrent"].flops)
assert all(row["equal"] == "yes" for row in rows)
table([row for row in rows if row["op"] in ("A_log", "dt_x", "write", "carry", "read")])

# %% [markdown]
# ## Look: which chunk size costs what
#
# Add up the rows of the scan for one token. The part inside the chunk grows with $Q$, because every
# token meets $Q$ others; the part between chunks is shared by $Q$ tokens:
#
# $$
# \begin{aligned}
# f(Q) &= Q\,(2I + 2GN + H) + 4NI + 3I + \frac{2NI}{Q} \\
# Q^\ast &= \sqrt{\frac{2NI}{2I + 2GN + H}} \approx \sqrt{N}
# \end{aligned}
# $$
#
# The recurrence takes $5NI$, whatever the length.

# %%
N, I, G, H = spec2.d_state, spec2.d_inner, spec2.ngroups, spec2.nheads


def scan_flops(chunk, scan="chunked", l=4096):
    """FLOPs of the scan for one token: the rows after dt_x and before D."""
    rows = spec2.but(chunk_size=chunk).costs(l=l, scan=scan)
    ops = [row.op for row in rows]
    return sum(row.flops for row in rows[ops.index("dt_x") + 1 : ops.index("D")]) / l


def formula(q):
    return q * (2 * I + 2 * G * N + H) + 4 * N * I + 3 * I + 2 * N * I / q


sizes = [2**k for k in range(13)]
assert all(scan_flops(q) == formula(q) for q in sizes)  # exactly
token_by_token = scan_flops(spec2.chunk_size, "recurrent")
assert token_by_token == 5 * N * I
best = sqrt(2 * N * I / (2 * I + 2 * G * N + H))

fig, ax = plt.subplots(figsize=(6, 3.7), layout="constrained")
ax.loglog(sizes, [scan_flops(q) / 1e6 for q in sizes], "o-", base=2)
ax.axhline(token_by_token / 1e6, color="C1")
chunk = spec2.chunk_size
for words, x, y, color, align in (
    ("in chunks", sizes[10], scan_flops(sizes[10]), "C0", "right"),
    ("token by token", sizes[-1], token_by_token, "C1", "right"),
    (f"as published, Q = {chunk}", chunk, scan_flops(chunk), "C0", "right"),
    (f"fewest at Q = {best:.0f}", best, formula(best) * 0.72, "C0", "center"),
):
    ax.text(x, y / 1e6 * 1.06, words + "  ", color=color, ha=align, va="bottom")
ax.set(xlabel="chunk size Q (tokens)", ylabel="FLOPs of the scan (MFLOP a token)", ylim=(0.5, 32))
ax.xaxis.set_major_formatter("{x:.0f}")
ax.yaxis.set_major_formatter("{x:g}")
ax.set_title("What does the chunk size cost? One layer of mamba2-130m")
plots.show(
    fig, "FLOPs of the scan against chunk size: least near sqrt(d_state), then rising with Q"
)

# %%
print(f"fewest FLOPs at Q = {best:.1f}, and sqrt(N) = {sqrt(N):.1f}")
assert min(sizes, key=scan_flops) in (8, 16) and 8 < best < 16
rest = spec2.flops(l=4096, scan="recurrent") / 4096 - token_by_token
by_chunk = [
    {
        "chunk": q,
        "MFLOP a token": scan_flops(q) / 1e6,
        "against token by token": scan_flops(q) / token_by_token,
        "share of the layer": f"{scan_flops(q) / (rest + scan_flops(q)):.0%}",
    }
    for q in (16, 64, 128, 256, 512)
]
assert scan_flops(16) < token_by_token < scan_flops(256)
table(by_chunk)

# %% [markdown]
# Small chunks need the fewest FLOPs, fewer even than the recurrence. Kernels use larger ones all
# the same: matrix units want large tiles, and each chunk boundary writes a state to memory. A
# larger chunk buys speed with FLOPs, so *more FLOPs* is not *slower* here, and a utilisation means
# little without the convention it was computed with. Note also that the counts are dense: almost
# half of each $Q \times Q$ square lies above the diagonal and is computed for nothing.
#
# The last chunk is padded. One token too many costs a whole chunk:

# %%
table(
    [
        {
            "tokens": l,
            "chunks": -(-l // spec2.chunk_size),
            "GFLOP of the layer": spec2.flops(l=l) / 1e9,
            "MFLOP a token": spec2.flops(l=l) / l / 1e6,
        }
        for l in (256, 257, 512, 4096)
    ]
)

# %% [markdown]
# ## State: what a token hands on
#
# A convolution keeps its last `d_conv` inputs, the scan keeps $I \times N$ numbers. Neither grows
# with the context. The dtype is not a detail: transformers keeps the SSM state in float32 in a bf16
# model, `mamba_ssm` in the dtype of the weights. The last column is what a small model of
# transformers really holds after eight tokens, in bf16.

# %%
small = {
    "Mamba-1": MambaModel(MambaConfig(num_hidden_layers=1, hidden_size=768, vocab_size=8)),
    "Mamba-2": Mamba2Model(config2),
}
held = []
for (name, hf), layer in zip(small.items(), (spec, spec2), strict=True):
    with torch.no_grad():
        cache = hf.bfloat16().eval()(torch.zeros(1, 8, dtype=torch.long), use_cache=True)
    kept = cache.cache_params.layers[0]
    real = {"conv": kept.conv_states[0], "ssm": kept.recurrent_states[0]}
    for state in layer.states(b=1, s=8, dtype="bf16"):
        tensor = real[state.name]
        assert (state.nbytes, state.dtype) == (
            tensor.nbytes,
            {torch.float32: "fp32", torch.bfloat16: "bf16"}[tensor.dtype],
        )
        shape = " × ".join(map(str, state.shape))
        row = {"layer": name, "state": state.name, "shape": shape, "dtype": state.dtype}
        held.append(row | {"bytes": state.nbytes, "transformers holds": tensor.nbytes})
table(held)

# %%
whole = []
for name in ("mamba-130m", "mamba-2.8b", "mamba2-130m", "mamba2-2.7b"):
    m = preset(name)
    one = dict(m.layer(0))["backbone.layers.0.mixer"]
    mib = {t: len(m.pattern) * one.but(ssm_dtype=t).state_bytes() / 2**20 for t in ("fp32", "bf16")}
    assert mib["fp32"] * 2**20 == m.state_bytes(s=4096) == m.state_bytes(s=131_072)
    whole.append(
        {
            "model in bf16": name,
            "d_state": one.d_state,
            "MiB, SSM state in fp32": mib["fp32"],
            "MiB, SSM state in bf16": mib["bf16"],
        }
    )
wide = dict(preset("mamba-2.8b").layer(0))["backbone.layers.0.mixer"]
three_taps = 64 * wide.d_inner * (wide.d_state + wide.d_conv - 1) * 4
print(f"mamba-2.8b, everything in fp32 and three taps kept: {three_taps / 2**20:.2f} MiB")
assert three_taps / 2**20 == 23.75  # as reported in llama.cpp's pull request 5328
table(whole)

# %% [markdown]
# The state of Mamba-2 is larger because $N$ is. For mamba-2.8b llama.cpp reports the number printed
# above the table ([its pull request 5328](https://github.com/ggml-org/llama.cpp/pull/5328)): it
# keeps three taps instead of four, and float32 for both. The same tensors, another convention.
#
# ## Exercises
#
# **1.** Make $N$ eight times larger in both layers (16 to 128 in Mamba-1, 128 to 1024 in Mamba-2).
# By which factor do parameters, FLOPs of the recurrence, and state grow?

# %% tags=["answer"]
growth = []
for name, layer in {"Mamba-1": spec, "Mamba-2": spec2}.items():
    wide = layer.but(d_state=8 * layer.d_state)
    growth.append(
        {
            "layer": name,
            "parameters": wide.params() / layer.params(),
            "FLOPs a token": wide.flops(l=1) / layer.flops(l=1),
            "SSM state": wide.state_bytes("ssm") / layer.state_bytes("ssm"),
        }
    )
assert all(row["SSM state"] == 8 and row["parameters"] < 1.6 for row in growth)
more = spec.but(d_state=8 * spec.d_state).params() - spec.params()
assert more == 3 * 7 * spec.d_state * spec.d_inner  # B and C in x_proj, and A
table(growth)

# %% [markdown]
# **2.** At which $N$ does the recurrence of this Mamba-2 layer take as many FLOPs as its two
# projections? Find the closed form first.

# %% tags=["answer"]
# 5 N I = 2 D (2I + 2GN + H) + 2 I D, solved for N:
d = spec2.d_model
crossing = 2 * d * (3 * I + H) / (5 * I - 4 * d * G)


def excess(n):
    """FLOPs of the recurrence beyond those of the projections, for one token."""
    rows = {row.op: row.flops for row in spec2.but(d_state=n).costs(l=1)}
    scan = rows["write"] + rows["carry"] + rows["read"]
    return scan - rows["in_proj.weight"] - rows["out_proj.weight"]


first = next(n for n in range(1, 5000) if excess(n) >= 0)
print(f"closed form {crossing:.1f}, by the rows {first}: {first / N:.0f} times today's {N}")
assert first - 1 < crossing <= first

# %% [markdown]
# **3.** Split $B$ and $C$ into eight groups. What does it cost in parameters, and what does it do
# to the state?

# %% tags=["answer"]
grouped = spec2.but(ngroups=8)
more = grouped.params() - spec2.params()
print(f"{more:,} parameters more ({more / spec2.params():.0%}); SSM state unchanged")
assert more == 7 * 2 * spec2.d_state * (spec2.d_model + spec2.d_conv + 1)
assert grouped.state_bytes("ssm") == spec2.state_bytes("ssm")
assert grouped.state_bytes("conv") > spec2.state_bytes("conv")

# %% [markdown]
# **4.** Point torch's own counter at transformers' Mamba-1 layer. What does it see, and what not?

# %% tags=["answer"]
l = 64
with torch.no_grad(), Counted(plain=True) as at:
    mixer1(torch.randn(1, l, spec.d_model))
rows = {row.op: row.flops for row in spec.costs(l=l)}
conv = rows["conv1d.weight"] * (l + spec.d_conv - 1) // l  # it pads both ends and cuts one off
seen = sum(v for k, v in rows.items() if k.endswith("proj.weight")) + conv + rows["read"]
print(f"torch's counter: {at.outside:,}, projections + padded convolution + read: {seen:,}")
print(f"all rows: {spec.flops(l=l):,}; a fused GPU kernel would hide the scan entirely")
assert at.outside == seen

# %% [markdown]
# ## Find the bug
#
# **A.** `compute_mamba2_flops` in `calc/calc_mamba_flops.py` of
# [zcookbook](https://github.com/Zyphra/zcookbook) (at `ec06304`) adds up the terms below for one
# token. Its input projection and its convolution are right, and so is the Mamba-1 function beside
# it. But the total for a layer of mamba2-2.7b is far too high, and it is the same with and without
# recomputation. Which term is wrong, by which factor, and why does the switch do nothing?

# %%
big = dict(preset("mamba2-2.7b").layer(0))["backbone.layers.0.mixer"]
d, i, n, h, taps = big.d_model, big.d_inner, big.d_state, big.nheads, big.d_conv


def peers_mamba2(iter_factor):
    return {
        "in_proj": 2 * (2 * i + 2 * n + h) * d,
        "conv": 2 * (i + 2 * n) * taps + (i + 2 * n),
        "scan": 4 * i * n + 2 * i * n + i * (2 + n),
        "gate and norm": 5 * i,
        "out_proj": 2 * i * n * d,
    }


ours = {row.op: row.flops for row in big.costs(l=1)}
mine = {
    "in_proj": ours["in_proj.weight"],
    "conv": ours["conv1d.weight"] + ours["conv1d.bias"],
    "scan": sum(ours[k] for k in ("A_log", "dt_x", "write", "carry", "read", "D")),
    "gate and norm": ours["gate"] + ours["norm.weight"],
    "out_proj": ours["out_proj.weight"],
}
table(
    [
        {"term": name, "theirs": value, "the rows": mine[name], "ratio": value / mine[name]}
        for name, value in peers_mamba2(iter_factor=3).items()
    ]
)

# %% tags=["answer"]
right = 2 * i * d
too_much = peers_mamba2(3)["out_proj"] / right
print(f"out_proj has a factor d_state too many: {too_much:.0f} times too high; {right:,} is right")
print(f"the sum is {sum(peers_mamba2(1).values()) / sum(mine.values()):.1f} times the forward pass")
print("iter_factor (3, or 4 with recomputation) is an argument that nothing uses")
print("scan, gate and norm differ by convention: they count the norm's inside and SiLU too")
assert too_much == n and mine["out_proj"] == right
assert peers_mamba2(3) == peers_mamba2(4)

# %% [markdown]
# **B.** The walk through Mamba-1 on the page beside that script, `calc/README.md`, ends in
# $BLI(6D + 2C + 8IS + 2E + dt) + IS$, with $B$ sequences of $L$ tokens, $C$ taps, $S$ states and
# $E = D$. Every step before it is well explained. Compute it for one token of mamba-130m. Two terms
# are wrong.

# %%
D, I, S, taps, rank = spec.d_model, spec.d_inner, spec.d_state, spec.d_conv, spec.rank
printed = I * (6 * D + 2 * taps + 8 * I * S + 2 * D + rank) + I * S
ours = spec.flops(l=1)
print(f"the printed formula: {printed / 1e6:.1f} MFLOP a token; the rows: {ours / 1e6:.2f} MFLOP")

# %% tags=["answer"]
script = I * (6 * D + 2 * taps + 11 * S + 4 * rank + 1)  # what calc_mamba_flops.py computes
print("8IS stands inside I(…), so it has an I too many, and 2E counts out_proj, which 6D holds")
print(
    f"their own script has neither and is within {abs(script / ours - 1):.1%} of the rows:", end=" "
)
print(f"the printed formula is {printed / script:.1f} times that")
assert round(printed / script, 1) == 40.7
assert abs(script / ours - 1) < 0.005
