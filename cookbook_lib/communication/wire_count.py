"""What a collective puts on the wire, counted by the interface of each rank's namespace."""

from pathlib import Path

import torch.distributed as dist

from cookbook_lib.communication.collectives import collective
from cookbook_lib.communication.member import Member
from cookbook_lib.communication.messages import WIDTH, counted
from cookbook_lib.communication.rows import title
from cookbook_lib.communication.torch_ops import buffers, run
from cookbook_lib.communication.torch_ranks import joined

SENT = Path("/sys/class/net/wire/statistics/tx_bytes")  # of the interface that `links` makes


def count_bytes(
    member: Member, todo: list[tuple[str, int]], dtype: str = "fp32", calls: int = 3
) -> list[float]:
    """Bytes that this rank's interface sends for one call of each (op, nbytes) of `todo`.

    Headers of Ethernet, IP and TCP are in it, and the barriers between the calls are not.
    """
    place, found = member.place, []
    with joined(member) as device:
        for op, nbytes in todo:
            count = counted(collective(op), place.size, nbytes, dtype)
            assert count * WIDTH[dtype] == nbytes
            b = buffers(op, place.rank, place.size, count, dtype, device)

            def sent(times: int, op: str = op, b=b) -> int:
                before = int(SENT.read_text())
                for _ in range(times):
                    run(op, b)
                    dist.barrier()
                return int(SENT.read_text()) - before

            with member.doing(title(op, nbytes)):
                sent(1)  # makes the connections
                dist.barrier()
                barriers = sum(sent_by_barriers(calls))
                found.append((sent(calls) - barriers) / calls)
    return found


def sent_by_barriers(calls: int) -> list[int]:
    found = []
    for _ in range(calls):
        before = int(SENT.read_text())
        dist.barrier()
        found.append(int(SENT.read_text()) - before)
    return found
