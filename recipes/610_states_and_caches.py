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
# # States against caches
#
# **Goal.** Say what each kind of layer keeps between two tokens, what that costs to fork, to take
# back and to share between prompts, and what few bits and rejected proposals do to a state.
# **Needs** a CPU and about half a minute.
#
# Attention keeps the keys and values of every token: a *cache*, which grows. A recurrent layer
# keeps one sum over all tokens: a *state*, which is replaced. How fast either can be read is in the
# chapter on [serving](380_serving.py). Here is what one can *do* with them.

# %%
import time

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from cookbook_lib import plots
from cookbook_lib.blocks.cache import Cache
from cookbook_lib.blocks.latent_attention import MLA
from cookbook_lib.blocks.models import Options, Residual
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.blocks.ssd import ssd_step
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.presets import preset
from cookbook_lib.commands.output import nbytes
from cookbook_lib.decoding.generation import generate
from cookbook_lib.decoding.prefixes import Prefixes
from cookbook_lib.decoding.quantised import Formats
from cookbook_lib.decoding.rows import clear, fork, put, ragged
from cookbook_lib.decoding.sampling import Sampling
from cookbook_lib.decoding.snapshots import restore, rewind, snapshot
from cookbook_lib.decoding.speculative import Counts, speculate
from cookbook_lib.plots import table
from cookbook_lib.training.tiny import tiny

plots.use()
torch.set_num_threads(1)  # products as small as here's are slower on two

# %% [markdown]
# ## What grows and what is replaced
#
# A cache is allocated once, from what the specs declare. On the `meta` device that takes no memory,
# so the real models can be asked. A tensor *grows* if a longer sequence needs more of it.

