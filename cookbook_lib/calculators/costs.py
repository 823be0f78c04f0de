"""What a block costs in one run: its einsums with the run's sizes, and the states it keeps."""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import ClassVar, NamedTuple

from cookbook_lib.calculators.einsums import Op, Row, Size
from cookbook_lib.calculators.runs import BITS, Run, choose


class State(NamedTuple):
    """A tensor that one token hands to the next, for `b` sequences of `s` tokens."""

    name: str
    kind: str  # kv, conv or ssm
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes, rounded up to whole ones where elements are smaller than a byte."""
        return -(-prod(self.shape) * BITS[self.dtype] // 8)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A spec: its fields are axes, `ops` is its one declaration, and every cost is derived.

    `names` says what a checkpoint calls a module where it differs: (("q_proj", "query"), …).
    """

    names: tuple[tuple[str, str], ...] = ()

    component: ClassVar[str] = "other"
    state: ClassVar[dict[str, tuple[str, str, str]]] = {}  # name -> kind, axes, dtype ("" = run's)

    def __post_init__(self):
        for name, value in vars(self).items():
            if isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise ValueError(f"{name} is {value!r}, expected a whole number above 0")

    def divides(self, part: str, whole: str) -> None:
        """`ValueError` unless `part` divides `whole`; both are names of fields."""
        if getattr(self, whole) % getattr(self, part):
            raise ValueError(
                f"{whole} is {getattr(self, whole)}, expected a multiple of "
                f"{part} ({getattr(self, part)})"
            )

    def shard(self, tp: int = 1, ep: int = 1) -> "Block":
        """What one rank holds and runs if channels are split over tp ranks and experts over ep.

        A shard is a block: its rows, weights and states are those of the rank. This one is not
        split; each rank holds all of it.
        """
        return self

    def split(self, ranks: int, *names: str, by: str = "tp") -> dict[str, int]:
        """Each of these fields divided by `ranks`; `ValueError` for one that does not divide."""
        for name in names:
            if getattr(self, name) % ranks:
                raise ValueError(
                    f"{by} is {ranks}, expected a divisor of {name} ({getattr(self, name)}) "
                    f"of the {self.component}"
                )
        return {name: getattr(self, name) // ranks for name in names}

    def split_or_copy(self, ranks: int, name: str) -> dict[str, int]:
        """The field divided by `ranks`; where they are more, several ranks hold a copy of one."""
        n = getattr(self, name)
        if n % ranks and ranks % n:
            raise ValueError(
                f"tp is {ranks}, expected a divisor or a multiple of {name} ({n}) "
                f"of the {self.component}"
            )
        return {name: max(1, n // ranks)}

    def ops(self, run: Run) -> list[Op]:
        """The einsums that this block runs, in order."""
        raise NotImplementedError(f"{type(self).__name__} declares no ops")

    def size(self, run: Run, **own: int) -> Size:
        """The length of each axis in this run; `own`: of those that are no attributes."""
        own = {"b": run.b, "l": run.l, "s": run.s} | own
        return lambda axis: own[axis] if axis in own else getattr(self, axis)

    def renamed(self, name: str) -> str:
        for old, new in self.names:
            if name == old or name.startswith(old + "."):
                return new + name[len(old) :]
        return name

    def rows(self, run: Run) -> tuple[Row, ...]:
        """What each op costs, in the order they run."""
        return _rows(self, run)

    def states(self, b: int = 1, s: int = 1, dtype: str = "bf16") -> tuple[State, ...]:
        """What is kept for the next token after `s` tokens, in the frameworks' dtypes."""
        choose("dtype", dtype, BITS)
        size = self.size(Run(b=b, s=s))
        return tuple(
            State(name, kind, tuple(map(size, axes.split())), own or dtype)
            for name, (kind, axes, own) in self.state.items()
        )

    @property
    def distinct(self) -> tuple[tuple["Block", int], ...]:
        """The different blocks that this one is made of, and how often each runs."""
        return ((self, 1),)

    def costs(self, **run) -> tuple[Row, ...]:
        """`rows` with the run as keywords: `costs(b=1, l=4096, attention="causal")`."""
        return self.rows(Run(**run))

    def weights(self) -> dict[str, int]:
        """Elements of each parameter, by its name: a shared one counts once."""
        return {row.name: row.params for row in self.costs() if row.params}

    def params(self) -> int:
        return sum(self.weights().values())

    def params_active(self) -> int:
        """Parameters that one token uses: `params` less the experts that it does not pick."""
        return sum({row.name: row.params_active for row in self.costs()}.values())

    def params_used(self) -> int:
        """`params_active` with each use of a shared block counted.

        A table that serves as embedding and as head counts once: the lookup multiplies nothing.
        """
        rows = [row for row in self.costs() if row.params]
        multiplied = [row for row in rows if row.kind != "lookup"]
        names = {row.name for row in multiplied}
        looked_up = {r.name: r.params_active for r in rows if r.name not in names}
        return sum(row.params_active for row in multiplied) + sum(looked_up.values())

    def flops(self, **run) -> int:
        """FLOPs of the forward pass."""
        return sum(row.flops for row in self.costs(**run))

    def backward_flops(self, **run) -> int:
        """Twice the forward pass: each product gives one gradient to each of its two operands."""
        return 2 * self.flops(**run)

    def step_flops(self, recompute: bool = False, **run) -> int:
        """FLOPs of a training step: forward, backward, and the forward once more if recomputed."""
        return (4 if recompute else 3) * self.flops(**run)

    def state_bytes(self, kind: str = "", b: int = 1, s: int = 1, dtype: str = "bf16") -> int:
        """Bytes of state of one kind, or of all."""
        return sum(
            uses * x.nbytes
            for block, uses in self.distinct
            for x in block.states(b, s, dtype)
            if kind in ("", x.kind)
        )

    def but(self, **changes):
        """A variant of this spec: `dataclasses.replace` as a method."""
        return replace(self, **changes)


@lru_cache(maxsize=4096)
def _rows(block: Block, run: Run) -> tuple[Row, ...]:
    size, causal = block.size(run), run.attention == "causal"
    return tuple(
        op.row(block.component, block.renamed(op.name), size, causal) for op in block.ops(run)
    )
