"""A model with one of its sizes changed, and the products of matrices that this changes.

Sizes that a spec derives follow (`d_inner` is `expand * d_model`); those that it states stay.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from typing import NamedTuple

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.gemms import Gemm, products
from cookbook_lib.calculators.model import Layout, Model
from cookbook_lib.calculators.runs import Run, choose
from cookbook_lib.calculators.specs import Linear

SIZES = ("d_model", "n_heads", "head_dim", "nheads", "headdim", "d_state", "d_ff", "vocab")


class Use(NamedTuple):
    """A product of a model's forward pass, and how often it runs."""

    where: str  # the component and the op, as in "mamba2 in_proj.weight"
    uses: int
    product: Gemm

    @property
    def flops(self) -> int:
        return self.uses * self.product.flops


def own(model: Model, size: str) -> int:
    """The model's value: where blocks differ, that of those which compute the most."""
    choose("vary", size, SIZES)
    found: Counter[int] = Counter()
    for _, block in model.layout:
        if (value := held(block, size)) is not None:
            found[value] += block.flops(l=1024)
    if not found:
        raise ValueError(f"vary is {size!r}, which no block of {model.name} has")
    return found.most_common(1)[0][0]


def held(block: Block, size: str) -> int | None:
    """The block's value, if it states one; heads of Mamba-2 and its like are those of `d_ssm`."""
    stated = {f.name for f in fields(block)}
    if size == "nheads" and not {"d_ssm", "headdim"} <= stated:
        return None
    return getattr(block, size, None) if size in stated | {"nheads"} else None


def vary(model: Model, size: str, value: int) -> Model:
    """The model with this size in every block that has the model's own value of it."""
    old = own(model, size)

    def changed(layout: Layout) -> Layout:
        return tuple((name, with_size(block, size, old, value)) for name, block in layout)

    return model.but(
        before=changed(model.before),
        layers=tuple((letter, changed(layout)) for letter, layout in model.layers),
        after=changed(model.after),
    )


def with_size(block: Block, size: str, old: int, new: int) -> Block:
    """A block after a size of its model has changed."""
    if size == "d_model":  # the stream's width, of which Zamba's shared blocks read twice as much
        names = ("d_model", "d_in", "d_out") if isinstance(block, Linear) else ("d_model", "d_in")
        wide = {name: getattr(block, name, None) for name in names}
        return block.but(**{k: v // old * new for k, v in wide.items() if v and v % old == 0})
    if held(block, size) != old:
        return block
    if size == "nheads":
        return block.but(d_ssm=new * block.headdim)
    if size == "n_heads" and hasattr(block, "n_kv_heads"):  # as many queries share a key as before
        if new % block.per_kv:
            raise ValueError(
                f"n_heads is {new}, expected a multiple of {block.per_kv}: so many share a key"
            )
        return block.but(n_heads=new, n_kv_heads=new // block.per_kv)
    return block.but(**{size: new})


def uses(model: Model, run: Run) -> list[Use]:
    """Every product of a forward pass, those of equal name and shape as one."""
    found: Counter[tuple[str, Gemm]] = Counter()
    for _, block in model.layout:
        for product in products(block, run):
            found[f"{block.component} {product.op}", product] += 1
    return [Use(where, n, product) for (where, product), n in found.items()]


def varied(model: Model, size: str, values: Iterable[int], run: Run) -> dict[int, list[Use]]:
    """For each value the products that are not the same for all of them."""
    every = {value: uses(vary(model, size, value), run) for value in dict.fromkeys(values)}
    first, *others = map(set, every.values())
    same = first.intersection(*others) if others else set()
    if others and not any(set(found) - same for found in every.values()):
        raise ValueError(f"vary is {size!r}, which changes no product of {model.name}")
    return {value: [use for use in found if use not in same] for value, found in every.items()}
