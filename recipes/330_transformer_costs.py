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
# # What does a transformer layer cost?
#
# **Goal.** Derive the parameters and FLOPs of attention, of the MLP and of a mixture of experts,
# say when attention becomes the expensive part, what a training step costs, and where the rule
# $6ND$ fails. **Needs** a CPU and about ten seconds.
# Builds on [chapter 310](310_cost_of_a_block.py).
#
# Everything here is known, and still public calculators disagree by factors of two. They count
# different things (causal or dense, logits or not) or forget one (a gate, the heads that keys
# share). So every count below stands beside what PyTorch allocates and runs.
#
# Letters: $d$ is `d_model`, $f$ is `d_ff`, $s$ tokens of context, $h$ query heads and $g$ key-value
# heads of $k$ channels each.

# %%
import warnings
from bisect import bisect_left
from fractions import Fraction
from textwrap import fill

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import einsum
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from cookbook_lib import plots
from cookbook_lib.blocks.counted import Counted, beside, walked
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.configs import from_dict
from cookbook_lib.calculators.presets import preset
from cookbook_lib.calculators.runs import Run
from cookbook_lib.plots import table

plots.use()
torch.manual_seed(0)
with warnings.catch_warnings(action="ignore"):  # no notices about progress bars,
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        MixtralConfig,
        MixtralForCausalLM,
        logging,
    )
logging.set_verbosity_error()  # nor about kernels that a CPU does not have

llama = preset("llama-3.1-8b")
layer = {block.component: block for name, block in llama.layer(0)}
attention_spec, mlp_spec = layer["attention"], layer["mlp"]
print(fill(str(attention_spec), 76), mlp_spec, sep="\n")

# %% [markdown]
# ## The layer, parameter by parameter
#
# Llama-3.1-8B has 32 such layers. The column *torch* is the same layer of `transformers`, on
# torch's `meta` device: it has shapes and no numbers, so the full model takes no memory.

# %%
config = LlamaConfig(
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=128256,
    tie_word_embeddings=False,
)
with torch.device("meta"):
    hf = LlamaForCausalLM(config)
first = hf.model.layers[0]
walk = {
    "q_proj.weight": ("queries", "d_model * n_heads * head_dim"),
    "k_proj.weight": ("keys", "d_model * n_kv_heads * head_dim"),
    "v_proj.weight": ("values", "d_model * n_kv_heads * head_dim"),
    "o_proj.weight": ("heads back to the model's width", "n_heads * head_dim * d_model"),
}
walk_mlp = {
    "gate_proj.weight": ("the gate", "d_model * d_ff"),
    "up_proj.weight": ("what the gate lets through", "d_model * d_ff"),
    "down_proj.weight": ("back to the model's width", "d_ff * d_model"),
}
*attention_rows, attention_sum = walked(walk, attention_spec, first.self_attn)
*mlp_rows, mlp_sum = walked(walk_mlp, mlp_spec, first.mlp)
table([*attention_rows, *mlp_rows])

# %%
d, layers, vocab = attention_spec.d_model, len(llama.pattern), 128256
by_hand = layers * (attention_sum["by hand"] + mlp_sum["by hand"] + 2 * d) + d + 2 * vocab * d
print(f"{layers} layers with two norms each, a last norm, embedding and head: {by_hand:,}")
assert by_hand == llama.params() == sum(p.numel() for p in hf.parameters()) == 8_030_261_248

# %% [markdown]
# ## The layer, FLOP by FLOP
#
# The same layer in plain PyTorch. `at("…")` names the row that the next lines belong to. Rotary
# positions, softmax and the scale of the scores are not products of tensors and not rows.


