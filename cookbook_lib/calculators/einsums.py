"""A block is a list of einsums; parameters, FLOPs, traffic and state follow from that list.

Axes are names: `b` sequences, `l` new tokens of each and `s` tokens of context come from the run,
every other axis is an attribute of the spec. Five rules give all the numbers:

1. FLOPs = the product of the axes, times 2 if something is added: an axis is summed, or an
   operand follows a `+`. An op with one operand is a lookup and costs none.
2. A weight is an operand without `b`: it does not depend on the data.
3. A state is what a token hands to the next; its axes and its dtype are declared in `state`.
4. Sharing is a name used twice: a dict counts it once, a list counts every use.
5. An op that crosses `l` with `s` runs over the pairs that the mask keeps.

What is not a product of tensors is not a row: softmax, SiLU, exp, residual additions, RoPE.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from math import prod
from typing import NamedTuple

Size = Callable[[str], int]  # axis name -> its length


class Row(NamedTuple):
    """What one op costs in one run. `elements` are read and written if the op runs alone."""

    block: str  # the block's name in its model; empty for a block on its own
    op: str  # the parameter it reads, as in state_dict(), else what it computes
    component: str
    kind: str  # matmul, conv, solve, elementwise or lookup
    formula: str  # FLOPs in symbols
    params: int
    params_active: int  # those that one token uses: k of E experts
    flops: int
    elements: int

    @property
    def name(self) -> str:
        """The parameter's full name, as in the checkpoint."""
        return f"{self.block}.{self.op}" if self.block else self.op


@cache
def parse(einsum: str) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Axis names of each operand, and of the result."""
    operands = einsum.replace("->", ",").replace("+", ",").split(",")
    *inputs, out = (tuple(t.split()) for t in operands)
    return inputs, out


@dataclass(frozen=True)
class Op:
    """One einsum: `Op("in_proj.weight", "b l d_model, d_model d_inner -> b l d_inner")`."""

    name: str
    einsum: str
    gather: str = ""  # an axis picked by index: neither looped over nor summed (MoE, embedding)
    take: str = ""  # how many of the gathered axis a token picks; empty: see `Row.params_active`
    kind: str = ""  # what runs, where it is not a matmul that the axes say

    def row(self, component: str, name: str, size: Size, causal: bool) -> Row:
        inputs, out = parse(self.einsum)
        axes = [a for a in dict.fromkeys(chain(*inputs)) if a != self.gather]
        adds = not set(axes) <= set(out) or "+" in self.einsum
        kind = self.kind or ("matmul" if not set(axes) <= set(out) else "elementwise")
        if len(inputs) == 1:
            kind, axes, factors = "lookup", [], ["0"]
        elif causal and {"l", "s"} <= set(axes):
            factors = ["2"] * adds + ["pairs"] + [a for a in axes if a not in ("l", "s")]
        else:
            factors = ["2"] * adds + axes
        params = sum(prod(map(size, t)) for t in inputs if "b" not in t)
        read = sum(prod(map(size, t)) for t in inputs)
        active = params
        if self.gather:
            total = size(self.gather)
            picks = size("b") * size("l") * (size(self.take) if self.take else 1)
            read += params // total * min(total, picks) - params
            active = params // total * size(self.take) if self.take else params
        return Row(
            block="",
            op=name,
            component=component,
            kind=kind,
            formula=" ".join(factors),
            params=params,
            params_active=active,
            flops=prod(int(f) if f.isdigit() else size(f) for f in factors),
            elements=read + prod(map(size, out)),
        )


def linear(name: str, d_in: str, d_out: str, bias: bool = False) -> list[Op]:
    """A linear map of each token between two axes, under the names that `nn.Linear` gives."""
    assert d_in != d_out, f"{name} maps {d_in} to itself: an axis of one name is one axis"
    return [
        Op(f"{name}.weight", f"b l {d_in}, {d_in} {d_out} -> b l {d_out}"),
        *[Op(f"{name}.bias", f"b l {d_out}, {d_out} -> b l {d_out}")] * bias,
    ]
