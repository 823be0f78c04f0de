"""What each way to attend to spread keys sends, in how many steps, and what it holds meanwhile.

Formulas, checked against counts in tests. One step: messages that travel at the same time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from cookbook_lib.communication.collectives import collective
from cookbook_lib.communication.fit import ALGORITHMS, lg
from cookbook_lib.decoding.shards import cut


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One decoding step: `l` tokens of each of `b` sequences against `s` tokens in `p` shards."""

    s: int
    p: int
    h: int
    g: int
    k: int
    b: int = 1
    l: int = 1
    width: int = 2  # bytes of a number in the cache

    @property
    def acc(self) -> int:
        """Bytes of a number in a partial result: fp32, or fp64 if the cache has it."""
        return max(4, self.width)

    @property
    def rows(self) -> int:
        """Queries, each with all its heads."""
        return self.b * self.l

    @property
    def shard(self) -> int:
        """Tokens of the largest shard."""
        return ceil(self.s / self.p)

    @property
    def kv(self) -> int:
        """Numbers of the keys of the largest shard; as many of the values."""
        return self.b * self.shard * self.g * self.k


@dataclass(frozen=True, kw_only=True)
class Message:
    """`times` collectives of `nbytes` each, by the size of the table of collectives.

    beside: how many such go at the same time, and cost one step.
    """

    op: str
    nbytes: int
    times: int = 1
    beside: int = 1

    def sent(self, p: int) -> float:
        """Bytes that a rank sends."""
        return self.times * self.beside * self.nbytes * collective(self.op).bus(p)

    def steps(self, p: int, algorithm: str = "ring") -> int:
        table = ALGORITHMS[self.op]
        formula = table.get(algorithm) or next(iter(table.values()))
        return self.times * int(formula(p)[0])


def messages(method: str, x: Shape) -> list[Message]:
    """What a rank sends, in order; of ranks that send different amounts, the one with most."""
    p, heads = x.p, x.rows * x.h * x.acc
    if p == 1:
        return []
    if method == "tree":
        sizes = (heads, heads * x.k, heads)
        return [Message(op="all_reduce", nbytes=n) for n in sizes]
    if method == "tree-fused":
        return [Message(op="all_reduce", nbytes=n) for n in (heads, heads * (x.k + 1))]
    if method == "tree-once":
        whole = 1 << (p.bit_length() - 1)
        times = lg(whole) + (p > whole)  # a partner hands the result back
        return [Message(op="permute", nbytes=heads * (x.k + 2), times=times)]
    if method == "all-gather":
        return [Message(op="all_gather", nbytes=p * heads * (x.k + 2))]
    if method == "ring-kv":
        return [Message(op="permute", nbytes=x.kv * x.width, times=p - 1, beside=2)]
    if method == "ring-q":
        rows, other = (x.b, x.l) if x.b > 1 else (x.l, 1)
        lengths, one = cut(rows, p), other * x.h * (2 * x.k + 2) * x.acc
        hops = [Message(op="permute", nbytes=n * one) for n in sorted(lengths)[1:]]
        end = p * max(lengths) * other * x.h * x.k * x.width
        return [*hops, Message(op="all_gather", nbytes=end)]
    raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")


METHODS = ("tree", "tree-fused", "tree-once", "ring-kv", "ring-q", "all-gather")


def sent(method: str, x: Shape) -> float:
    """Bytes that the busiest rank sends, by rings."""
    return sum(m.sent(x.p) for m in messages(method, x))


def steps(method: str, x: Shape, algorithm: str = "ring") -> int:
    """Messages one after the other on the way to the result.

    algorithm: of all-reduces and all-gathers, as the table of `fit` names them.
    """
    return sum(m.steps(x.p, algorithm) for m in messages(method, x))


def read(method: str, x: Shape) -> int:
    """Bytes of keys and values that a rank reads: all of them where they come to it."""
    return 2 * x.kv * x.width * (x.p if method == "ring-kv" else 1)


def critical(method: str, x: Shape) -> int:
    """Shards read one after the other until the result is there, at least, in shards.

    A lone token that goes round visits one rank at a time; several keep all ranks busy.
    """
    return x.p if method in ("ring-kv", "ring-q") else 1


def held(method: str, x: Shape) -> int:
    """Bytes of keys and values on a rank at once: with a ring of them, those that are used and
    those that come, beside its own, which the next token needs."""
    shards = 1 + min(x.p - 1, 2) if method == "ring-kv" else 1
    return 2 * x.kv * x.width * shards


def published(method: str, t: int, d: int, b: int, n_h: int) -> int:
    """Peak numbers per device by arXiv 2408.04093, section 6.4: t tokens a device, d = h k."""
    return {"ring-kv": 4 * b * t * d + 2 * b * d, "tree": 2 * b * t * d + 2 * b * d + 2 * b * n_h}[
        method
    ]


Rates = Mapping[str, float]  # alpha: s of a step. beta: bytes/s of a link. read: bytes/s of memory


def seconds(method: str, x: Shape, rates: Rates, algorithm: str = "ring") -> float:
    """The alpha-beta model with the memory's rate: nothing overlaps, nothing else takes time."""
    wire = sum(
        rates["alpha"] * m.steps(x.p, algorithm) + m.sent(x.p) / rates["beta"]
        for m in messages(method, x)
    )
    shards = critical(method, x) * 2 * x.kv * x.width
    return wire + shards / rates["read"]
