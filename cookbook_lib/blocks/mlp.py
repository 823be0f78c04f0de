"""The MLP: each token on its own through a wider layer. Axes: b batch, l tokens, d_model, d_ff.

With a gate it is SwiGLU or GEGLU, by its activation: arXiv:2002.05202.
"""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cookbook_lib.blocks.naming import Named
from cookbook_lib.calculators import specs


def relu2(x: Tensor) -> Tensor:
    """ReLU squared: arXiv:2109.08668."""
    return F.relu(x).square()


gelu_tanh = partial(F.gelu, approximate="tanh")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "swish": F.silu,
    "gelu": F.gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": F.relu,
    "relu2": relu2,
}


def activation_named(name: str) -> Callable[[Tensor], Tensor]:
    """The function that a config's `hidden_act` names; `ValueError` if there is none."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation is {name!r}, expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


class MLP(Named):
    """`specs.MLP`, gated or not; a fused weight is gate, up in a row."""

    def __init__(self, spec: specs.MLP, *, activation: str = "silu"):
        super().__init__(spec)
        self.act = activation_named(activation)
        ins = {"up_proj": spec.d_ff}
        if spec.gated:
            both = {"gate_up_proj": spec.d_gate_up}
            ins = both if spec.fused else {"gate_proj": spec.d_ff, "up_proj": spec.d_ff}
        for name, d in ins.items():
            self.add(name, nn.Linear(spec.d_model, d, bias=spec.bias))
        self.ins = tuple(ins)
        self.add("down_proj", nn.Linear(spec.d_ff, spec.d_model, bias=spec.bias))

    def forward(
        self, x: Float[Tensor, "b l d_model"], adapter: nn.Module | None = None
    ) -> Float[Tensor, "b l d_model"]:
        """`adapter` (d_model to d_gate_up, or to d_ff without a gate) adds to what x becomes."""
        wide = [self.part(name)(x) for name in self.ins]
        wide = list(wide[0].chunk(2, -1)) if self.spec.fused and self.spec.gated else wide
        if adapter is not None:
            added = adapter(x).chunk(len(wide), -1)
            wide = [w + a for w, a in zip(wide, added, strict=True)]
        y = self.act(wide[0]) * wide[1] if self.spec.gated else self.act(wide[0])
        return self.part("down_proj")(y)
