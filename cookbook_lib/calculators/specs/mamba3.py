"""Mamba-3, arXiv:2603.15569: no convolution, a trapezoid instead of a rectangle, and rotations."""

from dataclasses import dataclass

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import Op, linear
from cookbook_lib.calculators.kept import Kept
from cookbook_lib.calculators.runs import BITS, choose
from cookbook_lib.calculators.specs.mamba2 import chunked, chunks, gated, in_chunks


@dataclass(frozen=True, kw_only=True)
class Mamba3(Block):
    """Mamba-3 with one input and one output (SISO); fields are named as in mamba_ssm.

    rope_fraction: the part of the state that rotates. norm: a norm of each head before out_proj.
    """

    d_model: int
    d_state: int = 128
    expand: int = 2
    headdim: int = 64
    ngroups: int = 1
    rope_fraction: float = 0.5
    chunk_size: int = 64
    norm: bool = False
    ssm_dtype: str = "fp32"
    d_ssm: int | None = None  # the inner width where it is not expand * d_model

    component = "mamba3"
    d_inner = property(lambda self: self.d_ssm or self.expand * self.d_model)
    nheads = property(lambda self: self.d_inner // self.headdim)
    n_angles = property(lambda self: int(self.d_state * self.rope_fraction) // 2)
    # z, x; B, C; the step, the decay and the trapezoid's weight of each head; the angles
    d_in_proj = property(
        lambda self: (
            2 * self.d_inner + 2 * self.ngroups * self.d_state + 3 * self.nheads + self.n_angles
        )
    )

    def __post_init__(self):
        super().__post_init__()
        self.divides("headdim", "d_inner")
        self.divides("ngroups", "nheads")
        choose("ssm_dtype", self.ssm_dtype, ("", *BITS))
        if self.rope_fraction not in (0.5, 1.0):
            raise ValueError(f"rope_fraction is {self.rope_fraction!r}, expected 0.5 or 1.0")
        if self.n_angles < 1:
            raise ValueError(f"d_state is {self.d_state}, expected at least 4: pairs of it rotate")

    @property
    def state(self):
        return {
            "angle": ("ssm", "b nheads n_angles", self.ssm_dtype),
            "ssm": ("ssm", "b nheads headdim d_state", self.ssm_dtype),
            "last_B": ("conv", "b nheads d_state", ""),
            "last_x": ("conv", "b nheads headdim", ""),
        }

    def size(self, run):
        return super().size(run, **chunks(run, self.chunk_size))

    def shard(self, tp=1, ep=1):
        """Heads are split, all of them turn by the same angles; shared groups are copied."""
        heads, groups = self.split(tp, "nheads"), self.split_or_copy(tp, "ngroups")
        return self.but(d_ssm=heads["nheads"] * self.headdim, **groups)

    def ops(self, run):
        heads, x, B = "b l nheads", "b l nheads headdim", "b l nheads d_state"
        group = "b l ngroups d_state"
        one_by_one = run.l == 1 or run.scan == "recurrent"
        return [
            *linear("in_proj", "d_model", "d_in_proj"),
            Op("dt_bias", f"{heads}, nheads -> {heads}"),
            Op("dt_A", f"{heads}, {heads} -> {heads}"),
            Op("turn", f"{heads}, b l n_angles -> {heads} n_angles"),
            *(Op(f"{t}_norm.weight", f"{group}, d_state -> {group}") for t in "BC"),
            *(Op(f"{t}_bias", f"{B}, nheads d_state -> {B}") for t in "BC"),
            *(self.recurrence() if one_by_one else self.trapezoid_in_chunks()),
            Op("D", f"{x}, nheads + {x} -> {x}"),
            *[Op("norm.weight", f"{x}, nheads headdim -> {x}")] * self.norm,
            Op("gate", f"{x}, {x} -> {x}"),
            *linear("out_proj", "d_inner", "d_model"),
        ]

    def trapezoid_in_chunks(self) -> list[Op]:
        """A token's weight for those after it is not that for itself: the output is corrected."""
        heads, x, B = "b l nheads", "b l nheads headdim", "b l nheads d_state"
        return [
            Op("weight_x", f"{heads}, {x} -> {x}"),
            *chunked("nheads", ""),
            Op("self", f"{B}, {B} -> {heads}", kind="elementwise"),
            Op("correct", f"{heads}, {x} + {x} -> {x}"),
        ]

    def recurrence(self) -> list[Op]:
        """Write the last token with its share, decay, write the new one with its own, read."""
        heads, x, B = "b l nheads", "b l nheads headdim", "b l nheads d_state"
        h = "b l nheads headdim d_state"
        return [
            Op("weight_x", f"{heads}, {x} -> {x}"),
            Op("weight_last_x", f"{heads}, {x} -> {x}"),
            Op("write_last", f"{x}, {B} + {h} -> {h}"),
            Op("write", f"{x}, {B} -> {h}"),
            Op("carry", f"{heads}, {h} + {h} -> {h}"),
            Op("read", f"{h}, {B} -> {x}"),
        ]

    def kept_eager(self, run):
        heads, wide, turned = "b l nheads", "b l d_inner", "b l nheads n_angles"
        numbers = [
            "dt_in",
            "dt",
            "rate",
            "a",
            "share",
            "rest",
            "lent",
            "weight",
            "got",
            "self",
            "got_self",
        ]
        return [
            Kept("x", "b l d_model", light=True),
            *(Kept(name, heads, "fp32") for name in numbers),
            *(Kept(name, heads, "cast") for name in ("A_in",)),
            *[Kept("turn", "b l n_angles", "fp32"), Kept("turn_dt", "b l n_angles", "fp32")],
            *(kept for t in "BC" for kept in self.keys_kept(t)),
            *(Kept(name, turned, "fp32") for name in ["angle", "cos_B", "sin_B", "cos_C", "sin_C"]),
            *[Kept("last_x", "b d_inner", "fp32"), Kept("last_B", "b nheads d_state", "fp32")],
            Kept("scan_x", wide, "cast"),
            *in_chunks("nheads", "nheads", self.size(run)),
            Kept("D", "nheads", "cast"),
            *[Kept("z", wide, "cast"), Kept("in_proj", "b l d_in_proj", "uncast")],
            Kept("y", wide, "fp32"),
            *([*gated(wide, heads)] if self.norm else [Kept("gate", wide, "fp32")]),
            Kept("out", wide),
        ]

    def keys_kept(self, t: str) -> list[Kept]:
        """Of B or C: normed, given to each head, and turned."""
        group, head = "b l ngroups d_state", "b l nheads d_state"
        return [
            Kept(f"{t}_in", group, "cast"),
            Kept(f"{t}_normed", group, "fp32"),
            Kept(f"{t}_rms", "b l ngroups", "fp32"),
            *(Kept(f"{t}_{at}", head, "fp32") for at in ("of_heads", "turned")),
        ]

    def kept_fused(self, run):
        """`mamba3_siso_combined` keeps B and C of each head, turned, and each chunk's state."""
        heads, group, B = "b l nheads", "b l ngroups d_state", "b l nheads d_state"
        numbers = ["dt_A", "dt", "share", "decay", "dot", "scale", "gamma"]
        return [
            Kept("x", "b l d_model", light=True),
            Kept("in_proj", "b l d_in_proj"),
            *(Kept(f"{t}_normed", group) for t in "BC"),
            *(Kept(f"{t}_turned", B) for t in "BC"),
            *(Kept(name, heads, "fp32") for name in numbers),
            Kept("angles", "b l nheads n_angles", "fp32"),
            *[Kept("y", "b l d_inner"), Kept("out", "b l d_inner")],
            Kept("states", "b c nheads headdim d_state", "bf16"),
        ]
