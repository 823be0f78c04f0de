"""RWKV-7: a state whose every channel forgets at its own pace, and that is corrected by keys.

S' = diag(exp(w)) S - (a kk) (kk S) + k v; y = r S'. arXiv:2503.14456, section 4; the recurrence is
its equation for the weighted key value. Axes: b batch, l tokens, c chunks, q and k positions in a
chunk, h heads, n channels of a key, m of a value.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, einsum

from cookbook_lib.blocks.chunks import documents, in_chunks, unrounded

Vectors = Float[Tensor, "b l h n"]
State = Float[Tensor, "b h n m"]


def rwkv7_step(
    r: Float[Tensor, "b h n"],
    w: Float[Tensor, "b h n"],
    k: Float[Tensor, "b h n"],
    v: Float[Tensor, "b h m"],
    kk: Float[Tensor, "b h n"],
    a: Float[Tensor, "b h n"],
    state: State,
) -> tuple[Float[Tensor, "b h m"], State]:
    """One token: the output and the new state.

    w: log of the decay. kk: the key, of length 1, whose value is replaced; a: how much of it.
    """
    held = einsum("bhn, bhnm -> bhm", kk, state)
    state = state * w.exp()[..., None] - (kk * a)[..., None] * held[:, :, None]
    state = state + k[..., None] * v[:, :, None]
    return einsum("bhn, bhnm -> bhm", r, state), state


def rwkv7_recurrent(
    r: Vectors,
    w: Vectors,
    k: Vectors,
    v: Float[Tensor, "b l h m"],
    kk: Vectors,
    a: Vectors,
    state: State,
) -> tuple[Float[Tensor, "b l h m"], State]:
    """Token by token: the definition."""
    ys = []
    for token in zip(*(t.unbind(1) for t in (r, w, k, v, kk, a)), strict=True):
        y, state = rwkv7_step(*token, state)
        ys.append(y)
    return torch.stack(ys, 1), state


@unrounded
def rwkv7_chunked(
    r: Vectors,
    w: Vectors,
    k: Vectors,
    v: Float[Tensor, "b l h m"],
    kk: Vectors,
    a: Vectors,
    state: State,
    chunk_size: int = 64,
    seq_idx: Int[Tensor, "b l"] | None = None,
) -> tuple[Float[Tensor, "b l h m"], State]:
    """The same in chunks, for training.

    A decay from token k to token q is exp(w_q) / exp(w_k) in sums since the chunk began. Each
    factor fits in float32 because no channel forgets faster than exp(-0.607) a token.
    What a token reads before it replaces depends on what the tokens before it replaced: a unit
    triangular system, solved once for the chunk's values and once for the state at its start.
    """
    l, n, m = r.shape[1], r.shape[-1], v.shape[-1]
    r, w, k, v, kk, a = (
        rearrange(in_chunks(t, chunk_size), "b c k h n -> b c h k n") for t in (r, w, k, v, kk, a)
    )
    sums = w.cumsum(-2)
    total = sums[..., -1:, :]
    vectors = torch.stack([k, kk * a], 3)  # b c h 2 k n: what is added, and what is replaced
    readers = torch.stack([kk * (sums - w).exp(), r * sums.exp()], 3)
    scores = einsum("bchpqn, bchtkn -> bchptqk", readers, vectors * (-sums).exp()[:, :, :, None])
    lower = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=r.device).tril()
    lower = torch.stack([lower.tril(-1), lower])[:, None]  # kk reads before the token writes
    vectors, through = vectors * (total - sums).exp()[:, :, :, None], total.exp()
    if seq_idx is not None:
        docs = documents(seq_idx, chunk_size)
        lower = lower & docs.pairs[:, :, None, None, None]
        readers = readers * docs.start[:, :, None, None, :, None]
        vectors = vectors * docs.end[:, :, None, None, :, None]
        through = through * docs.through[:, :, None, None, None]
    scores = scores.masked_fill(~lower, 0)
    read = einsum("bchqk, bchkm -> bchqm", scores[:, :, :, 0, 0], v)
    both = torch.cat([read, readers[:, :, :, 0]], -1)
    both = torch.linalg.solve_triangular(
        scores[:, :, :, 0, 1], both, upper=False, unitriangular=True
    )
    held, held_state = both.split([m, n], -1)
    states, values = [], []
    chunks = (t.unbind(1) for t in (v, vectors, held, held_state, through.mT))
    for v_i, vectors_i, held_i, held_state_i, through_i in zip(*chunks, strict=True):
        states.append(state)  # at the chunk's start: what is read of it waits until all are known
        replaced = held_i + einsum("bhqn, bhnm -> bhqm", held_state_i, state)
        values.append(torch.stack([v_i, -replaced], 2))
        added = einsum("bhtkn, bhtkm -> bhnm", vectors_i, values[-1])
        state = state * through_i + added
    y = einsum("bchtqk, bchtkm -> bchqm", scores[:, :, :, 1], torch.stack(values, 1))
    y = y + einsum("bchqn, bchnm -> bchqm", readers[:, :, :, 1], torch.stack(states, 1))
    return rearrange(y, "b c h q m -> b (c q) h m")[:, :l], state


def shift(
    x: Float[Tensor, "b l d"],
    state: Float[Tensor, "b d"] | None = None,
    seq_idx: Int[Tensor, "b l"] | None = None,
) -> Float[Tensor, "b l d"]:
    """The token before each token, minus that token; zeros come before a document's first."""
    first = torch.zeros_like(x[:, :1]) if state is None else state[:, None].to(x.dtype)
    before = torch.cat([first, x[:, :-1]], 1)
    if seq_idx is not None:
        same = F.pad(seq_idx[:, 1:] == seq_idx[:, :-1], (1, 0), value=True)
        before = before * same[..., None]
    if state is not None:
        state.copy_(x[:, -1])
    return before - x
