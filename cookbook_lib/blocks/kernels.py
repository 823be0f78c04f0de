"""The one place that chooses a CUDA kernel over the PyTorch of this package.

Each function stands for one here that needs nothing installed, and returns None where the kernel
cannot: the tensors are not on a GPU, the package is not there, or it does not take such arguments.
A package that is there but broken raises its own ImportError. Axes: see the functions stood for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import torch
from einops import rearrange
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)  # what the kernels of flash-linear-attention take
LEFT_OUT: ContextVar[bool] = ContextVar("LEFT_OUT", default=False)


@contextmanager
def left_out() -> Iterator[None]:
    """Plain PyTorch inside, on a GPU too: what the kernels are compared with."""
    token = LEFT_OUT.set(True)
    try:
        yield
    finally:
        LEFT_OUT.reset(token)


@cache
def installed(package: str) -> bool:
    return find_spec(package) is not None


def found(module: str, name: str, x: Tensor) -> Callable | None:
    """`module.name` if it can work on x: on a GPU, in float32 or less, and installed."""
    if LEFT_OUT.get() or not x.is_cuda or x.dtype == torch.float64:
        return None
    if not installed(module.partition(".")[0]):
        return None
    return getattr(import_module(module), name)


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor | None) -> Tensor | None:
    """`short_conv.conv` by causal_conv1d; `seq_idx` has an entry for each of x's tokens."""
    taps, kernel = weight.shape[-1], found("causal_conv1d", "causal_conv1d_fn", x)
    if kernel is None or not 2 <= taps <= 4 or x.shape[2] % 8:
        return None
    seq_idx = seq_idx if seq_idx is None else seq_idx.int()
    return kernel(x.mT, weight[:, 0], bias, seq_idx=seq_idx).mT[:, taps - 1 :]


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor | None,
    seq_idx: Tensor | None,
) -> tuple[Tensor, Tensor] | None:
    """`selective_scan_chunked` by mamba_ssm, which starts from an empty state only.

    To find out whether the state is empty, the CPU waits for the GPU once.
    """
    kernel = found("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn", x)
    if kernel is None or seq_idx is not None or (state is not None and bool(state.any())):
        return None
    u, delta = (rearrange(t, "b l h p -> b (h p) l").contiguous() for t in (x, dt))
    B, C = (rearrange(t, "b l h n -> b h n l").contiguous() for t in (B, C))
    y, last = kernel(u, delta, A.flatten(0, 1).contiguous(), B, C, return_last_state=True)
    h = x.shape[2]
    return rearrange(y, "b (h p) l -> b l h p", h=h), rearrange(last, "b (h p) n -> b h p n", h=h)


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor | None,
    chunk_size: int,
    seq_idx: Tensor | None,
) -> tuple[Tensor, Tensor] | None:
    """`ssd_chunked` by mamba_ssm; x, B and C in any dtype, dt and A in float32."""
    kernel = found("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined", x)
    if kernel is None or chunk_size & (chunk_size - 1):  # a power of 2 is asked for
        return None
    state = state if state is None else state.to(x.dtype)
    seq_idx = seq_idx if seq_idx is None else seq_idx.int()
    more = {"initial_states": state, "seq_idx": seq_idx, "return_final_states": True}
    return kernel(x, dt, A, B, C, chunk_size, **more)


def step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> Tensor | None:
    """`selective_scan_step`, and `ssd_step` whose dt and A are numbers for each head, by mamba_ssm.

    The output alone: the kernel writes the new state to the place of the old.
    """
    module = "mamba_ssm.ops.triton.selective_state_update"
    kernel = found(module, "selective_state_update", x)
    if kernel is None:
        return None
    if dt.ndim < x.ndim:
        dt, A = dt[..., None].expand_as(x), A[:, None, None].expand(state.shape[1:])
    return kernel(state, x, dt, A, B, C)


def gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, beta: Tensor, state: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor] | None:
    """`deltanet_chunked` of one document by flash-linear-attention, in the dtype of the weights."""
    kernel = found("fla.ops.gated_delta_rule", "chunk_gated_delta_rule", q)
    if kernel is None or dtype not in HALF:
        return None
    wide, rates, beta = (t.flatten(2, 3) for t in (v, a, beta))
    inputs = (*(t.to(dtype) for t in (q, k, wide)), rates, beta.to(dtype))
    held = {"initial_state": state.flatten(1, 2), "output_final_state": True}
    y, last = kernel(*inputs, scale=1.0, **held)
    return y.to(v.dtype).view_as(v), last.view_as(state)


def rwkv7(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    kk: Tensor,
    a: Tensor,
    state: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor] | None:
    """`rwkv7_chunked` of one document by flash-linear-attention, in the dtype of the weights."""
    kernel = found("fla.ops.rwkv7", "chunk_rwkv7", r)
    if kernel is None or dtype not in HALF:
        return None
    r, k, v, read, written = (t.to(dtype) for t in (r, k, v, -kk, kk * a))
    held = {"initial_state": state, "output_final_state": True}
    y, last = kernel(r, w, k, v, read, written, scale=1.0, **held)
    return y.to(w.dtype), last
