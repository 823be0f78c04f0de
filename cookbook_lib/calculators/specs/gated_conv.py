"""LFM2's mixer, arXiv:2511.23404: a short convolution with a gate before it and one after it."""

from dataclasses import dataclass

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import Op, linear
from cookbook_lib.calculators.kept import Kept


@dataclass(frozen=True, kw_only=True)
class GatedConv(Block):
    """Double-gated short convolution; its state is the last `d_conv` gated inputs."""

    d_model: int
    d_conv: int = 3
    bias: bool = False
    d_conv_in: int | None = None  # channels of the convolution where they are not d_model

    component = "gated conv"
    d_inner = property(lambda self: self.d_conv_in or self.d_model)  # what is convolved
    d_in_proj = property(lambda self: 3 * self.d_inner)  # the two gates, x
    state = {"conv": ("conv", "b d_inner d_conv", "")}

    def shard(self, tp=1, ep=1):
        """Channels are split: they do not see each other before out_proj."""
        return self.but(d_conv_in=self.split(tp, "d_inner")["d_inner"])

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

    def kept_fused(self, run):
        """The two products are taken again; causal_conv1d keeps its input, the gate its output."""
        return [
            Kept("x", "b l d_model", light=True),
            Kept("gates_and_x", "b l d_in_proj"),
            Kept("conv_in", "b l d_inner", light=True),
            Kept("conv_out", "b l d_inner"),
            Kept("out", "b l d_inner", light=True),
        ]