# %%
def attention(x, w, spec, at):
    """Causal attention, every score computed: (b l d_model) -> (b l d_model)."""
    heads = (spec.n_kv_heads, spec.per_kv, spec.head_dim)
    at("q_proj.weight")
    q = F.linear(x, w["q_proj.weight"]).unflatten(-1, heads)
    at("k_proj.weight")
    k = F.linear(x, w["k_proj.weight"]).unflatten(-1, heads[::2])
    at("v_proj.weight")
    v = F.linear(x, w["v_proj.weight"]).unflatten(-1, heads[::2])
    at("scores")
    scores = einsum("blgrk,bsgk->bgrls", q, k)
    at("")
    l = x.shape[1]
    later = torch.ones(l, l, device=x.device).triu(1).bool()
    scores = (scores * spec.head_dim**-0.5).masked_fill(later, -torch.inf).softmax(-1)
    at("values")
    y = einsum("bgrls,bsgk->blgrk", scores, v)
    at("o_proj.weight")
    return F.linear(y.flatten(2), w["o_proj.weight"])


def mlp(x, w, at):
    """A gated MLP: (b l d_model) -> (b l d_model)."""
    at("gate_proj.weight")
    gate = F.silu(F.linear(x, w["gate_proj.weight"]))
    at("up_proj.weight")
    up = F.linear(x, w["up_proj.weight"])
    at("gate")
    y = gate * up
    at("down_proj.weight")
    return F.linear(y, w["down_proj.weight"])


run = Run(l=4096)
x = torch.empty(1, run.l, d, device="meta")
with Counted() as at_attention:
    attention(x, first.self_attn.state_dict(), attention_spec, at_attention)
with Counted() as at_mlp:
    mlp(x, first.mlp.state_dict(), at_mlp)
rows = beside(attention_spec, run, at_attention.flops) + beside(mlp_spec, run, at_mlp.flops)
assert all(row["equal"] == "yes" for row in rows)
table(rows)

# %% [markdown]
# The equations, on small numbers, against torch's own attention:

# %%
small = attention_spec.but(d_model=64, n_heads=8, n_kv_heads=2, head_dim=8)
w = {name: torch.randn(8 * 8 if name[0] in "qo" else 2 * 8, 64) / 8 for name in walk}
x = torch.randn(1, 50, 64)
q, k, v = (F.linear(x, w[f"{p}_proj.weight"]).unflatten(-1, (-1, 8)).transpose(1, 2) for p in "qkv")
with Counted(plain=True) as fused:
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
theirs = F.linear(y.transpose(1, 2).flatten(2), w["o_proj.weight"])
with Counted(plain=True) as written:
    ours = attention(x, w, small, written)
error = (ours - theirs).abs().max() / theirs.abs().max()
print(f"largest relative difference from torch's attention: {error:.0e}")
assert error < 1e-5
per_op = written.flops["scores"] + written.flops["values"]
print(f"torch's counter sees {per_op:,} FLOPs in scores and values,", end=" ")
print(f"and {fused.outside:,} if the fused kernel of the CPU computes them")

# %% [markdown]
# So the counter is an instrument, and one must know what it does not see.
#
# ## Causal or dense
#
# A causal model needs only the pairs of a query with the keys before it, $s(s+1)/2$ of $s^2$. The
# plain code above computes all of them and throws half away; a fused kernel skips most of the rest.
# Papers report either. `attention="dense"` and `"causal"` name the two.

# %%
both = []
for s in (1024, 4096, 16384, 65536):
    dense, causal = (
        sum(
            r.flops
            for r in attention_spec.costs(l=s, attention=how)
            if r.op in ("scores", "values")
        )
        for how in ("dense", "causal")
    )
    assert dense == 4 * s * s * attention_spec.d_q and causal * 2 * s == dense * (s + 1)
    whole = layer["attention"].flops(l=s) + layer["mlp"].flops(l=s)
    both.append(
        {
            "tokens": s,
            "scores and values, TFLOP, dense": round(dense / 1e12, 3),
            "causal": round(causal / 1e12, 3),
            "whole layer, dense / causal": whole / (whole - dense + causal),
        }
    )
table(both)

# %% [markdown]
# The choice of convention moves a layer by little at a few thousand tokens, and by a factor that
# goes to two as the context grows. A utilisation can only be compared with one that counts alike.
#
# ## Heads: what sharing keys buys
#
# Grouped queries (GQA, [arXiv:2305.13245](https://arxiv.org/abs/2305.13245)) let several queries
# share a key and a value; with one key-value head it is called MQA. A window lets a token see only
# the last tokens. What does each of them save? The middle columns are causal MFLOP a token, for the
# projections and for scores and values with 4k and 64k tokens; the last two are the cache in bf16.

