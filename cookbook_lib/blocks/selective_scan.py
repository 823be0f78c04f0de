"""The selective scan: h' = exp(dt A) h + dt x B and y = h' C, channel by channel.

arXiv:2312.00752, section 3; as in its code, the input is discretised by Euler's rule, dt B. Axes:
b batch, l tokens, h heads, p headdim, n d_state.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, einsum

from cookbook_lib.blocks.chunks import unrounded


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


@unrounded
def selective_scan_chunked(
    x: Float[Tensor, "b l h p"],
    dt: Float[Tensor, "b l h p"],
    A: Float[Tensor, "h p n"],
    B: Float[Tensor, "b l h n"],
    C: Float[Tensor, "b l h n"],
    state: Float[Tensor, "b h p n"],
    chunk_size: int = 64,
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

    Axes, in this order: l b h n p. To keep every state instead would take d_state times the memory
    of the input.
    """

    @staticmethod
    def forward(ctx, x, dt, A, B, C, state, size, keep):
        starts, y, chunk = [state], torch.empty_like(x), Chunk(x, size, state.shape)
        for at in chunks(len(x), size):
            _, held = chunk.states(at, x, dt, A, B, keep, starts[-1])
            torch.matmul(C[at, ..., None, :], held[1:], out=y[at].unsqueeze(-2))
            starts.append(held[-1].clone())
        ctx.save_for_backward(x, dt, A, B, C, keep, *starts[:-1])
        ctx.size = size
        return y, starts[-1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy, carry):
        x, dt, A, B, C, keep, *starts = ctx.saved_tensors
        dx, ddt, dB, dC = (torch.empty_like(t) for t in (x, dt, B, C))
        dA, chunk = torch.zeros_like(A), Chunk(x, ctx.size, carry.shape)
        dstates = torch.empty_like(chunk.decay)
        back = list(zip(dstates, dstates[1:], chunk.decay[1:], strict=False))
        for at, start in zip(chunks(len(x), ctx.size)[::-1], starts[::-1], strict=True):
            decay, held = chunk.states(at, x, dt, A, B, keep, start)
            dC[at] = (held[1:] @ dy[at, ..., None]).squeeze(-1)
            # Of a state: what its own token reads from it, and what it hands to the next.
            dstate = dstates[: len(decay)]
            torch.mul(C[at, ..., None], dy[at, ..., None, :], out=dstate)
            dstate[-1] += carry
            for now, later, rate in reversed(back[: len(decay) - 1]):
                now.addcmul_(later, rate)
            carry = dstate[0] * decay[0]
            dwrite = (B[at, ..., None, :] @ dstate).squeeze(-2)
            dB[at] = (dstate @ (x[at] * dt[at])[..., None]).squeeze(-1)
            dlog = dstate.mul_(held[:-1]).mul_(decay)  # of dt A
            dx[at] = dwrite * dt[at]
            ddt[at] = dwrite * x[at] + (dlog * A).sum(-2)
            dA += dlog.mul_(dt[at, ..., None, :]).sum((0, 1))
        return dx, ddt, dA, dB, dC, carry, None, None


def chunks(l: int, size: int) -> list[slice]:
    return [slice(i, i + size) for i in range(0, l, size)]


class Chunk:
    """Memory for the decays and states of up to `size` tokens of x: every chunk works in it."""

    def __init__(self, x: Tensor, size: int, shape: torch.Size):
        k = min(len(x), size)
        self.decay, self.held = x.new_empty(k, *shape), x.new_empty(k + 1, *shape)
        self.steps = list(zip(self.held, self.held[1:], self.decay, strict=False))

    def states(self, at, x, dt, A, B, keep, start):
        """Decays (k b h n p) of one chunk, and its states with the one before (1 + k b h n p)."""
        k = len(dt[at])
        decay, held = self.decay[:k], self.held[: k + 1]
        torch.mul(dt[at, ..., None, :], A, out=decay).exp_()
        if keep is not None:
            decay *= keep[at]
        held[0] = start
        torch.mul(B[at, ..., None], (x[at] * dt[at])[..., None, :], out=held[1:])
        for before, now, rate in self.steps[:k]:
            now.addcmul_(before, rate)
        return decay, held
