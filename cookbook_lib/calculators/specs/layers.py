"""The small parts: linear, gate, LoRA, norm, short convolution, embedding and head."""

from dataclasses import dataclass
from math import ceil

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import Op
from cookbook_lib.calculators.kept import Kept


@dataclass(frozen=True, kw_only=True)
class Linear(Block):
    """A linear map of each token: (b l d_in) -> (b l d_out)."""

    d_in: int
    d_out: int
    bias: bool = False

    component = "linear"

    def ops(self, run):
        return [
            Op("weight", "b l d_in, d_in d_out -> b l d_out"),
            *[Op("bias", "b l d_out, d_out -> b l d_out")] * self.bias,
        ]

    def kept_eager(self, run):
        return [Kept("input", "b l d_in")]


@dataclass(frozen=True, kw_only=True)
class Gate(Block):
    """One number for each token, by which another block's output is scaled."""

    d_model: int

    component = "gate"

    def ops(self, run):
        return [
            Op("weight", "b l d_model, d_model -> b l"),
            Op("scale", "b l, b l d_model -> b l d_model"),
        ]

    def kept_fused(self, run):
        """Its input, which the block that it scales reads too, and that block's output."""
        return [
            Kept("x", "b l d_model", light=True),
            *[Kept("gate", "b l"), Kept("scaled", "b l d_model")],
        ]


@dataclass(frozen=True, kw_only=True)
class LoRA(Block):
    """Two linears through a narrow middle, added to a shared weight: arXiv:2106.09685."""

    d_in: int
    rank: int
    d_out: int

    component = "lora"

    def shard(self, tp=1, ep=1):
        """Beside a weight whose outputs are split: so are those of the second linear."""
        return self.but(**self.split(tp, "d_out"))

    def ops(self, run):
        return [
            Op("0.weight", "b l d_in, d_in rank -> b l rank"),
            Op("1.weight", "b l rank, rank d_out -> b l d_out"),
        ]

    def kept_eager(self, run):
        """Its input is that of the weight beside it, which keeps it."""
        return [Kept("middle", "b l rank")]


@dataclass(frozen=True, kw_only=True)
class Norm(Block):
    """RMSNorm, or LayerNorm with a bias: one weight (and bias) per channel."""

    d_model: int
    bias: bool = False

    component = "norm"

    def ops(self, run):
        return [
            Op("weight", "b l d_model, d_model -> b l d_model"),
            *[Op("bias", "b l d_model, d_model -> b l d_model")] * self.bias,
        ]

    def kept_eager(self, run):
        """RMSNorm on a CPU is two products in float32, and keeps the operands of both."""
        if self.bias:
            return [Kept("stream", "b l d_model"), Kept("mean", "b l"), Kept("deviation", "b l")]
        wide = [Kept(x, "b l d_model", "fp32") for x in ("stream", "normed")]
        return [*wide, Kept("rms", "b l", "fp32")]

    def kept_fused(self, run):
        statistics = [Kept("mean", "b l", "fp32")] * self.bias + [Kept("rms", "b l", "fp32")]
        return [Kept("stream", "b l d_model"), *statistics]


@dataclass(frozen=True, kw_only=True)
class ShortConv(Block):
    """A causal depthwise convolution of `d_conv` taps along the sequence, with its state."""

    d_model: int
    d_conv: int
    bias: bool = False

    component = "conv"
    state = {"conv": ("conv", "b d_model d_conv", "")}

    def size(self, run):
        return super().size(run, l_conv=run.l + self.d_conv)

    def shard(self, tp=1, ep=1):
        return self.but(**self.split(tp, "d_model"))

    def ops(self, run):
        return [
            Op("weight", "b l d_model, d_model d_conv -> b l d_model", kind="conv"),
            *[Op("bias", "b l d_model, d_model -> b l d_model")] * self.bias,
        ]

    def kept_eager(self, run):
        return [Kept("conv_in", "b l_conv d_model")]


@dataclass(frozen=True, kw_only=True)
class Embedding(Block):
    """A table that is looked up: tokens, or learned positions."""

    vocab: int
    d_model: int

    component = "embedding"

    def shard(self, tp=1, ep=1):
        """Rows of the table are split, padded to equal parts."""
        return self.but(vocab=ceil(self.vocab / tp))

    def ops(self, run):
        return [Op("weight", "vocab d_model -> b l d_model", gather="vocab")]

    def kept_eager(self, run):
        return [Kept("tokens", "b l", "int64")]


@dataclass(frozen=True, kw_only=True)
class Head(Block):
    """Logits of all positions or of the last. Tied: give it the embedding's name in the model."""

    d_model: int
    vocab: int
    bias: bool = False

    component = "head"

    def size(self, run):
        return super().size(run, p=run.l if run.logits == "all" else 1)

    def shard(self, tp=1, ep=1):
        """Logits are split, the vocabulary padded to equal parts."""
        return self.but(vocab=ceil(self.vocab / tp))

    def ops(self, run):
        return [
            Op("weight", "b p d_model, d_model vocab -> b p vocab"),
            *[Op("bias", "b p vocab, vocab -> b p vocab")] * self.bias,
        ]

    def kept_eager(self, run):
        return [Kept("x", "b p d_model", light=True)]
