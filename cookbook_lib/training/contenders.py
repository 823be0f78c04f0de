"""Architectures to compare on text: a transformer, Mamba-2, a hybrid in Zamba2's manner, and the
hybrid with one of its ideas changed.

Mamba-2 has no MLP, so its size is the size: the others get MLPs as wide as it leaves them. All
have the same width, head dimension, vocabulary, and one table for embedding and head.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float
from torch import Tensor, nn

from cookbook_lib.blocks.models import LanguageModel, Options, Residual, Zamba2
from cookbook_lib.blocks.rope import RoPE
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.model import Model
from cookbook_lib.training.metrics import flops_per_token
from cookbook_lib.training.tiny import tiny, zamba2

VOCAB, LAYERS = 1024, "mmhmmh"  # of the hybrid: a third of its layers ask the shared block
WIDEST = 4096  # MLP that is tried
CLOSE = 0.01  # part of the parameters by which equal ones may differ
Shape = Callable[[int], Model]  # width of the MLPs -> spec


def sized(shape: Shape, params: int) -> Model:
    """The spec that comes nearest to so many parameters, by the width of its MLPs.

    `ValueError` if none is near, because all the rest is too large or too small.
    """
    at = bisect_left(range(1, WIDEST), params, key=lambda width: shape(width).params())
    found = min(
        (shape(width) for width in (max(1, at), at + 1)), key=lambda s: abs(s.params() - params)
    )
    if abs(found.params() - params) > CLOSE * params:
        raise ValueError(f"params is {params}, expected about {found.params()}: {found.name}")
    return found


class FromStream(Zamba2):
    """Zamba2 whose shared blocks read the stream without the embeddings."""

    def read(self, x: Float[Tensor, "b l d"], x0: Float[Tensor, "b l d"]) -> Float[Tensor, "b l e"]:
        return x


def changed(spec: Model, change: Callable[[Block], Block]) -> Model:
    """The spec with every block of its layers changed."""
    layers = ((k, tuple((n, change(block)) for n, block in layout)) for k, layout in spec.layers)
    return spec.but(layers=tuple(layers))


def transformer(d_ff: int) -> Model:
    """Six layers of attention and an MLP; the embedding is the head, as in Zamba2."""
    spec = tiny("a-" * 6, VOCAB, d_ff=d_ff)
    (table, _), (norm, (_, head)) = spec.before[0], spec.after
    return spec.but(after=(norm, (table, head)))


def hybrid(layers: str = LAYERS, blocks: int = 1, lora: bool = True) -> Shape:
    return lambda d_ff: zamba2(VOCAB, blocks, lora, layers, d_ff=d_ff)


def without_concatenation(d_ff: int) -> Model:
    """The norm and attention read d_model channels, and have no weights for the rest."""
    spec = hybrid()(d_ff)

    def narrow(block: Block) -> Block:
        if isinstance(block, specs.Attention):
            return block.but(d_in=None)
        return block.but(d_model=64) if isinstance(block, specs.Norm) else block

    return changed(spec, narrow)


def two_half_blocks(d_ff: int) -> Model:
    def halved(block: Block) -> Block:
        half = isinstance(block, specs.Attention) and block.n_heads // 2
        return block.but(n_heads=half, n_kv_heads=half) if half else block

    return changed(hybrid(blocks=2)(d_ff), halved)


@dataclass(frozen=True)
class Contender:
    """An architecture by name. `level`: its MLPs are sized; otherwise they are as the hybrid's."""

    name: str
    shape: Shape
    wiring: type[LanguageModel] = Zamba2
    level: bool = True

    @cached_property
    def spec(self) -> Model:
        if self.name == "Mamba-2":
            return self.shape(1)  # has no MLP
        params = CONTENDERS["Mamba-2"].spec.params()
        if self.level:
            return sized(self.shape, params)
        return self.shape(width(CONTENDERS["hybrid"].spec))

    @property
    def flops_per_token(self) -> float:
        return flops_per_token(self.spec, LENGTH)

    def make(self) -> LanguageModel:
        """With fresh random weights.

        The table starts at 1 / sqrt(d_model). GPT-2's 0.02 is that of a model 2500 wide; in one 64
        wide the first blocks would write over the tokens, and the rate would have to dig them out.
        """
        model = self.wiring(self.spec, Options(rope=RoPE(), activation="gelu"))
        (name, table), *_ = self.spec.before
        nn.init.normal_(model.get_submodule(name).weight, std=table.d_model**-0.5)
        return model


def width(spec: Model) -> int | None:
    """Of the MLPs; None without."""
    found = {block.d_ff for block, _ in spec.distinct if isinstance(block, specs.MLP)}
    return found.pop() if found else None


LENGTH = 128  # tokens of a sequence
ARCHITECTURES = (
    Contender("hybrid", hybrid()),
    Contender("transformer", transformer, Residual),
    Contender("Mamba-2", hybrid("m" * 10)),
)
ABLATIONS = (
    Contender("attention in 1 of 6", hybrid("mmmmmh")),
    Contender("attention in 1 of 2", hybrid("mhmhmh")),
    Contender("attention in all", hybrid("hhhhhh")),
    Contender("two blocks", hybrid(blocks=2), level=False),
    Contender("two half blocks", two_half_blocks),
    Contender("no concatenation", without_concatenation, FromStream),
    Contender("no LoRA", hybrid(lora=False)),
)
CONTENDERS = {contender.name: contender for contender in (*ARCHITECTURES, *ABLATIONS)}
