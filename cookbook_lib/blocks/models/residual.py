"""The common wiring: each block reads a norm of the stream and adds to it.

x' = x + block(norm(x)), block after block. So are Mamba, Mamba-2, BlackMamba (arXiv:2402.01771),
Jamba (arXiv:2403.19887), Llama and Mixtral built: they differ in their layouts, not in the wiring.
Axes: b sequences, l tokens, d d_model.
"""

from jaxtyping import Float
from torch import Tensor

from cookbook_lib.blocks.models.language_model import LanguageModel, Layer, Pass
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.model import Model


class Residual(LanguageModel):
    """Layers of (norm, block) pairs, each of which adds to the stream."""

    @staticmethod
    def check(spec: Model) -> None:
        for letter, layout in spec.layers:
            norms = [isinstance(block, specs.Norm) for _, block in layout]
            if norms != [True, False] * (len(norms) // 2):
                blocks = ", ".join(block.component for _, block in layout)
                raise ValueError(f"layer {letter!r} is {blocks}; expected a norm before each block")

    def layer(
        self, parts: Layer, x: Float[Tensor, "b l d"], x0: Float[Tensor, "b l d"], run: Pass
    ) -> Float[Tensor, "b l d"]:
        uses = iter(parts.values())
        for norm, block in zip(uses, uses, strict=True):
            x = x + run(block, run(norm, x))
        return x
