"""A sum over ranks in bf16: what travels, where it is rounded, and how far it is from the truth."""

from itertools import permutations

import torch
import torch.distributed as dist
from torch import Tensor

from cookbook_lib.communication.member import Member
from cookbook_lib.communication.seen import seen
from cookbook_lib.communication.torch_ranks import joined


def added_in_bf16(parts: list[Tensor], order: tuple[int, ...]) -> Tensor:
    """Rounded to bf16 after each addition."""
    total = parts[order[0]]
    for i in order[1:]:
        total = total + parts[i]
    return total


def bf16_sums(member: Member, count: int) -> dict:
    """Errors of a sum of normal numbers over the ranks: in bf16, and in float32 rounded at the end.

    Each error is that of the root of the mean square, relative to the sums'. step_by_step: the part
    of gloo's numbers that adding in bf16 gives in some order of the ranks, rounding each time;
    at_the_end: the part that one rounding of the exact sum gives.
    """
    with joined(member), member.doing("sums in bf16"):
        torch.manual_seed(member.place.rank)
        mine = torch.randn(count, dtype=torch.bfloat16)
        parts = [torch.empty_like(mine) for _ in range(member.place.size)]
        dist.all_gather(parts, mine)
        narrow, wide = mine.clone(), mine.float()
        messages = {
            "bf16": [one.nbytes for one in seen(lambda: dist.all_reduce(narrow))],
            "fp32": [one.nbytes for one in seen(lambda: dist.all_reduce(wide))],
        }
    exact = torch.stack(parts).double().sum(0)
    orders = [o for o in permutations(range(len(parts))) if o[0] < o[1]]
    by_steps = torch.stack([added_in_bf16(parts, order) == narrow for order in orders])
    if len(parts) == 4:  # pairs first, as halving does
        pairs = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
        halved = [(parts[a] + parts[b]) + (parts[c] + parts[d]) for (a, b), (c, d) in pairs]
        by_steps = torch.cat([by_steps, torch.stack([h == narrow for h in halved])])
    return {
        "ranks": len(parts),
        "messages": messages,
        "error in bf16": error(narrow, exact),
        "error in fp32": error(wide.bfloat16(), exact),
        "step_by_step": by_steps.any(0).double().mean().item(),
        "at_the_end": (narrow == exact.bfloat16()).double().mean().item(),
    }


def error(got: Tensor, exact: Tensor) -> float:
    return ((got.double() - exact).square().mean() / exact.square().mean()).sqrt().item()
