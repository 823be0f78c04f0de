"""What is timed of a block: a pass over many tokens, its gradients, or one token after a context.

forward: no gradient is kept. backward: the gradients of the input and of all weights, on a graph
that is kept from call to call. training: both together. decode: one token of each sequence, with
the states that `context` tokens left behind.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from cookbook_lib.blocks.cache import DTYPES
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.chips import Chip
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.hardware import roofline
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.storage import Storage

Pass = Literal["forward", "backward", "training", "decode"]
TIMES = {"forward": 1, "backward": 2, "training": 3, "decode": 1}  # FLOPs and bytes of a forward
UNIT = Chip(name="unit", flops=1.0, bandwidth=1.0, memory=0.0, source="only counts are asked for")


class Work(NamedTuple):
    """What a pass computes and moves at least, from the spec."""

    flops: int | float
    nbytes: int | float


def work(spec: Block, kind: Pass, run: Run, dtype: str) -> Work:
    """FLOPs and bytes of one pass; attention counts the pairs that the mask keeps.

    Each product gives one gradient to each of its two operands, and each tensor that is read or
    written has a counterpart in both: a backward pass counts as two forward passes.
    """
    store = Storage(weights=dtype, embed=dtype, cache=dtype, wide=dtype)
    bounds = roofline(spec, UNIT, run, store)
    return Work(bounds.flops * TIMES[kind], bounds.fused_bytes * TIMES[kind])


def shape(kind: Pass, b: int, tokens: int, context: int) -> Run:
    """How many tokens are new in a pass, and how many are held."""
    new, held = (1, context + 1) if kind == "decode" else (tokens, tokens)
    return Run(b=b, l=new, s=held, attention="causal")


def inputs(spec: Block, run: Run, dtype: str, device: str) -> Tensor:
    """Random numbers as wide as the block reads them; tokens for an embedding."""
    if isinstance(spec, specs.Embedding):
        return torch.randint(spec.vocab, (run.b, run.l), device=device)
    wide = next(getattr(spec, k) for k in ("d_x", "d_in", "d_model") if hasattr(spec, k))
    return torch.randn(run.b, run.l, wide, device=device).to(DTYPES[dtype])


def states(spec: Block, run: Run, dtype: str, device: str) -> dict[str, Tensor]:
    """What a context left behind: small random numbers of the shapes that the spec declares."""
    return {
        s.name: torch.randn(s.shape, device=device).mul_(0.1).to(DTYPES[s.dtype])
        for s in spec.states(run.b, run.s, dtype)
    }


def timed(
    module: nn.Module, spec: Block, kind: Pass, run: Run, dtype: str, x: Tensor
) -> Callable[[], object]:
    """What one sample runs. As inside a model, the input has a gradient too."""
    if kind in ("forward", "decode"):
        return no_gradient(module, spec, kind, run, dtype, x)
    leaves = list(module.parameters())
    if x.is_floating_point():
        x = x.detach().requires_grad_()
        leaves.append(x)
    y = module(x)
    dy = torch.randn_like(y)
    if kind == "training":
        del y
        return lambda: torch.autograd.grad(module(x), leaves, dy, allow_unused=True)
    return lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True, allow_unused=True)


def no_gradient(
    module: nn.Module, spec: Block, kind: Pass, run: Run, dtype: str, x: Tensor
) -> Callable[[], object]:
    if kind == "forward" or not spec.state:
        return lambda: torch.no_grad()(module)(x)
    held = states(spec, run, dtype, x.device.type)
    more = {"start": run.s - run.l} if isinstance(spec, specs.Attention) else {}
    return lambda: torch.no_grad()(module)(x, held, **more)
