"""Sequence mixing by a state of fixed size: Mamba-1 and Mamba-2.

Frameworks differ in the dtype of the SSM state: transformers' torch path keeps it in float32 even
in a bf16 model, mamba_ssm and BlackMamba in the weights' dtype; `ssm_dtype` says which ("" = the
run's). The convolution's state is `d_conv` columns wide in both.
"""

from dataclasses import dataclass
from math import ceil

from cookbook_lib.calculators.costs import BITS, Block, Run, choose
from cookbook_lib.calculators.einsums import Op, linear


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


@dataclass(frozen=True, kw_only=True)
class Mamba2(SSM):
    """Mamba-2, arXiv:2405.21060; `norm`: the gated RMSNorm before out_proj."""

    d_state: int = 128
    headdim: int = 64
    ngroups: int = 1
    chunk_size: int = 256
    norm: bool = True

    component = "mamba2"
    nheads = property(lambda self: self.d_inner // self.headdim)
    per_group = property(lambda self: self.nheads // self.ngroups)  # heads that share B and C
    d_xBC = property(lambda self: self.d_inner + 2 * self.ngroups * self.d_state)
    d_in_proj = property(lambda self: self.d_inner + self.d_xBC + self.nheads)  # z, xBC, dt

    def __post_init__(self):
        super().__post_init__()
        self.divides("headdim", "d_inner")
        self.divides("ngroups", "nheads")

    @property
    def state(self):
        return {
            "conv": ("conv", "b d_xBC d_conv", ""),
            "ssm": ("ssm", "b nheads headdim d_state", self.ssm_dtype),
        }

    def size(self, run):
        return super().size(run, **chunks(run, self.chunk_size))

    def shard(self, tp=1, ep=1):
        """Heads are split; a group whose heads lie on several ranks is copied."""
        heads, groups = self.split(tp, "nheads"), self.split_or_copy(tp, "ngroups")
        return self.but(d_ssm=heads["nheads"] * self.headdim, **groups)

    def ops(self, run):
        heads, x = "b l nheads", "b l nheads headdim"
        one_by_one = run.l == 1 or run.scan == "recurrent"
        scan = self.recurrence() if one_by_one else chunked("ngroups", "per_group")
        return [
            *linear("in_proj", "d_model", "d_in_proj", self.bias),
            *self.conv("d_xBC"),
            Op("dt_bias", f"{heads}, nheads -> {heads}"),
            Op("A_log", f"{heads}, nheads -> {heads}"),  # dt A, whose exp is the decay
            Op("dt_x", f"{heads}, {x} -> {x}"),
            *scan,
            Op("D", f"{x}, nheads + {x} -> {x}"),
            Op("gate", "b l d_inner, b l d_inner -> b l d_inner"),
            *[Op("norm.weight", "b l d_inner, d_inner -> b l d_inner")] * self.norm,
            *linear("out_proj", "d_inner", "d_model", self.bias_out),
        ]

    def recurrence(self) -> list[Op]:
        """Token by token: write to the state while it decays, then read it."""
        h, x = "b l ngroups per_group headdim d_state", "b l ngroups per_group headdim"
        return [
            Op("write", f"{x}, b l ngroups d_state -> {h}"),
            Op("carry", f"b l ngroups per_group, {h} + {h} -> {h}"),
            Op("read", f"{h}, b l ngroups d_state -> {x}"),
        ]


def chunks(run: Run, size: int) -> dict[str, int]:
    """The axes of a scan in chunks: c of them, of q = k tokens each, the last one padded."""
    return {"c": ceil(run.l / size), "q": size, "k": size}


def chunked(g: str, heads: str) -> list[Op]:
    """Attention with a decaying mask inside a chunk of q = k tokens, a state between chunks.

    g: the axis of groups that share B and C; heads: that of a group's heads, empty for one each.
    """
    C, B = f"b c q {g} d_state", f"b c k {g} d_state"
    x, y = f"b c k {g} {heads} headdim", f"b c q {g} {heads} headdim"
    h, mask = f"b c {g} {heads} headdim d_state", f"b c {g} {heads} q k"
    return [
        Op("scores", f"{C}, {B} -> b c {g} q k"),
        Op("mask", f"b c {g} q k, {mask} -> {mask}"),
        Op("within", f"{mask}, {x} -> {y}"),
        Op("to_end", f"b c k {g} {heads}, {x} -> {x}"),
        Op("chunk_state", f"{B}, {x} -> {h}"),
        Op("carry", f"b c {g} {heads}, {h} + {h} -> {h}"),
        Op("between", f"{C}, {h} -> {y}"),
        Op("from_start", f"b c q {g} {heads}, {y} + {y} -> {y}"),
    ]