# %%
variants = {
    "MHA, 32 KV heads": attention_spec.but(n_kv_heads=32),
    "GQA, 8": attention_spec,
    "MQA, 1": attention_spec.but(n_kv_heads=1),
    "GQA, 8, window 4096": attention_spec.but(window=4096),
}
heads = []
for name, spec in variants.items():
    quadratic = [
        sum(r.flops for r in spec.costs(l=s, attention="causal") if r.op in ("scores", "values"))
        / s
        for s in (4096, 65536)
    ]
    heads.append(
        {
            "layer": name,
            "parameters": spec.params(),
            "projections": round(2 * spec.params() / 1e6, 1),
            "scores 4k": round(quadratic[0] / 1e6, 1),
            "scores 64k": round(quadratic[1] / 1e6, 1),
            "B a token": spec.state_bytes(s=1),
            "MiB at 64k": spec.state_bytes(s=65536) / 2**20,
        }
    )
    kept = min(65536, (spec.window or 65537) - 1)
    assert spec.state_bytes(s=65536) == 2 * kept * spec.n_kv_heads * spec.head_dim * 2  # bf16
assert len({row["scores 4k"] for row in heads}) == 1
w = 4096
assert variants["GQA, 8, window 4096"].pairs(Run(l=65536)) == w * (w + 1) // 2 + (65536 - w) * w
table(heads)

# %% [markdown]
# Sharing keys does nothing for the scores: every query still meets every key. It saves cache, and
# some parameters. Only the window, or a layer without attention, stops the growth.
#
# ## When does the quadratic part take over?
#
# For one token of a prompt of $s$ tokens, scores and values cost $4sd_q$ (dense) or
# $2(s+1)d_q$ (causal), with $d_q = hk$. A product with $P$ weights costs $2P$. So they are equal at
#
# $$
# s_\mathrm{dense} = \frac{2P + e}{4 d_q}, \qquad s_\mathrm{causal} = \frac{2P + e}{2 d_q} - 1
# $$
#
# where $P$ counts the weights that attention is compared with, and $e$ the few FLOPs of their
# gates and biases. With $P = 4d^2$, the projections of plain attention, that is $2d$ and $4d - 1$.
# The cell finds the same lengths by search in the rows, for attention's *own* projections and for
# the whole *layer* with its MLP or experts.


# %%
def parts(model, s, how="causal"):
    """FLOPs of one layer for s tokens: scores and values, projections, the rest but norms."""
    blocks = [b for _, b in model.layer(0) if b.component in ("attention", "mlp", "moe")]
    rows = [row for b in blocks for row in b.costs(l=s, attention=how)]
    quadratic = sum(r.flops for r in rows if r.op in ("scores", "values"))
    projections = sum(r.flops for r in rows if r.component == "attention") - quadratic
    return quadratic, projections, sum(r.flops for r in rows) - quadratic - projections


def crossing(model, how, whole):
    """The first prompt length at which scores and values cost as much: search, closed form."""

    def above(s):
        quadratic, projections, rest = parts(model, s, how)
        return quadratic >= projections + rest * whole

    found = bisect_left(range(1, 2**20), True, key=above) + 1
    _, projections, rest = parts(model, 1)
    linear = projections + rest * whole
    d_q = next(b.d_q for _, b in model.layer(0) if b.component == "attention")
    closed = Fraction(linear, 4 * d_q) if how == "dense" else Fraction(linear, 2 * d_q) - 1
    assert found - 1 < closed <= found
    return found


crossings = []
for name in ("pythia-1.4b", "llama-2-7b", "llama-3.1-8b", "mixtral-8x7b-v0.1", "olmoe-1b-7b-0924"):
    model = preset(name)
    crossings.append(
        {
            "model": name,
            "d_model": next(b.d_model for _, b in model.layer(0) if b.component == "attention"),
            "own, dense": crossing(model, "dense", whole=False),
            "own, causal": crossing(model, "causal", whole=False),
            "layer, dense": crossing(model, "dense", whole=True),
            "layer, causal": crossing(model, "causal", whole=True),
        }
    )
