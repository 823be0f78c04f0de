"""Time ways to attend to spread keys in torch: what each rank of `cookbook bench decode` runs."""

from itertools import groupby
from operator import itemgetter
from typing import Any

import torch
import torch.distributed as dist

from cookbook_lib.communication.member import Member
from cookbook_lib.communication.sampling import sampled
from cookbook_lib.communication.torch_bench import slowest
from cookbook_lib.communication.torch_ranks import joined
from cookbook_lib.decoding.shards import Query, Shard, cut
from cookbook_lib.decoding.tree_costs import Shape
from cookbook_lib.decoding.tree_methods import METHODS
from cookbook_lib.decoding.tree_rows import numbers, prove, query, reference, row


def sweep(member: Member, todo: list[list], dtype: str, seconds: float) -> list[dict[str, Any]]:
    """A row for each (method, shape) of `todo`; rank 0 emits each as it comes."""
    rows = []
    with joined(member) as device:
        for sizes, group in groupby(todo, key=itemgetter(1)):
            x = Shape(**sizes)
            lengths, rank = cut(x.s, x.p), member.place.rank
            with member.doing(f"full attention over {x.s:,} tokens"):
                k, v = numbers(x, dtype, rank, lengths[rank])
                due = torch.empty(x.b, x.h, x.l, x.k, dtype=torch.float64)
                if rank == 0:
                    due = reference(x, dtype, lengths)
                dist.broadcast(due, 0)
            shard, asked = Shard(k=k, v=v, lengths=lengths), Query(q=query(x, dtype))
            for name, _ in group:
                with member.doing(f"{name} over {x.s:,} tokens"):
                    last = {}

                    def call(name=name, last=last, asked=asked, shard=shard) -> None:
                        last["out"] = METHODS[name](asked, shard)

                    call()
                    error = prove(last["out"], due, dtype, name)
                    worst = slowest(device)
                    timing = sampled(call, lambda: None, dist.barrier, worst, seconds)
                    error = max(error, prove(last["out"], due, dtype, name))  # of the last timed
                    (error,) = worst([error])
                rows.append(row(name, "torch gloo", x, dtype, timing, error))
                member.emit(rows[-1])
    return rows