# %%
names = ("llama-3.1-8b", "zamba2-2.7b", "mamba2-2.7b", "rwkv7-goose-world3-2.9b", "deepseek-v3")
rows, contexts = [], [2**k for k in range(8, 18)]
fig, ax = plt.subplots()
for name in names:
    spec = preset(name)
    cache = Cache.of(spec, 1, 4096, torch.bfloat16, "meta")
    grows = sum(t.nbytes for key, t in cache.tensors() if key in cache.slots)
    assert cache.nbytes == spec.state_bytes(s=4096)
    rows.append(
        {
            "model": spec.name,
            "each token adds": nbytes(grows // 4096),
            "replaced by each token": nbytes(cache.nbytes - grows),
            "equal at": f"{(cache.nbytes - grows) * 4096 // grows:,} tokens"
            if 0 < grows < cache.nbytes
            else "",
        }
    )
    held = [spec.state_bytes(s=s) for s in contexts]
    ax.plot(contexts, [x / 1e6 for x in held], label=spec.name)
ax.set(xscale="log", yscale="log", xlabel="context (tokens)", ylabel="MB of one sequence")
ax.set_xticks([256, 2048, 16384, 131072], ["256", "2k", "16k", "128k"])
ax.minorticks_off()
ax.legend(fontsize=8)
plots.show(fig, "Caches grow with the context, states do not; a hybrid begins flat and then grows")
table(rows)

# %% [markdown]
# The last column is the context at which the cache of a hybrid has become as large as its states.
#
# ## Latents in place of keys
#
# Each token of DeepSeek-V3 adds one vector $c$ for all heads, and a small key that turns. Keys $Wc$
# and values are made from it when they are needed: of every token held, for every new one. Or
# never: $q \cdot (W c) = (W^\top q) \cdot c$, so a query can move into the space of the latents,
# and the result back. The same numbers, in an order that reads the cache as it is:

# %%
latent = next(b for _, b in preset("deepseek-v3").layout if isinstance(b, specs.MLA))
s, tiny_one = 4096, latent.but(d_model=64, n_heads=2)


def operands(spec: specs.MLA, s: int, **kind) -> list[torch.Tensor]:
    """Both parts of one token's queries, and what the cache keeps of `s` tokens."""
    rope, h = spec.qk_rope_head_dim, spec.n_heads
    shapes = (
        (1, h, 1, spec.qk_nope_head_dim),
        (1, h, 1, rope),
        (1, s, spec.kv_lora_rank),
        (1, s, rope),
    )
    return [torch.randn(shape, **kind) for shape in shapes]


small = MLA(tiny_one).double()
given = operands(tiny_one, 100, dtype=torch.float64)
with torch.no_grad():
    apart = (small.expanded(*given, None) - small.absorbed(*given, None)).abs().max()
print(f"in float64 the two forms differ by {apart:.0e}")
assert apart < 1e-10
rows = []
with torch.device("meta"):  # of the true size, counted and not run
    full, given = MLA(latent), operands(latent, s)
for form in ("expanded", "absorbed"):
    with FlopCounterMode(display=False) as counter:
        getattr(full, form)(*given, None)
    made = latent.n_heads * (latent.qk_head_dim + latent.v_head_dim) * (form == "expanded")
    rows.append(
        {
            "form": form,
            "kept of a token": latent.d_kv_a,
            "made of a token": made,
            "GFLOP, one token": counter.get_total_flops() / 1e9,
        }
    )
assert rows[0]["GFLOP, one token"] > 10 * rows[1]["GFLOP, one token"]
table(rows)

# %% [markdown]
# Numbers are those of one layer, and the new token sees 4,096. A prompt has many queries for each
# latent; there it pays to make keys and values once.
#
# ## A small hybrid to try it on
#
# Its language has sixteen tokens, and each depends on the two before it. The large model has a
# Mamba-2, an attention and another Mamba-2 layer, each with an MLP; the draft is a small Mamba-2.

# %%
random = torch.Generator().manual_seed(0)
chances = (3 * torch.randn(16, 16, 16, generator=random)).softmax(-1)


def text(b: int, l: int) -> torch.Tensor:
    """Sequences of the language."""
    out = [torch.randint(0, 16, (b,), generator=random) for _ in range(2)]
    for _ in range(l - 2):
        out.append(torch.multinomial(chances[out[-2], out[-1]], 1, generator=random)[:, 0])
    return torch.stack(out, 1)


def trained(pattern: str, width: int, steps: int) -> Residual:
    torch.manual_seed(0)
    model = Residual(tiny(pattern, 16, width), Options(rope=RoPE()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / steps)
        tokens = text(24, 96)
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"{pattern:7} {model.spec.params():7,} parameters, loss {loss.item():.2f} nats")
    return model.eval().requires_grad_(False)


best = -(chances * chances.log()).sum(-1).mean().item()
print(f"the language itself has {best:.2f} nats, an even guess {torch.tensor(16.0).log():.2f}")
model, draft = trained("m-a-m-", 64, 160), trained("m-", 32, 160)

# %% [markdown]
# ## Fork
#
# A sequence that goes on in three ways copies everything once. (A server that keeps keys and values
# in pages can share those. A state is always copied: each branch replaces its own.)

# %%
prompt = text(1, 40)
cache = model.new_cache(1, 128)
last = model(prompt, cache, logits="last")
branches = fork(cache, 3)
ends = text(3, 8)
got = model(ends, branches)
want = model(torch.cat([prompt.expand(3, -1), ends], 1))[:, 40:]
print(f"one sequence holds {nbytes(cache.nbytes)}, three branches {nbytes(branches.nbytes)}")
print(f"logits of the branches differ by {(got - want).abs().max():.1e} from reading each whole")
assert (got - want).abs().max() < 1e-4

# %% [markdown]
# ## Go back
#
# Keys and values of a token lie in a slot of their own. Beyond the length nothing is looked at, so
# a shorter length takes tokens back. A state has no slots: it is refused, unless a snapshot of that
# moment was taken.

# %%
model(text(1, 5), cache)
try:
    rewind(cache, 5)
except ValueError as error:
    print(error)
clear(cache)
model(prompt, cache)
mark = snapshot(cache)
model(text(1, 5), cache)
rewind(cache, 5)
again = model(prompt[:, -1:], cache)
fresh = model(torch.cat([prompt, prompt[:, -1:]], 1))[:, -1:]
print(f"a snapshot copies {nbytes(mark.nbytes)} of {nbytes(cache.nbytes)}")
print(f"after it, logits differ by {(again - fresh).abs().max():.1e} from a sequence never spoilt")
assert (again - fresh).abs().max() < 1e-4
assert mark.nbytes == model.spec.state_bytes(dtype="fp32") - model.spec.state_bytes(
    "kv", dtype="fp32"
)

# %% [markdown]
# Could the step not be undone? $h' = a\,h + \Delta x B$ has an inverse, $h = (h' - \Delta x B)/a$.
# But $a < 1$, so each step back divides the rounding error by $a$ as well:

# %%
h = torch.zeros(1, 3, 8, 16)
A = -torch.tensor([0.02, 1.0, 8.0])
steps, states = [], [h]
for _ in range(40):
    x, B, C = torch.randn(1, 3, 8), torch.randn(1, 1, 16), torch.randn(1, 1, 16)
    steps.append((x, torch.full((1, 3), 0.2), B, C))
    states.append(ssd_step(x, steps[-1][1], A, B, C, states[-1])[1])
back, lost = states[-1], []
for (x, dt, B, _), true in zip(reversed(steps[1:]), reversed(states[1:-1]), strict=True):
    back = (back - (dt[..., None] * x)[..., None] * B[..., None, :]) / (dt * A).exp()[
        ..., None, None
    ]
    lost.append((back - true).abs().amax((0, 2, 3)) / true.abs().amax((0, 2, 3)).clamp(min=1e-3))
fig, ax = plt.subplots()
for rate, errors in zip(A, torch.stack(lost).T, strict=True):
    ax.plot(range(1, 40), errors, label=f"keeps {torch.exp(0.2 * rate):.1%} of itself")
ax.axhline(1, color=plots.INK, lw=0.8)
ax.set(yscale="log", xlabel="tokens back", ylabel="error / state", ylim=(1e-8, 1e4))
ax.legend()
plots.show(fig, "Undoing a fast head is all error after a few tokens, a slow one stays good longer")
assert lost[38][0] < 1e-3 and lost[19][2] > 1

# %% [markdown]
# ## Share a prefix
#
# Prompts that begin alike are read once. Keys and values of a shared block of tokens are kept once.
# Sharing ends where a snapshot was taken, so more snapshots save more reading and take more memory:

# %%
system = text(1, 256)
prompts = [torch.cat([system[:, : 256 - 32 * (i % 3)], text(1, 20)], 1) for i in range(12)]
rows = []
for every in (16, 32, 64, 128):
    store, known, total = Prefixes(every=every), 0, 0
    for tokens in prompts:
        cache = model.new_cache(1, 300)
        logits, shared = store.read(model, tokens, cache)
        known, total = known + shared, total + tokens.shape[1]
        assert (logits - model(tokens)[:, -1]).abs().max() < 1e-4
    slots = sum(t.nbytes for node in store.nodes() for t in node.slots.values())
    rows.append(
        {
            "snapshot every": every,
            "tokens not read": f"{known / total:.0%}",
            "keys and values": nbytes(slots),
            "states": nbytes(store.nbytes - slots),
        }
    )
assert [row["tokens not read"] for row in rows] == sorted(
    (row["tokens not read"] for row in rows), reverse=True
)
table(rows)

# %% [markdown]
# Small blocks also keep the ends of prompts, which no other prompt shares. In a published hybrid a
# state is larger. How many tokens of keys and values is one snapshot worth?

# %%
rows = []
for name in ("zamba2-1.2b", "zamba2-2.7b", "zamba2-7b", "jamba-v0.1", "granite-4.0-h-tiny"):
    spec = preset(name)
    state = sum(spec.state_bytes(kind) for kind in ("conv", "ssm"))
    token = spec.state_bytes("kv", s=1001) - spec.state_bytes("kv", s=1000)
    rows.append({"model": spec.name, "one snapshot": nbytes(state), "in tokens": state // token})
table(rows)

# %% [markdown]
# ## Rows of different lengths
#
# In a batch the prompts differ. Padding on the *left* is exact: it takes no step and is never
# attended. Padding on the *right* would push the last inputs out of a convolution's state. For
# sequences that come and go, each row has a length of its own, and a new prompt is read apart and
# put into a row that is free:

# %%
texts = [text(1, n) for n in (12, 30, 21, 17)]
batch, room = ragged(model.new_cache(3, 64)), model.new_cache(1, 64)


def enter(row: int, tokens: torch.Tensor) -> torch.Tensor:
    clear(room)
    logits = model(tokens, room, logits="last")
    put(batch, row, room)
    return logits[:, -1].argmax(-1)


current = torch.cat([enter(row, texts[row]) for row in range(3)])
written = [[t.item()] for t in current]
for step in range(12):
    current = model(current[:, None], batch)[:, -1].argmax(-1)
    for row in range(3):
        written[row].append(current[row].item())
    if step == 5:  # the second sequence ends, the fourth takes its row
        done = written[1]
        current[1] = enter(1, texts[3])
        written[1] = [current[1].item()]
greedy = Sampling(temperature=0.0)
for tokens, said in zip(texts, (written[0], done, written[2], written[1]), strict=True):
    alone = [t.item() for t in generate(model, tokens, len(said), greedy)]
    print(f"{tokens.shape[1]} tokens, then", *said)
    assert said == alone

# %% [markdown]
# ## Few bits
#
# A key is rounded once, when it is written. A state is rounded at every token, and what is lost
# goes on. Which error grows? The same text is decoded with caches in several formats; the error is
# that of the logits, as a part of their spread, against float32.

# %%
tokens, length = text(4, 400), 400
FORMS = {
    "keys int8": Formats(kv="int8"),
    "keys int4": Formats(kv="int4"),
    "states bf16": Formats(ssm="bf16"),
    "states int8": Formats(ssm="int8"),
    "states int4": Formats(ssm="int4"),
}
exact = model(tokens)
spread = exact.std()
fig, ax = plt.subplots()
rows = []
for name, form in FORMS.items():
    cache, errors = model.new_cache(4, length), []
    for i in range(length):
        logits = model(tokens[:, i : i + 1], cache)[:, 0]
        form.store(cache, 1)
        errors.append((logits - exact[:, i]).square().mean().sqrt() / spread)
    errors = torch.stack(errors)
    smooth = errors.unfold(0, 20, 10).mean(1)
    ax.plot(range(10, 10 + 10 * len(smooth), 10), smooth, label=name)
    early, late = errors[5:25].mean().item(), errors[-100:].mean().item()
    rows.append(
        {
            "format": name,
            "cache": nbytes(form.nbytes(cache)),
            "error, tokens 5 to 25": early,
            "last 100 tokens": late,
            "grew": f"{late / early:.1f}x",
        }
    )
ax.set(yscale="log", xlabel="token", ylabel="error / spread of the logits")
ax.set_ylim(1e-5, 0.2)
ax.legend(fontsize=8, ncols=3, loc="upper center")
plots.show(fig, "Over 400 tokens the error of rounded keys falls, that of rounded states grows")
grew = {row["format"]: row["last 100 tokens"] / row["error, tokens 5 to 25"] for row in rows}
assert max(grew["keys int8"], grew["keys int4"]) < 1 < 3 < grew["states bf16"]
found = {row["format"]: row["last 100 tokens"] for row in rows}
assert found["keys int8"] < found["states int8"] and found["keys int4"] < found["states int4"]
table(rows)

# %% [markdown]
# With equal bits a state loses more than keys in the end. The error of keys even falls, as that of
# many is averaged. That of a state grows for as long as a head remembers and
# then stays: a head that forgets also forgets its rounding. These are numbers of a small model that
# was trained for seconds: the order is the lesson, not the size.
#
# ## Speculate, and roll back
#
# A draft proposes $k$ tokens, the large model checks them in one pass, and keeps those that it
# would have drawn itself with the right probability
# ([arXiv:2211.17192](https://arxiv.org/abs/2211.17192)). A rejected token has to leave the caches
# again. For keys and values that is a length. A state goes back to a snapshot and *reads the
# accepted tokens again*, together with the next proposals.

# %%
prompt, n, rows = text(1, 32), 120, []
start = time.perf_counter()
plain = [t.item() for t in generate(model, prompt, n, greedy)]
alone = time.perf_counter() - start
for k in (1, 2, 4, 8):
    counts = Counts()
    start = time.perf_counter()
    said = list(speculate(model, draft, prompt, n, greedy, k=k, counts=counts))
    took = time.perf_counter() - start
    assert said == plain
    rows.append(
        {
            "k": k,
            "accepted": f"{counts.acceptance:.0%}",
            "passes": counts.passes,
            "read": counts.read,
            "of it again": counts.again,
            "copied": nbytes(counts.snapshot_bytes),
            "time": f"{took / alone:.2f}x",
        }
    )
print(f"{n} tokens, the same as without a draft")
table(rows)

# %% [markdown]
# The large model makes fewer passes, and pays with tokens that it reads twice and with a snapshot
# for each round. *Time* is that of this small pair on a CPU, where a pass costs as much as its many
# small operations; a draft is worth it where a pass costs as much as the weights that it reads, and
# the draft has far fewer of them. What would the copies cost where it is? A snapshot against
# the weights that a pass reads anyway, for published models in bf16:

# %%
rows = []
for name in ("zamba2-1.2b", "zamba2-2.7b", "zamba2-7b", "mamba2-2.7b"):
    spec = preset(name)
    state = sum(spec.state_bytes(kind) for kind in ("conv", "ssm"))
    weights = 2 * spec.params_used()
    share = 2 * state / weights
    rows.append(
        {"model": spec.name, "snapshot": nbytes(state), "to copy / weights": f"{share:.1%}"}
    )
    assert share < 0.15
table(rows)

# %% [markdown]
# So for one sequence the copy is cheap beside a pass. In a batch it is not: each sequence has its
# own state, and all share the weights.
#
# ## Exercises
#
# **1.** A pure transformer speculates with a draft of attention alone. How many tokens does it read
# again, and what does it copy?

# %% tags=["answer"]
attention, counts = trained("a-a-", 64, 100), Counts()
said = list(speculate(attention, trained("a-", 32, 60), prompt, 60, greedy, k=4, counts=counts))
print(f"{counts.acceptance:.0%} accepted, {counts.again} read again, {counts.snapshot_bytes} bytes")
assert counts.again == counts.snapshot_bytes == 0
assert said == [t.item() for t in generate(attention, prompt, 60, greedy)]

# %% [markdown]
# **2.** A chat goes on after a snapshot, then goes back to it, then asks for a later snapshot of
# the part that it left. Why must that be refused, although the copy of the states is still there?

# %% tags=["answer"]
cache = model.new_cache(1, 64)
model(text(1, 10), cache)
first = snapshot(cache)
model(text(1, 10), cache)
second = snapshot(cache)
restore(cache, first)
try:
    restore(cache, second)
    raise AssertionError("it was not refused")
except ValueError as error:
    print(error)
print("the slots between the two may hold other keys by now: only the states were copied")

# %% [markdown]
# **3.** From which context on does a snapshot of Zamba2-2.7B cost less than one percent of what a
# copy of the whole cache would?

# %% tags=["answer"]
spec = preset("zamba2-2.7b")
state = sum(spec.state_bytes(kind) for kind in ("conv", "ssm"))
context = next(s for s in range(1000, 10**6, 1000) if state < 0.01 * spec.state_bytes(s=s))
print(f"from about {context:,} tokens on")
assert state >= 0.01 * spec.state_bytes(s=context - 1000)
