"""LFM2's mixer, arXiv:2511.23404: a short convolution with a gate before it and one after it."""

from dataclasses import dataclass

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import Op, linear


@dataclass(frozen=True, kw_only=True)
class GatedConv(Block):
    """Double-gated short convolution; its state is the last `d_conv` gated inputs."""

    d_model: int
    d_conv: int = 3
    bias: bool = False

    component = "gated conv"
    d_in_proj = property(lambda self: 3 * self.d_model)  # the two gates, x
    d_inner = property(lambda self: self.d_model)  # what is convolved
    state = {"conv": ("conv", "b d_inner d_conv", "")}

    def ops(self, run):
        x = "b l d_inner"
        return [
            *linear("in_proj", "d_model", "d_in_proj", self.bias),
            Op("gate_in", f"{x}, {x} -> {x}"),
            Op("conv.weight", f"{x}, d_inner d_conv -> {x}", kind="conv"),
            *[Op("conv.bias", f"{x}, d_inner -> {x}")] * self.bias,
            Op("gate_out", f"{x}, {x} -> {x}"),
            *linear("out_proj", "d_inner", "d_model", self.bias),
        ]
