"""One measured decoding step over ranks as one line of JSON, and how its numbers are made."""

import os
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from cookbook_lib.communication.rows import device_names
from cookbook_lib.decoding.tree_costs import Shape, read, sent, steps
from cookbook_lib.measuring import Timing
from cookbook_lib.results import origin

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}
# the largest error, as a part of the largest output: bf16 rounds by 2^-9, fp32 adds up thousands
TOLERANCE = {"bf16": 2**-7, "fp32": 1e-4, "fp64": 1e-12}


class WrongResult(RuntimeError):
    """A method's output is not full attention: one line that says by how much."""


def numbers(x: Shape, dtype: str, rank: int, length: int) -> tuple[Tensor, Tensor]:
    """Random keys and values of a rank, s b g k: any rank can make those of another."""
    random = torch.Generator().manual_seed(1000 + rank)
    shape = (2, length, x.b, x.g, x.k)
    return tuple(torch.randn(shape, generator=random).to(DTYPES[dtype]).unbind())


def query(x: Shape, dtype: str) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randn(x.b, x.h, x.l, x.k, generator=random).to(DTYPES[dtype])


def reference(x: Shape, dtype: str, lengths: tuple[int, ...]) -> Tensor:
    """Softmax over all keys in float64 on one process: one head of keys at a time."""
    parts = [numbers(x, dtype, rank, length) for rank, length in enumerate(lengths)]
    q, out = query(x, dtype).double(), torch.empty(x.b, x.h, x.l, x.k, dtype=torch.float64)
    for b in range(x.b):
        for head in range(x.h):
            group = head // (x.h // x.g)
            k, v = (torch.cat([p[i][:, b, group] for p in parts]).double() for i in (0, 1))
            out[b, head] = (q[b, head] @ k.T * x.k**-0.5).softmax(-1) @ v
    return out


def prove(out: Tensor, due: Tensor, dtype: str, what: str) -> float:
    """The largest error, as a part of the largest output; `WrongResult` if that is too much."""
    error = ((out.double() - due).abs().max() / due.abs().max()).item()
    if not error <= TOLERANCE[dtype]:
        raise WrongResult(
            f"{what} is off full attention by {error:.1e} of its largest number, expected at most "
            f"{TOLERANCE[dtype]:.1e}"
        )
    return error


def row(
    method: str, backend: str, x: Shape, dtype: str, timing: Timing, error: float, **more: Any
) -> dict[str, Any]:
    """checked is written when the result has passed, so it is never False."""
    return {
        "method": method,
        "backend": backend,
        **asdict(x),
        "dtype": dtype,
        "seconds": timing.json(),
        "sent": sent(method, x),
        "steps": steps(method, x),
        "read": read(method, x),
        "error": error,
        "checked": True,
        **more,
        "cores": os.cpu_count(),
        "device": device_names("cpu")[0],
        **origin(backend.split()[:1]),
    }
