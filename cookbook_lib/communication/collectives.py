"""The table of collectives: what each does, what it puts on the wires, how its result is checked.

A message of `nbytes` is what NCCL's tests call the size S: per rank, the whole tensor that goes in
or comes out, whichever is larger (doc/PERFORMANCE.md, and *GetCollByteCount in the source of each
test, github.com/NVIDIA/nccl-tests at a0b82b2). So all-gather's S is what each rank has at the end,
n parts of S/n, and reduce-scatter's is what each has at the beginning.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

ROOT = 0  # rank of broadcast, reduce, scatter and gather
Array = np.ndarray
Inputs = Callable[[int], Array]  # rank -> the whole message that it has, `count` numbers


@dataclass(frozen=True, kw_only=True)
class Collective:
    """One row: n ranks, a message of S bytes.

    puts, gets: what rank r puts in and what it ends with, None if nothing; from r, n and the ranks'
    inputs. bus: busbw / algbw, by n: the bytes that the busiest link must carry one way, in S.
    total: bytes that all ranks together must send, in S, whatever the algorithm.
    runs: backend -> another row that it runs instead.
    """

    name: str
    what: str
    puts: Callable[[int, int, Inputs], Array | None]
    gets: Callable[[int, int, Inputs], Array | None]
    bus: Callable[[int], float]
    total: Callable[[int], float]
    reduces: bool = False
    parts: Callable[[int], int] = field(default=lambda n: 1)  # equal ones that it is made of
    runs: Mapping[str, str] = field(default_factory=dict)


def cut(x: Array, r: int, n: int) -> Array:
    """Part r of n."""
    return x[len(x) // n * r : len(x) // n * (r + 1)]


def joint(parts: list[Array]) -> Array:
    return np.concatenate(parts)


def whole(r: int, n: int, x: Inputs) -> Array:
    return x(r)


def added(n: int, x: Inputs) -> Array:
    return sum((x(q) for q in range(1, n)), x(0))


def halves(r: int, n: int, x: Inputs) -> Array:
    """The second half of the rank before, the first half of the rank after."""
    return joint([cut(x((r - 1) % n), 1, 2), cut(x((r + 1) % n), 0, 2)])


ROWS = (
    Collective(
        name="all_reduce",
        what="every rank gets the sum of all",
        puts=whole,
        gets=lambda r, n, x: added(n, x),
        bus=lambda n: 2 * (n - 1) / n,
        total=lambda n: 2 * (n - 1),
        reduces=True,
    ),
    Collective(
        name="all_gather",
        what="every rank gets the parts of all",
        puts=lambda r, n, x: cut(x(r), r, n),
        gets=lambda r, n, x: joint([cut(x(q), q, n) for q in range(n)]),
        bus=lambda n: (n - 1) / n,
        total=lambda n: n - 1,
        parts=lambda n: n,
    ),
    Collective(
        name="reduce_scatter",
        what="each rank gets its part of the sum",
        puts=whole,
        gets=lambda r, n, x: cut(added(n, x), r, n),
        bus=lambda n: (n - 1) / n,
        total=lambda n: n - 1,
        reduces=True,
        parts=lambda n: n,
        runs={"gloo": "all_reduce"},  # torch 2.13; its profiler says so too
    ),
    Collective(
        name="all_to_all",
        what="part q of rank r goes to rank q, as its part r",
        puts=whole,
        gets=lambda r, n, x: joint([cut(x(q), r, n) for q in range(n)]),
        bus=lambda n: (n - 1) / n,
        total=lambda n: n - 1,
        parts=lambda n: n,
    ),
    Collective(
        name="broadcast",
        what="every rank gets what the root has",
        puts=whole,
        gets=lambda r, n, x: x(ROOT),
        bus=lambda n: 1.0,
        total=lambda n: n - 1,
        runs={"cpu": "all_reduce"},  # JAX: XLA has no broadcast on CPUs; others add zeros
    ),
    Collective(
        name="reduce",
        what="the root gets the sum of all",
        puts=whole,
        gets=lambda r, n, x: added(n, x) if r == ROOT else None,
        bus=lambda n: 1.0,
        total=lambda n: n - 1,
        reduces=True,
        runs={"cpu": "all_reduce", "cuda": "all_reduce"},  # JAX: one program, so all get the sum
    ),
    Collective(
        name="scatter",
        what="each rank gets its part of what the root has",
        puts=whole,
        gets=lambda r, n, x: cut(x(ROOT), r, n),
        bus=lambda n: (n - 1) / n,
        total=lambda n: (n - 1) / n,
        parts=lambda n: n,
    ),
    Collective(
        name="gather",
        what="the root gets the parts of all",
        puts=lambda r, n, x: cut(x(r), r, n),
        gets=lambda r, n, x: joint([cut(x(q), q, n) for q in range(n)]) if r == ROOT else None,
        bus=lambda n: (n - 1) / n,
        total=lambda n: (n - 1) / n,
        parts=lambda n: n,
    ),
    Collective(
        name="send",
        what="the first rank sends to the last",
        puts=whole,
        gets=lambda r, n, x: x(0) if r == n - 1 else None,
        bus=lambda n: 1.0,
        total=lambda n: 1,
    ),
    Collective(
        name="exchange",
        what="the first and the last rank send to each other",
        puts=whole,
        gets=lambda r, n, x: x(n - 1 - r) if r in (0, n - 1) else None,
        bus=lambda n: 1.0,
        total=lambda n: 2,
    ),
    Collective(
        name="permute",
        what="each rank sends to the next, round a ring",
        puts=whole,
        gets=lambda r, n, x: x((r - 1) % n),
        bus=lambda n: 1.0,
        total=lambda n: n,
    ),
    Collective(
        name="halo",
        what="each rank sends its first half to the one before and its second to the next",
        puts=whole,
        gets=halves,
        bus=lambda n: 1.0,
        total=lambda n: n,
        parts=lambda n: 2,
    ),
)
COLLECTIVES: Mapping[str, Collective] = MappingProxyType({row.name: row for row in ROWS})


def collective(name: str) -> Collective:
    """The row of this name; `ValueError` with the names that there are."""
    try:
        return COLLECTIVES[name]
    except KeyError:
        raise ValueError(f"op is {name!r}, expected one of {', '.join(COLLECTIVES)}") from None


def wire(name: str, ranks: int, backend: str) -> float:
    """Bytes that all ranks send at least, for each byte of the message, by what a backend runs.

    backend: gloo or nccl of torch, cpu or cuda of JAX.
    """
    row = collective(name)
    return float(COLLECTIVES[row.runs.get(backend, name)].total(ranks))
