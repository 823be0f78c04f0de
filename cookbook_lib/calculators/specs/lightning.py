"""Lightning attention, arXiv:2401.04658: linear attention whose heads decay at fixed rates."""

from dataclasses import dataclass

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import Op, linear
from cookbook_lib.calculators.kept import Kept
from cookbook_lib.calculators.runs import BITS, choose
from cookbook_lib.calculators.specs.mamba2 import chunked, chunks


@dataclass(frozen=True, kw_only=True)
class Lightning(Block):
    """Lightning attention as MiniMax-01 has it, arXiv:2501.08313 section 2.2, with a gate.

    The decays are constants, not parameters. The state follows the weights' dtype.
    """

    d_model: int
    n_heads: int
    head_dim: int = 128
    chunk_size: int = 256
    ssm_dtype: str = ""

    component = "lightning"
    d_inner = property(lambda self: self.n_heads * self.head_dim)
    d_qkv = property(lambda self: 3 * self.d_inner)
    d_state = property(lambda self: self.head_dim)  # keys
    headdim = property(lambda self: self.head_dim)  # values

    def __post_init__(self):
        super().__post_init__()
        choose("ssm_dtype", self.ssm_dtype, ("", *BITS))

    @property
    def state(self):
        return {"ssm": ("ssm", "b n_heads d_state headdim", self.ssm_dtype)}

    def size(self, run):
        return super().size(run, **chunks(run, self.chunk_size))

    def shard(self, tp=1, ep=1):
        """Heads are split; the norm over all of them needs one more sum for each token."""
        return self.but(**self.split(tp, "n_heads"))

    def ops(self, run):
        x = "b l d_inner"
        one_by_one = run.l == 1 or run.scan == "recurrent"
        return [
            *linear("qkv_proj", "d_model", "d_qkv"),
            *(self.recurrence() if one_by_one else chunked("n_heads", "")),
            Op("norm.weight", f"{x}, d_inner -> {x}"),
            *linear("output_gate", "d_model", "d_inner"),
            Op("gate", f"{x}, {x} -> {x}"),
            *linear("out_proj", "d_inner", "d_model"),
        ]

    def recurrence(self) -> list[Op]:
        """Token by token: write to the state while it decays, then read it."""
        k, v, S = "b l n_heads d_state", "b l n_heads headdim", "b l n_heads d_state headdim"
        return [
            Op("write", f"{k}, {v} -> {S}"),
            Op("carry", f"b l n_heads, {S} + {S} -> {S}"),
            Op("read", f"{k}, {S} -> {v}"),
        ]

    def kept_fused(self, run):
        """`chunk_simple_gla` of fla 0.6.0 keeps q, k and v alone; they are SiLUs of qkv_proj."""
        x = "b l d_inner"
        return [
            Kept("x", "b l d_model", light=True),
            Kept("qkv_in", "b l d_qkv"),
            Kept("qkv", "b l d_qkv", light=True),
            *[Kept("y", x), Kept("rms", "b l", "fp32")],
            Kept("gate", x),
            Kept("out", x, light=True),
        ]
