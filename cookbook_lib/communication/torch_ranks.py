"""A torch process group of the ranks: gloo on CPUs, NCCL on GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import sleep

import torch
import torch.distributed as dist

from cookbook_lib.communication.member import Member

GROUPS = {"cpu": "gloo", "cuda": "nccl"}  # device -> torch's backend for its process group
# A thread of gloo that drops its last tensor while Python ends aborts the process, and a profiler
# keeps the group with its threads (pytorch/pytorch#179291): they get this long to drop it before.
GRACE = 0.2  # seconds


@contextmanager
def joined(member: Member, device: str = "cpu") -> Iterator[torch.device]:
    """The process group of all ranks while this lasts; the device of this rank."""
    mine = (
        torch.device(device, member.place.local_rank) if device == "cuda" else torch.device(device)
    )
    if device == "cuda":
        gpus = torch.cuda.device_count()
        if member.place.local_rank >= gpus:
            raise ValueError(
                f"device is 'cuda' for {member.place.local_size} ranks of this host, but PyTorch "
                f"finds {gpus} GPUs: take fewer devices, or --device cpu"
            )
        torch.cuda.set_device(mine)
    with member.doing("joining the process group"):
        dist.init_process_group(
            GROUPS[device],
            store=member.store(),
            rank=member.place.rank,
            world_size=member.place.size,
            timeout=timedelta(seconds=max(600, 2 * member.limit)),  # ours comes first
            device_id=mine if device == "cuda" else None,
        )
    try:
        yield mine
    finally:
        dist.destroy_process_group()
        sleep(GRACE)