assert (crossings[1]["own, dense"], crossings[1]["own, causal"]) == (2 * 4096, 4 * 4096 - 1)
table(crossings)

# %%
lengths = [2**k for k in range(8, 19)]
fig, ax = plt.subplots(figsize=(6, 3.7), layout="constrained")
for i, (name, at, side) in enumerate(
    [("pythia-1.4b", 6, "right"), ("llama-3.1-8b", 9, "left"), ("mistral-7b-v0.1", 8, "left")]
):
    shares = [100 * parts(preset(name), s)[0] / sum(parts(preset(name), s)) for s in lengths]
    ax.plot(lengths, shares, "o-", color=f"C{i}")
    y, va = (shares[at], "bottom") if side == "right" else (shares[at] - 2, "top")  # off the curve
    ax.text(lengths[at], y, f"  {name}  ", color=f"C{i}", ha=side, va=va)
ax.axhline(50, ls="--", lw=1, color="gray")
ax.set_xscale("log", base=2)
ax.set_xticks(lengths[::2], [f"{s // 1024}k" if s >= 1024 else s for s in lengths[::2]])
ax.set(xlabel="length of the prompt (tokens)", ylabel="scores and values (% of a layer's FLOPs)")
ax.set_title("When does attention's quadratic part do half of the work? (causal)")
plots.show(
    fig,
    "Share of scores and values against prompt length: small at 4k, above half from 64k on, "
    "and flat for the model with a window",
)

# %% [markdown]
# "Attention is quadratic" is true and, at a few thousand tokens, beside the point: the matrix
# products of the layer do nearly all of the work. A hybrid that drops attention saves FLOPs at long
# context, and bytes of cache at any.
#
# ## The MLP: two matrices or three
#
# A gate (SwiGLU, [arXiv:2002.05202](https://arxiv.org/abs/2002.05202)) adds a third matrix. To
# keep the parameters, $f$ shrinks from $4d$ to $8d/3$, usually rounded up to a multiple that
# kernels like.

# %%
mlps = {"plain, f = 4d": specs.MLP(d_model=4096, d_ff=4 * 4096, gated=False)}
mlps["Llama-2-7B, f = 8d/3 rounded up"] = next(
    b for _, b in preset("llama-2-7b").layer(0) if b.component == "mlp"
)
mlps["Llama-3.1-8B, f = 3.5d"] = mlp_spec
table(
    [
        {
            "MLP": name,
            "d_ff": spec.d_ff,
            "matrices": 3 if spec.gated else 2,
            "parameters": spec.params(),
            "MFLOP a token": spec.flops(l=1) / 1e6,
        }
        for name, spec in mlps.items()
    ]
)

