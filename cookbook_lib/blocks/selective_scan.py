"""The selective scan: h' = exp(dt A) h + dt x B and y = h' C, channel by channel.

arXiv:2312.00752, section 3; as in its code, the input is discretised by Euler's rule, dt B. Axes:
b batch, l tokens, h heads, p headdim, n d_state.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, einsum


def selective_scan_step(
    x: Float[Tensor, "b h p"],
    dt: Float[Tensor, "b h p"],
    A: Float[Tensor, "h p n"],
    B: Float[Tensor, "b h n"],
    C: Float[Tensor, "b h n"],
    state: Float[Tensor, "b h p n"],
) -> tuple[Float[Tensor, "b h p"], Float[Tensor, "b h p n"]]:
    """One token: its output and the new state."""
    state = state * (dt[..., None] * A).exp() + (dt * x)[..., None] * B[..., None, :]
    return einsum("bhpn, bhn -> bhp", state, C), state


def selective_scan_recurrent(
    x: Float[Tensor, "b l h p"],
    dt: Float[Tensor, "b l h p"],
    A: Float[Tensor, "h p n"],
    B: Float[Tensor, "b l h n"],
    C: Float[Tensor, "b l h n"],
    state: Float[Tensor, "b h p n"],
) -> tuple[Float[Tensor, "b l h p"], Float[Tensor, "b h p n"]]:
    """Token by token: the definition."""
    ys = []
    for x_t, dt_t, B_t, C_t in zip(*(t.unbind(1) for t in (x, dt, B, C)), strict=True):
        y, state = selective_scan_step(x_t, dt_t, A, B_t, C_t, state)
        ys.append(y)
    return torch.stack(ys, 1), state


def selective_scan_chunked(
    x: Float[Tensor, "b l h p"],
    dt: Float[Tensor, "b l h p"],
    A: Float[Tensor, "h p n"],
    B: Float[Tensor, "b l h n"],
    C: Float[Tensor, "b l h n"],
    state: Float[Tensor, "b h p n"],
    chunk_size: int = 32,
    seq_idx: Int[Tensor, "b l"] | None = None,
) -> tuple[Float[Tensor, "b l h p"], Float[Tensor, "b h p n"]]:
    """The same, for training: only the states between chunks are kept for the backward pass."""
    keep = None
    if seq_idx is not None:  # the first token of a document forgets what was before
        keep = torch.ones_like(seq_idx, dtype=x.dtype)
        keep[:, 1:] = (seq_idx[:, 1:] == seq_idx[:, :-1]).to(x.dtype)
    # Time first, channels last: a token is one block of memory, and the states are its rows.
    x, dt, B, C = (t.transpose(0, 1) for t in (x, dt, B, C))
    keep = None if keep is None else keep.T[:, :, None, None, None]
    y, state = Scan.apply(x, dt, A.mT, B, C, state.mT, chunk_size, keep)
    return y.transpose(0, 1), state.mT


class Scan(torch.autograd.Function):
    """Chunk by chunk; the backward pass computes the states of a chunk again, last chunk first.

    Axes, in this order: l b h n p. Keeping every state instead would take d_state times the memory
    of the input.
    """

    @staticmethod
    def forward(ctx, x, dt, A, B, C, state, size, keep):
        starts, ys = [], []
        for at in slices(len(x), size):
            starts.append(state)
            decay, states = run(x[at], dt[at], A, B[at], state, keep if keep is None else keep[at])
            ys.append((C[at, ..., None, :] @ states).squeeze(-2))
            state = states[-1].clone()
        ctx.save_for_backward(x, dt, A, B, C, keep, *starts)
        ctx.size = size
        return torch.cat(ys), state

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy, dlast):
        x, dt, A, B, C, keep, *starts = ctx.saved_tensors
        dx, ddt, dA, dB, dC = (torch.empty_like(t) for t in (x, dt, A, B, C))
        dA.zero_()
        carry = dlast  # gradient of the state after the chunk
        for at, start in zip(slices(len(x), ctx.size)[::-1], starts[::-1], strict=True):
            decay, states = run(x[at], dt[at], A, B[at], start, keep if keep is None else keep[at])
            dC[at] = (states @ dy[at, ..., None]).squeeze(-1)
            before = torch.cat([start[None], states[:-1]])
            # gradient of each state: what its own token reads, and what the next one keeps
            ds = C[at, ..., None] * dy[at, ..., None, :]
            ds[-1] += carry
            for t in range(len(ds) - 1, 0, -1):
                ds[t - 1].addcmul_(ds[t], decay[t])
            carry = ds[0] * decay[0]
            dw = (B[at, ..., None, :] @ ds).squeeze(-2)
            dB[at] = (ds @ (x[at] * dt[at])[..., None]).squeeze(-1)
            dlog = ds.mul_(before).mul_(decay)  # of dt A
            dx[at] = dw * dt[at]
            ddt[at] = dw * x[at] + (dlog * A).sum(-2)
            dA += einsum("lbhnp, lbhp -> hnp", dlog, dt[at])
        return dx, ddt, dA, dB, dC, carry, None, None


def slices(l: int, size: int) -> list[slice]:
    return [slice(i, i + size) for i in range(0, l, size)]


def run(x, dt, A, B, state, keep):
    """Decays and states of one chunk, (k b h n p)."""
    decay = (dt[..., None, :] * A).exp_()
    if keep is not None:
        decay = decay.mul_(keep)
    states = B[..., None] * (x * dt)[..., None, :]
    for new, kept in zip(states, decay, strict=True):
        state = new.addcmul_(state, kept)
    return decay, states
