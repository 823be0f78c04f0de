"""What torch allocates and runs, parameter by parameter and row by row, beside what a spec says.

torch's FLOP counter knows matrix products and convolutions. A state-space layer also multiplies and
adds element by element, and that counter takes those for free; `Counted` counts one FLOP for each
element that `mul` or `add` makes. `exp`, SiLU, softplus, sums of logarithms and the like stay free,
as they do in the specs.
"""

from collections import Counter
from math import prod

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.runs import Run


def elementwise(*shapes, out_shape: torch.Size, **_) -> int:
    """One FLOP for each element of the result."""
    return prod(out_shape)


class Counted(FlopCounterMode):
    """A context in which `at(row)` names what runs next; `flops` then says what each name cost.

        with Counted() as at:
            at("in_proj.weight")
            y = F.linear(x, weight)
        at.flops["in_proj.weight"]

    A name used twice adds up. `outside` is what runs before the first name, or after `at("")`.
    With `plain`, only what torch's own counter knows is counted.
    """

    def __init__(self, plain: bool = False):
        aten = torch.ops.aten
        known = () if plain else (aten.mul, aten.mul_, aten.add, aten.add_)
        extra = dict.fromkeys(known, elementwise)
        super().__init__(display=False, custom_mapping=extra)
        self.flops: Counter[str] = Counter()
        self.row, self.before, self.outside = "", 0, 0

    def __call__(self, row: str) -> None:
        total = self.get_total_flops()
        self.flops[self.row] += total - self.before
        self.row, self.before = row, total

    def __exit__(self, *error):
        self("")
        self.outside = self.flops.pop("", 0)
        return super().__exit__(*error)


def beside(block: Block, run: Run, torch_ran: Counter[str]) -> list[dict]:
    """A block's rows beside what torch ran under the same names, for `plots.table`.

    Raises ValueError if torch ran something under a name that is not one of the block's rows.
    """
    size, rows = block.size(run), [row for row in block.rows(run) if row.flops]
    if unknown := set(torch_ran) - {row.op for row in rows}:
        raise ValueError(f"torch ran {min(unknown)!r}, expected only rows of {block.component}")
    return [
        {
            "op": row.op,
            "formula": row.formula.replace(" ", " · "),
            "FLOPs": row.flops,
            "torch counted": torch_ran[row.op],
            "equal": "yes" if torch_ran[row.op] == row.flops else "no",
            "numbers": " · ".join(f if f.isdigit() else str(size(f)) for f in row.formula.split()),
        }
        for row in rows
    ]


def walked(walk: dict[str, tuple[str, str]], block: Block, module: nn.Module) -> list[dict]:
    """Each parameter by a formula, by the block's spec and as `module` allocates it.

    walk: parameter -> what it is, and its size as arithmetic in the spec's fields.
    Raises ValueError where the three do not agree.
    """
    sizes = {axis: getattr(block, axis) for axis in dir(block) if not axis.startswith("_")}
    declared = block.weights()
    allocated = {name: p.numel() for name, p in module.named_parameters()}
    rows = []
    for name in dict.fromkeys([*walk, *declared, *allocated]):
        what, formula = walk.get(name, ("", "0"))
        counts = eval(formula, sizes), declared.get(name, 0), allocated.get(name, 0)
        if len(set(counts)) > 1:
            raise ValueError(
                f"{name} is {counts[0]} by hand, {counts[1]} in the spec, but {counts[2]}"
            )
        row = {"parameter": name, "formula": formula.replace("*", "·")}
        row |= dict(zip(("by hand", "spec", "torch"), counts, strict=True))
        rows.append(row | {"what it is": what})
    sums = {column: sum(row[column] for row in rows) for column in ("by hand", "spec", "torch")}
    return [*rows, {"parameter": "all", **sums}]