# %%
plain, llama2, _ = mlps.values()
assert plain.params() == 8 * 4096**2
assert (
    llama2.d_ff == -(-8 * 4096 // 3 // 256) * 256
    and abs(llama2.params() / plain.params() - 1) < 0.01
)
print(f"a gate at the same size: {llama2.params() / plain.params():.3f} of the parameters")

# %% [markdown]
# ## A mixture of experts: stored, active, used
#
# A router sends each token to $k$ of $E$ experts. All are stored; a token multiplies with $k$ of
# them and with the router. Which ones does not change the count. Again written down, checked and
# counted, now with a small copy of Mixtral's layer.


# %%
def moe(x, w, spec, at):
    """Experts of each token, weighted and added: (b l d_model) -> (b l d_model)."""
    shape, x = x.shape, x.flatten(0, 1)
    at("gate.weight")  # what Mixtral calls its router
    logits = F.linear(x, w["gate.weight"])
    weights, picks = logits.softmax(-1).topk(spec.topk)
    weights = weights / weights.sum(-1, keepdim=True)
    out = torch.zeros_like(x)
    for e in range(spec.n_experts):
        token, slot = (picks == e).nonzero(as_tuple=True)
        at("experts.gate_up_proj")
        gate, up = F.linear(x[token], w["experts.gate_up_proj"][e]).chunk(2, -1)
        at("gate")
        y = F.silu(gate) * up
        at("experts.down_proj")
        y = F.linear(y, w["experts.down_proj"][e])
        at("combine")
        out[token] = out[token] + weights[token, slot, None] * y
    return out.view(shape)


mixtral = preset("mixtral-8x7b-v0.1")
moe_spec = next(b for _, b in mixtral.layer(0) if b.component == "moe").but(d_model=64, d_ff=96)
small = MixtralConfig(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=8,
    experts_implementation="eager",
)
block = MixtralForCausalLM(small).model.layers[0].mlp.eval()
walk_moe = {
    "gate.weight": ("the router", "d_model * n_experts"),
    "experts.gate_up_proj": ("gate and up of each expert", "n_experts * 2 * d_ff * d_model"),
    "experts.down_proj": ("back to the model's width", "n_experts * d_ff * d_model"),
}
table(walked(walk_moe, moe_spec, block))

# %%
run = Run(b=2, l=50)
x = torch.randn(run.b, run.l, moe_spec.d_model)
with torch.no_grad():
    with Counted() as at:
        ours = moe(x, block.state_dict(), moe_spec, at)
    theirs = block(x)
error = (ours - theirs).abs().max() / theirs.abs().max()
print(f"largest relative difference from transformers' layer: {error:.0e}")
assert error < 1e-5
rows = beside(moe_spec, run, at.flops)
assert all(row["equal"] == "yes" for row in rows)
table(rows)

# %%
with torch.device("meta"):
    stored = sum(p.numel() for p in MixtralForCausalLM(MixtralConfig()).parameters())
assert mixtral.params() == stored == 46_702_792_704
experts = []
for name in (
    "llama-3.1-8b",
    "mixtral-8x7b-v0.1",
    "olmoe-1b-7b-0924",
    "blackmamba-2.8b",
    "zamba2-2.7b",
):
    model = preset(name)
    forward = model.flops(l=4096, attention="causal") / 4096
    experts.append(
        {
            "model": name,
            "stored": model.params(),
            "active": model.params_active(),
            "used": model.params_used(),
            "GFLOP a token": forward / 1e9,
            "/ 2 · stored": forward / 2 / model.params(),
            "/ 2 · used": forward / 2 / model.params_used(),
        }
    )
idle = len(mixtral.pattern) * 6 * 3 * 4096 * 14336  # six of eight experts
assert mixtral.params() - mixtral.params_active() == idle
table(experts)

# %% [markdown]
# The FLOPs are those of a forward pass over 4k tokens. *Stored* decides the memory, *active* is
# what a paper calls "7B-A1B", *used* is what decides the FLOPs: it also counts a shared block each
# time that it runs. For Zamba2 it is larger than what is stored. The last column stays near one
# for all of them.
#
# ## The vocabulary
#
# The embedding is looked up and costs nothing. The head multiplies every position with the whole
# vocabulary in training, and only the last one in prefill. The table has the vocabulary's share of
# the parameters, and the head's share of the forward FLOPs for 4k tokens.

# %%
heads = []
for name in ("pythia-1.4b", "mamba-130m", "zamba2-1.2b", "olmoe-1b-7b-0924", "llama-3.1-8b"):
    model = preset(name)
    (head,) = (b for _, b in model.after if b.component == "head")
    tied = model.after[-1][0] == model.before[0][0]  # one name, one table
    everything, last = (model.flops(l=4096, attention="causal", logits=x) for x in ("all", "last"))
    assert everything - last == 2 * head.d_model * head.vocab * 4095
    heads.append(
        {
            "model": name,
            "vocabulary": head.vocab,
            "tied": "yes" if tied else "no",
            "of parameters": f"{(1 if tied else 2) * head.params() / model.params():.0%}",
            "of FLOPs, all": f"{head.flops(l=4096) / everything:.0%}",
            "of FLOPs, last": f"{head.flops(l=1) / last:.3%}",
        }
    )
table(heads)

# %% [markdown]
# Small models with large vocabularies spend a good part of their training on the head.
#
# ## A training step: three times forward, or four
#
# Each product $y = xW$ has two gradients, one for $x$ and one for $W$, and each costs as much as
# the product. So a step is three times the forward pass. With recomputation the layers (not the
# head) run forward once more. Does torch do the same? Below is a whole small model, trained for
# one step.

# %%
tiny = from_dict(
    {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "vocab_size": 500,
        "tie_word_embeddings": False,
    },
    "tiny",
)
shapes = {"q": (64, 64), "k": (16, 64), "v": (16, 64), "o": (64, 64)}
shapes |= {"gate": (160, 64), "up": (160, 64), "down": (64, 160)}
w = {f"{k}_proj.weight": torch.randn(v, requires_grad=True) for k, v in shapes.items()}
embedding, head = (torch.randn(500, 64, requires_grad=True) for _ in range(2))
tokens = torch.randint(500, (2, 100))
spec = next(b for _, b in tiny.layer(0) if b.component == "attention")


def one_layer(x):
    x = x + attention(F.rms_norm(x, (64,)), w, spec, str)  # str: a name that nobody writes down
    return x + mlp(F.rms_norm(x, (64,)), w, str)


def step(again=None):
    """What torch's counter saw after the forward pass, and after the backward pass."""
    with Counted(plain=True) as at:
        x = F.embedding(tokens, embedding)
        for _ in range(3):
            x = checkpoint(one_layer, x, use_reentrant=False) if again else one_layer(x)
        loss = F.linear(x, head).square().mean()
        forward = at.get_total_flops()
        loss.backward()
    return forward, at.get_total_flops()


products = [r for r in tiny.costs(b=2, l=100) if r.kind == "matmul"]
forward = sum(r.flops for r in products)
in_head = sum(r.flops for r in products if r.component == "head")
assert step() == (forward, 3 * forward)
with set_checkpoint_early_stop(False):
    full = step(again=True)[1]
assert full == 3 * forward + (forward - in_head)
stopped = step(again=True)[1]
down = sum(r.flops for r in products if r.op == "down_proj.weight")
assert full - stopped == down
print("all counts are matrix products, in units of the forward pass")
table(
    [
        {"training step": "forward", "torch counted": forward, "times": 1.0},
        {"training step": "forward and backward", "torch counted": step()[1], "times": 3.0},
        {
            "training step": "with full recomputation of the layers",
            "torch counted": full,
            "times": full / forward,
        },
        {
            "training step": "the same, stopping early (torch's default)",
            "torch counted": stopped,
            "times": stopped / forward,
        },
    ]
)

# %% [markdown]
# It does, to the last product. The fourth pass is less than a full one, for two reasons: the head
# is not recomputed, and torch stops as soon as it has all that the backward pass needs, so the
# last product of each layer is left out.
#
# ## 6ND, and when it fails
#
# Two FLOPs for each parameter and token, three times: $6ND$ for $N$ parameters and $D$ tokens. The
# rule leaves out the scores, and takes every parameter for one that each token multiplies with
# once.

# %%
rule = []
for name in (
    "pythia-1.4b",
    "llama-3.1-8b",
    "mamba2-2.7b",
    "mamba-130m",
    "mixtral-8x7b-v0.1",
    "blackmamba-2.8b",
    "zamba2-2.7b",
):
    model = preset(name)
    truth = model.step_flops(l=4096, attention="causal") / 4096
    rule.append(
        {
            "model": name,
            "GFLOP a token": truth / 1e9,
            "6 · stored": truth / (6 * model.params()),
            "6 · active": truth / (6 * model.params_active()),
            "6 · used": truth / (6 * model.params_used()),
        }
    )
ratio = {row["model"]: row for row in rule}
assert all(0.9 < row["6 · used"] < 1.25 for row in rule)
assert ratio["mixtral-8x7b-v0.1"]["6 · stored"] < 0.35 and ratio["zamba2-2.7b"]["6 · stored"] > 1.3
table(rule)

# %% [markdown]
# The last three columns say what the true count is in units of each rule. With *used* parameters
# the rule is right within some per cent at this length, for every model. With stored ones it is
# far too high for a mixture of experts and too low for shared blocks. And length is still missing:

# %%
lengths = [2**k for k in range(9, 18)]
fig, ax = plt.subplots(figsize=(6, 3.7), layout="constrained")
for i, (name, at, side) in enumerate(
    [("zamba2-2.7b", 0, 1.05), ("llama-3.1-8b", 0, 0.86), ("mamba2-2.7b", 6, 1.05)]
    + [("mixtral-8x7b-v0.1", 0, 1.05)]
):
    model = preset(name)
    y = [model.step_flops(l=s, attention="causal") / s / (6 * model.params()) for s in lengths]
    ax.plot(lengths, y, "o-", color=f"C{i}")
    ax.text(lengths[at], y[at] * side, name, color=f"C{i}", va="bottom" if side > 1 else "center")
ax.axhline(1, ls="--", lw=1, color="gray")
ax.set_xscale("log", base=2)
ax.set_yscale("log", base=2)
ax.yaxis.set_major_formatter("{x:g}")
ax.set_xticks(lengths[::2], [f"{s // 1024}k" if s >= 1024 else s for s in lengths[::2]])
ax.set(xlabel="length of the training sequences (tokens)", ylabel="true FLOPs / 6ND, N stored")
ax.set_title("By which factor is 6ND wrong?")
plots.show(
    fig,
    "True training FLOPs over 6ND against sequence length: near one for dense models at short "
    "lengths, a third for Mixtral, above one and rising for Zamba2 and for long sequences",
)

# %% [markdown]
# ## The cache
#
# For each token a layer keeps $g$ keys and $g$ values of $k$ channels: $2 \cdot g k$ numbers a
# layer, whatever the number of query heads. In bf16:

# %%
caches = []
for name, s in (
    ("llama-2-7b", 4096),
    ("llama-3.1-8b", 4096),
    ("llama-3.1-8b", 8192),
    ("mistral-7b-v0.1", 131072),
    ("mixtral-8x7b-v0.1", 131072),
    ("llama-3.1-8b", 131072),
):
    model = preset(name)
    (spec,) = {b for _, b in model.layout if b.component == "attention"}
    tokens = min(s, (spec.window or s + 1) - 1)
    by_hand = 2 * len(model.pattern) * spec.n_kv_heads * spec.head_dim * 2 * tokens
    assert model.state_bytes("kv", s=s) == by_hand
    caches.append(
        {
            "model": name,
            "heads": spec.n_heads,
            "KV heads": spec.n_kv_heads,
            "tokens": s,
            "kept": tokens,
            "cache, GiB": round(by_hand / 2**30, 3),
            "weights, GiB": round(2 * model.params() / 2**30, 1),
        }
    )
assert (caches[0]["cache, GiB"], caches[2]["cache, GiB"]) == (2, 1)
table(caches)

# %% [markdown]
# ## Exercises
#
# **1.** You have 80 GB for the weights of Llama-3.1-8B and its cache in bf16. How many sequences of
# 32,768 tokens fit? How many with one key-value head?

# %% tags=["answer"]
left = 80e9 - 2 * llama.params()
fits = {}
for g in (8, 1):
    spec = attention_spec.but(n_kv_heads=g)
    smaller = 2 * layers * (attention_spec.params() - spec.params())
    fits[g] = int((left + smaller) // (layers * spec.state_bytes(s=32768)))
    print(f"{g} key-value heads: {fits[g]} sequences")
assert fits[1] > 8 * fits[8]  # the model is smaller too

# %% [markdown]
# **2.** You want the router of an MoE layer to take no more than one per cent of the layer's FLOPs.
# How many experts may a layer have whose experts are as wide as OLMoE's?

# %% tags=["answer"]
olmoe = next(b for _, b in preset("olmoe-1b-7b-0924").layer(0) if b.component == "moe")


def router_share(n):
    rows = {row.op: row.flops for row in olmoe.but(n_experts=n).costs(l=1)}
    return rows["gate.weight"] / sum(rows.values())


most = bisect_left(range(1, 10**6), True, key=lambda n: n >= olmoe.topk and router_share(n) > 0.01)
print(f"{most} experts: {router_share(most):.3%}; OLMoE has {olmoe.n_experts}", end=": ")
print(f"{router_share(olmoe.n_experts):.2%}")
assert router_share(most) <= 0.01 < router_share(most + 1)

# %% [markdown]
# **3.** Extend the training sequences of Llama-3.1-8B from 8,192 to 131,072 tokens. By which
# factor does a token get more expensive? Guess before you run it.

# %% tags=["answer"]
short, long = (llama.step_flops(l=s, attention="causal") / s for s in (8192, 131072))
print(f"{short / 1e9:.1f} -> {long / 1e9:.1f} GFLOP a token, {long / short:.2f} times")
d_q = attention_spec.d_q
assert long - short == 3 * layers * 2 * d_q * (131072 - 8192)  # only the pairs grow

# %% [markdown]
# ## Find the bug
#
# **A.** `calc/calc_transformer_mem.py` of
# [EleutherAI/cookbook](https://github.com/EleutherAI/cookbook) (at `827ee3b`) sizes weights,
# gradients, optimizer and activations in one call. For the cache in inference it multiplies the
# bytes of a number with `hidden_size`, `num_layers`, the tokens and the batch. Compare. Which two
# things are missing, and for which models is the result right all the same?


# %%
def peers_cache(hidden_size, num_layers, tokens, batch=1, nbytes=2):
    return nbytes * hidden_size * num_layers * tokens * batch


compared = []
for name, s in (("llama-2-7b", 4096), ("llama-3.1-8b", 8192)):
    model = preset(name)
    theirs, ours = peers_cache(4096, 32, s), model.state_bytes("kv", s=s)
    compared.append(
        {"model": name, "tokens": s, "theirs, GiB": theirs / 2**30, "GiB": ours / 2**30}
    )
table(compared)

# %% tags=["answer"]
print("keys and values are two tensors: a factor of 2 is missing")
print("only n_kv_heads of n_heads are kept: a factor n_kv_heads / n_heads is missing")
for row, (g, h) in zip(compared, ((32, 32), (8, 32)), strict=True):
    assert row["theirs, GiB"] * 2 * g / h == row["GiB"]
print("with half as many key-value heads as heads the two mistakes cancel")

# %% [markdown]
# **B.** The same script reads a `config.json` of the hub: the width $d$, the layers $L$, $f$, the
# vocabulary $V$ and the longest sequence $s$. With its defaults for the rest it adds up the terms
# below. For Pythia, a model of the kind that it was written for, the sum is good. For Llama-3-8B it
# is not. Which four terms are wrong?


# %%
def peers_params(V, L, d, f, s):
    return {
        "embedding and head": 2 * V * d,
        "positions": s * d,
        "norms": 8 * d * L + 2 * d,
        "attention": 4 * L * d * d,
        "MLP": 2 * L * d * f,
    }


theirs = peers_params(V=128256, L=32, d=4096, f=14336, s=8192)
pythia, sum_for_pythia = (
    preset("pythia-1.4b"),
    sum(peers_params(50304, 24, 2048, 8192, 2048).values()),
)
print(f"pythia-1.4b: theirs {sum_for_pythia:,}, the model {pythia.params():,}", end=" ")
print(f"({sum_for_pythia / pythia.params() - 1:+.1%})")
print(f"llama-3-8b:  theirs {sum(theirs.values()):,}, the model {llama.params():,}", end=" ")
print(f"({sum(theirs.values()) / llama.params() - 1:+.1%})")
assert abs(sum_for_pythia / pythia.params() - 1) < 0.005

# %% tags=["answer"]
right = {
    "embedding and head": llama.before[0][1].params() + llama.after[1][1].params(),
    "positions": 0,  # rotary: nothing is learned
    "norms": sum(b.params() for _, b in llama.layout if b.component == "norm"),  # RMSNorm: no bias
    "attention": layers * attention_spec.params(),  # 8 key-value heads, not 32
    "MLP": layers * mlp_spec.params(),  # three matrices: the gate
}
assert sum(right.values()) == llama.params()
assert [name for name in right if right[name] != theirs[name]] == [
    "positions",
    "norms",
    "attention",
    "MLP",
]
print(
    "flags of the script mend attention (-kv 0.25) and MLP (-nl 3); reading the config sets neither"
)
table(
    [
        {"term": name, "theirs": theirs[name], "right": n, "difference": theirs[name] - n}
        for name, n in right.items()
    ]
)
