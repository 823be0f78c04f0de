"""Sequence mixing by a state that every head decays as a whole: Mamba-2, and scans in chunks."""

from dataclasses import dataclass
from math import ceil

from cookbook_lib.calculators.einsums import Op, Size, linear
from cookbook_lib.calculators.kept import Kept
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.specs.ssm import SSM


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
        return super().size(run, l_conv=run.l + self.d_conv, **chunks(run, self.chunk_size))

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

    def kept_eager(self, run: Run) -> list[Kept]:
        heads, wide = "b l nheads", "b l d_inner"
        return [
            Kept("x", "b l d_model", light=True),
            Kept("conv_in", "b l_conv d_xBC"),
            Kept("conv_out", "b l d_xBC"),
            *(Kept(name, heads, "fp32") for name in ("dt_in", "dt_softplus", "dt")),
            *[Kept("exp_A", "nheads", "fp32"), Kept("A", "nheads", "fp32")],
            *[Kept("scan_x", wide, "cast"), Kept("xBC", "b l d_xBC", "uncast")],
            *in_chunks("ngroups", "nheads", self.size(run), "l_later"),
            *[
                Kept(t, "b l ngroups d_state", "cast")
                for t in "BC"
                if min(run.b, self.ngroups) == 1
            ],
            *[Kept("D_x", wide, "cast"), Kept("D", "d_inner", "fp32")],
            *[Kept("z", wide, "cast"), Kept("zxBCdt", "b l d_in_proj", "uncast")],
            *[Kept("y", wide, "fp32"), Kept("gate", wide, "fp32")],
            *self.norm_kept() * self.norm,
            Kept("out", wide),
        ]

    def norm_kept(self) -> list[Kept]:
        statistics = [Kept(name, "b l ngroups", "fp32") for name in ("root", "rms")]
        return [Kept("gated", "b l d_inner", "fp32"), *statistics, Kept("normed", "b l d_inner")]

    def kept_fused(self, run: Run) -> list[Kept]:
        """`mamba_split_conv1d_scan_combined`: what in_proj made, and what the scan makes of it."""
        return [
            Kept("x", "b l d_model", light=True),
            Kept("zxBCdt", "b l d_in_proj"),
            Kept("y", "b l d_inner"),
            *[Kept("rms", "b l ngroups", "fp32")] * self.norm,
        ]


def chunks(run: Run, size: int) -> dict[str, int]:
    """The axes of a scan in chunks: c of them, of q = k tokens each, the last one padded.

    Without padding: `l_pairs` pairs of tokens in one chunk, `l_later` tokens after the first.
    """
    c, rest = ceil(run.l / size), run.l % size
    own = {"l_pairs": run.l // size * size**2 + rest**2, "l_later": max(0, run.l - size)}
    return {"c": c, "q": size, "k": size} | own


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


def in_chunks(g: str, h: str, size: Size, later: str = "l") -> list[Kept]:
    """What `weighted_chunks` of this package's ssd.py keeps, one chunk after the other, in float32.

    g: the axis of groups that share B and C, h: that of heads. later: the tokens that read a state,
    `l_later` where it is empty before the first. A product of two batches copies an operand unless
    all but one of its axes are 1.
    """
    several = [size("b") > 1, size(g) > 1, size(h) > size(g)]
    B, head = f"b l {g} d_state", f"b l {h} headdim"
    copied = {
        **dict.fromkeys(("B", "C"), B if sum(several[:2]) > 1 else ""),
        **{"B_of_heads": f"b l {h} d_state", "C_of_heads": f"b {later} {h} d_state"},
        "x_copied": head if several[0] else "",
    }
    if sum(several) < 2:
        copied |= dict.fromkeys(("B_of_heads", "C_of_heads"), "")
    axes = {
        **dict.fromkeys(("decay_from_start", "decay_to_end"), f"b l {h}"),
        "decay_through": f"b c {h}",
        **dict.fromkeys(("decay", "masked_scores"), f"b {h} l_pairs"),
        "scores": f"b {g} l_pairs",
        **dict.fromkeys(("weighted_x", "x_to_end", "between"), head),
        "states": f"b c {h} headdim d_state",
    }
    return [Kept(name, of, "fp32") for name, of in (axes | copied).items() if of]


def gated(wide: str, heads: str) -> list[Kept]:
    """What a norm of each head before the gate keeps beside its input and the gate's."""
    statistics = [Kept(name, heads, "fp32") for name in ("root", "rms")]
    return [*statistics, *(Kept(name, wide) for name in ("normed", "scaled", "gate"))]
