"""Griffin's recurrent block, arXiv:2402.19427: a convolution, then a gated linear recurrence."""

from dataclasses import dataclass

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import Op, linear
from cookbook_lib.calculators.kept import Kept
from cookbook_lib.calculators.runs import BITS, choose


@dataclass(frozen=True, kw_only=True)
class RGLRU(Block):
    """The recurrent block with the names of RecurrentGemma: a state of one number per channel.

    n_heads: blocks on the diagonal of the two gates' weights. The convolution's state leaves out
    the new token, so it is one column narrower than in the other families.
    """

    d_model: int
    n_heads: int
    d_rnn: int | None = None  # the width of the recurrence where it is not d_model
    d_conv: int = 4
    ssm_dtype: str = "fp32"

    component = "rg-lru"
    d_inner = property(lambda self: self.d_rnn or self.d_model)
    head_dim = property(lambda self: self.d_inner // self.n_heads)
    head_out = property(lambda self: self.head_dim)
    d_before = property(lambda self: self.d_conv - 1)

    def __post_init__(self):
        super().__post_init__()
        self.divides("n_heads", "d_inner")
        choose("ssm_dtype", self.ssm_dtype, ("", *BITS))

    @property
    def state(self):
        ssm = ("ssm", "b d_inner", self.ssm_dtype)
        return {"conv": ("conv", "b d_inner d_before", ""), "ssm": ssm}

    def shard(self, tp=1, ep=1):
        """Channels are split by the blocks of the gates' weights."""
        parts = self.split(tp, "n_heads", "d_inner")
        return self.but(n_heads=parts["n_heads"], d_rnn=parts["d_inner"])

    def ops(self, run):
        x, head = "b l d_inner", "b l n_heads head_dim"
        weights = "n_heads head_dim head_out"
        gates = (
            op
            for name in ("input", "recurrent")
            for op in (
                Op(f"rg_lru.{name}_gate_weight", f"{head}, {weights} -> b l n_heads head_out"),
                Op(f"rg_lru.{name}_gate_bias", f"{head}, n_heads head_dim -> {head}"),
            )
        )
        return [
            *linear("linear_y", "d_model", "d_inner", bias=True),
            *linear("linear_x", "d_model", "d_inner", bias=True),
            Op("conv_1d.weight", f"{x}, d_inner d_conv -> {x}", kind="conv"),
            Op("conv_1d.bias", f"{x}, d_inner -> {x}"),
            *gates,
            Op("rg_lru.recurrent_param", f"{x}, d_inner -> {x}"),  # the log decay
            Op("gate_x", f"{x}, {x} -> {x}"),
            Op("normalise", f"{x}, {x} -> {x}"),  # by sqrt(1 - decay^2)
            Op("carry", f"{x}, {x} + {x} -> {x}"),
            Op("gate_y", f"{x}, {x} -> {x}"),
            *linear("linear_out", "d_inner", "d_model", bias=True),
        ]

    def kept_fused(self, run):
        """The scan of google-deepmind/recurrentgemma (jax/pallas.py) keeps decay and output.

        All between the gates' weights and the scan is taken for one kernel that keeps its inputs.
        """
        x = "b l d_inner"
        kept = ("y_in", "conv_in", "conv_out", "input_gate_in", "recurrent_gate_in")
        return [
            Kept("x", "b l d_model", light=True),
            *(Kept(name, x) for name in kept),
            *[Kept("decay", x, light=True), Kept("scan_out", x)],
            Kept("out", x, light=True),
        ]
