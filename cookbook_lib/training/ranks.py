"""The ranks of a run: one process, or those that `torchrun` started, each with its own device.

Weights, gradients and optimizer states are split over `shards` ranks by FSDP2, and each such group
is one of several replicas: all ranks share by default, `shards=1` is plain data parallel, and what
lies between is hybrid. One code path, as a weight that nobody splits is a shard of one part.
"""

import atexit
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from cookbook_lib.blocks.models import LanguageModel

WAIT = timedelta(minutes=30)  # before a rank that hears nothing gives up


@dataclass(frozen=True)
class Ranks:
    """Which of how many ranks this is, where it computes, and how they share the weights."""

    device: torch.device = torch.device("cpu")
    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None

    @property
    def first(self) -> bool:
        """Whether this rank speaks and writes for all."""
        return self.rank == 0

    def sum(self, x: Tensor) -> Tensor:
        """The sum over all ranks."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def any(self, flag: bool) -> bool:
        """Whether it holds on one of the ranks: what all must decide alike."""
        return bool(self.sum(torch.tensor(float(flag), device=self.device)))

    def everyone(self, thing: object) -> list:
        """What each rank says, heard by all."""
        said = [thing] * self.size
        if self.size > 1:
            dist.all_gather_object(said, thing)
        return said

    def told(self, thing: object) -> object:
        """What the first rank says."""
        return self.everyone(thing if self.first else None)[0]


@contextmanager
def started(device: str | None = None, shards: int | None = None) -> Iterator[Ranks]:
    """The ranks that `torchrun` started, or one; nccl on GPUs, gloo on CPUs.

    device: cpu or cuda; the GPU that is there if not given. shards: ranks that split one copy of
    the weights, all of them if not given.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"device is {kind}, expected cpu, or cuda where a GPU is")
    size = int(os.environ.get("WORLD_SIZE", 1))
    local = torch.device(kind, int(os.environ.get("LOCAL_RANK", 0))) if kind == "cuda" else None
    if local is not None:
        torch.cuda.set_device(local)
    began = size > 1 and not dist.is_initialized()
    if began:
        dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=WAIT)
    ranks = Ranks(local or torch.device(kind))
    try:
        ranks = joined(ranks.device, shards)
        yield ranks
    finally:
        if began:
            ended(ranks)


def ended(ranks: Ranks) -> None:
    """Let go of the process groups, their threads included, before Python ends.

    A thread of gloo that drops a tensor while Python ends aborts the process
    (https://github.com/pytorch/pytorch/pull/179291). A mesh keeps its groups, and so their threads,
    as long as anything keeps the mesh, as PyTorch's caches do; a split model goes in cycles.
    """
    if ranks.mesh is not None:
        ranks.mesh._pg_registry.clear()  # no public way: `destroy_process_group` leaves it
    dist.destroy_process_group()
    atexit.register(gc.collect)


def joined(device: torch.device, shards: int | None = None) -> Ranks:
    """The ranks of the process group that is there; one without."""
    size = dist.get_world_size() if dist.is_initialized() else 1
    shards = size if shards is None else shards
    if shards < 1 or size % shards:
        raise ValueError(f"shards is {shards}, expected a divisor of the number of ranks ({size})")
    if size == 1:
        return Ranks(device)
    names = ("replicas", "shards")
    mesh = init_device_mesh(device.type, (size // shards, shards), mesh_dim_names=names)
    return Ranks(device, dist.get_rank(), size, mesh)


def spread(model: LanguageModel, ranks: Ranks) -> None:
    """Move the model to the device and split it: each block a unit of its own, the rest another.

    All ranks must hold the same weights.
    """
    model.to(ranks.device)
    if ranks.mesh is None:
        return
    blocks = {id(use.module) for layer in model.uses for use in layer.values()}
    for module in reversed(list(model.modules())):  # what lies inside first
        if id(module) in blocks and not isinstance(module, nn.RMSNorm | nn.LayerNorm):
            fully_shard(module, mesh=ranks.mesh)
    fully_shard(model, mesh=ranks.mesh)


def exchange(model: nn.Module, now: bool) -> None:
    """Whether the next backward pass adds up gradients over ranks: only the last of a step does."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(now)


def clipped(model: nn.Module, most: float) -> Tensor:
    """Scale all gradients so that their norm, over all ranks, is at most this; the norm before."""
    norm = nn.utils.clip_grad_norm_(model.parameters(), most)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
