"""What a model needs to know beside its sizes: activation, positions, the constants of norms."""

from dataclasses import dataclass
from math import inf

from cookbook_lib.blocks.rope import RoPE


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is not a size.

    eps: of the norms. mixer_eps: of those inside Mamba; None for the same.
    plain_norms: dt, B and C of Mamba are normed without weights (Falcon-Mamba).
    activation: of MLPs and experts. gate_first: see `MLP`. gate, normalise, balance: see `MoE`.
    rope: None for no positions. scale: of attention's scores, None for 1 / sqrt(head_dim).
    dt_limit: what Mamba-2 clamps its step sizes to.
    fp32_residual: the stream is float32 even where the weights are not.
    """

    eps: float = 1e-5
    mixer_eps: float | None = None
    plain_norms: bool = False
    activation: str = "silu"
    gate_first: bool = True
    gate: str = "softmax"
    normalise: bool = True
    balance: str = "none"
    rope: RoPE | None = None
    scale: float | None = None
    dt_limit: tuple[float, float] = (0.0, inf)
    fp32_residual: bool = False
