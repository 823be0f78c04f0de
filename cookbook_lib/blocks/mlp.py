"""The MLP: each token on its own through a wider layer. Axes: b batch, l tokens, d_model, d_ff.

With a gate it is SwiGLU or GEGLU, by its activation: arXiv:2002.05202.
"""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cookbook_lib.blocks.linear import Linear
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
    """`specs.MLP`, gated or not; a fused weight is gate, up in a row.

    gate_first: False if it is up, gate (mamba_ssm's GatedMLP).
    """

    def __init__(self, spec: specs.MLP, *, activation: str = "silu", gate_first: bool = True):
        super().__init__(spec)
        self.act, self.gate_first = activation_named(activation), gate_first
        ins = {"up_proj": spec.d_ff}
        if spec.gated:
            both = {"gate_up_proj": spec.d_gate_up}
            ins = both if spec.fused else {"gate_proj": spec.d_ff, "up_proj": spec.d_ff}
        for name, d in ins.items():
            self.add(name, Linear(spec.d_model, d, bias=spec.bias))
        self.ins = tuple(ins)
        self.add("down_proj", Linear(spec.d_ff, spec.d_model, bias=spec.bias))

    def forward(
        self, x: Float[Tensor, "... d_model"], adapter: nn.Module | None = None
    ) -> Float[Tensor, "... d_model"]:
        """adapter: adds to what `gate_up_proj` makes of x (Zamba2's LoRA); for a fused weight."""
        wide = [self.part(name)(x) for name in self.ins]
        if adapter is not None:
            if len(wide) > 1:
                raise ValueError("adapter is given, expected None unless the spec is fused")
            wide[0] = wide[0] + adapter(x)
        if not self.spec.gated:
            return self.part("down_proj")(self.act(wide[0]))
        gate, up = wide[0].chunk(2, -1) if self.spec.fused else wide
        gate, up = (gate, up) if self.gate_first else (up, gate)
        return self.part("down_proj")(self.act(gate) * up)
