"""Sequence mixing by a state of fixed size: what Mamba-1 and Mamba-2 share, and Mamba-1.

Frameworks differ in the dtype of the SSM state: transformers' torch path keeps it in float32 even
in a bf16 model, mamba_ssm and BlackMamba in the weights' dtype; `ssm_dtype` says which ("" = the
run's). The convolution's state is `d_conv` columns wide in both.
"""

from dataclasses import dataclass
from math import ceil

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import Op, linear
from cookbook_lib.calculators.kept import Kept
from cookbook_lib.calculators.runs import BITS, choose


@dataclass(frozen=True, kw_only=True)
class SSM(Block):
    """What Mamba-1 and Mamba-2 share: the widths and the convolution."""

    d_model: int
    d_state: int
    d_conv: int = 4
    expand: int = 2
    d_ssm: int | None = None  # the inner width where it is not expand * d_model
    bias: bool = False  # of in_proj and, unless out_bias says otherwise, of out_proj
    out_bias: bool | None = None
    conv_bias: bool = True
    ssm_dtype: str = "fp32"

    d_inner = property(lambda self: self.d_ssm or self.expand * self.d_model)
    bias_out = property(lambda self: self.bias if self.out_bias is None else self.out_bias)

    def __post_init__(self):
        super().__post_init__()
        choose("ssm_dtype", self.ssm_dtype, ("", *BITS))

    def conv(self, d: str) -> list[Op]:
        return [
            Op("conv1d.weight", f"b l {d}, {d} d_conv -> b l {d}", kind="conv"),
            *[Op("conv1d.bias", f"b l {d}, {d} -> b l {d}")] * self.conv_bias,
        ]


@dataclass(frozen=True, kw_only=True)
class Mamba1(SSM):
    """Mamba, arXiv:2312.00752; with `nheads` above 1 Zamba's, whose heads do not see each other.

    dt_norm: norms on dt, B and C before the scan (Jamba).
    """

    d_state: int = 16
    dt_rank: int | None = None  # None: d_model / 16, rounded up
    nheads: int = 1
    dt_norm: bool = False

    component = "mamba"
    rank = property(lambda self: self.dt_rank or ceil(self.d_model / 16))
    headdim = property(lambda self: self.d_inner // self.nheads)
    d_in_proj = property(lambda self: 2 * self.d_inner)  # x, z
    d_x_proj = property(lambda self: self.rank + 2 * self.d_state)  # dt, B, C

    def __post_init__(self):
        super().__post_init__()
        self.divides("nheads", "d_inner")

    @property
    def state(self):
        return {
            "conv": ("conv", "b d_inner d_conv", ""),
            "ssm": ("ssm", "b nheads headdim d_state", self.ssm_dtype),
        }

    def shard(self, tp=1, ep=1):
        """Channels are split; what x_proj makes of a rank's channels is summed over the ranks."""
        if self.nheads == 1:
            return self.but(d_ssm=self.split(tp, "d_inner")["d_inner"], dt_rank=self.rank)
        parts = self.split(tp, "d_inner", "nheads")
        return self.but(d_ssm=parts["d_inner"], nheads=parts["nheads"], dt_rank=self.rank)

    def ops(self, run):
        x, h = "b l nheads headdim", "b l nheads headdim d_state"
        low, B = "b l nheads rank", "b l nheads d_state"
        norms = {"dt_layernorm": (low, "rank"), "b_layernorm": (B, "d_state")}
        norms["c_layernorm"] = norms["b_layernorm"]
        return [
            *linear("in_proj", "d_model", "d_in_proj", self.bias),
            *self.conv("d_inner"),
            Op("x_proj.weight", f"{x}, nheads headdim d_x_proj -> b l nheads d_x_proj"),
            *(Op(f"{k}.weight", f"{t}, {w} -> {t}") for k, (t, w) in norms.items() if self.dt_norm),
            Op("dt_proj.weight", f"{low}, nheads headdim rank -> {x}"),
            Op("dt_proj.bias", f"{x}, nheads headdim -> {x}"),
            Op("A_log", f"{x}, nheads headdim d_state -> {h}"),  # dt A, whose exp is the decay
            Op("dt_x", f"{x}, {x} -> {x}"),
            Op("write", f"{x}, {B} -> {h}"),
            Op("carry", f"{h}, {h} + {h} -> {h}"),  # decay the state, add what is written
            Op("read", f"{h}, {B} -> {x}"),
            Op("D", f"{x}, nheads headdim + {x} -> {x}"),
            Op("gate", f"{x}, {x} -> {x}"),
            *linear("out_proj", "d_inner", "d_model", self.bias_out),
        ]

    def size(self, run):
        own = {"c": ceil(run.l / 64), "c_kernel": ceil(run.l / 2048), "pair": 2}
        return super().size(run, l_conv=run.l + self.d_conv, **own)

    def kept_eager(self, run):
        """The scan keeps its operands, and a state for each chunk of 64 tokens."""
        A, B, heads = "nheads headdim d_state", "b l nheads d_state", "b l nheads"
        normed = [
            kept
            for name, wide in (("dt", "rank"), ("B", "d_state"), ("C", "d_state"))
            for kept in (
                Kept(f"{name}_in", f"{heads} {wide}", "fp32"),
                Kept(f"{name}_normed", f"{heads} {wide}", "fp32"),
                Kept(f"{name}_rms", heads, "fp32"),
            )
        ]
        low = (
            [Kept("low", f"{heads} rank")]
            if self.dt_norm
            else [Kept("dt_B_C", f"{heads} d_x_proj")]
        )
        return [
            Kept("x", "b l d_model", light=True),
            Kept("conv_in", "b l_conv d_inner"),
            Kept("conv_out", "b l d_inner"),
            Kept("activated", "b l d_inner"),
            *normed * self.dt_norm,
            *low,
            *[Kept(f"{t}_out", B, "uncast") for t in "BC" if self.dt_norm],
            Kept("dt_in", "b l d_inner", "fp32"),
            *[Kept("exp_A", A, "fp32"), Kept("A", A, "fp32")],
            *[Kept("scan_x", "b l d_inner", "cast"), Kept("dt", "b l d_inner", "fp32")],
            *[Kept("B", B, "cast"), Kept("C", B, "cast")],
            Kept("states", "b c nheads headdim d_state", "fp32"),
            Kept("D", "d_inner", "cast"),
            *[Kept("z", "b l d_inner", "cast"), Kept("xz", "b l d_in_proj", "uncast")],
            *[Kept("y", "b l d_inner", "fp32"), Kept("gate", "b l d_inner", "fp32")],
            Kept("out", "b l d_inner"),
        ]

    def kept_fused(self, run):
        """`mamba_inner_fn` with checkpoint_lvl=1: it recomputes the convolution and dt.

        The kernel keeps a decay and a state for each 2048 tokens (selective_scan.cpp).
        """
        return [
            Kept("x", "b l d_model", light=True),
            Kept("xz", "b l d_in_proj"),
            Kept("dt_B_C", "b l nheads d_x_proj"),
            *(Kept(t, "b l nheads d_state") for t in "BC"),
            Kept("A", "nheads headdim d_state", "fp32"),
            Kept("states", "b c_kernel nheads headdim d_state pair", "fp32"),
            Kept("scan_out", "b l d_inner"),
        ]
