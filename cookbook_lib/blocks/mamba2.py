"""Mamba-2: a short convolution, then the state space dual, then a norm behind a gate.

arXiv:2405.21060, section 7. Axes: b batch, l tokens, d_model, h heads, p headdim, g groups,
n d_state.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cookbook_lib.blocks import kernels
from cookbook_lib.blocks.linear import Linear
from cookbook_lib.blocks.naming import Named
from cookbook_lib.blocks.short_conv import short_conv
from cookbook_lib.blocks.ssd import ssd_chunked, ssd_step, ssd_update
from cookbook_lib.blocks.ssm_parts import GatedNorm, draw_dt_bias, exact
from cookbook_lib.calculators import specs


class Mamba2(Named):
    """`specs.Mamba2`; eps is of the norm.

    dt_limit: the time steps are clamped to it, in every form (transformers' torch path does not
    clamp single steps). norm_before_gate: see `GatedNorm`. norm_groups: parts
    of d_inner that are normed each on its own, None for the spec's groups.
    The scan and its state are in float32 (float64 if x is), whatever the weights' dtype.
    """

    def __init__(
        self,
        spec: specs.Mamba2,
        eps: float = 1e-5,
        *,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
        norm_before_gate: bool = False,
        norm_groups: int | None = None,
    ):
        super().__init__(spec)
        self.dt_limit, d, h = dt_limit, spec.d_inner, spec.nheads
        self.add("in_proj", Linear(spec.d_model, spec.d_in_proj, bias=spec.bias))
        conv = nn.Conv1d(
            spec.d_xBC, spec.d_xBC, spec.d_conv, groups=spec.d_xBC, bias=spec.conv_bias
        )
        self.add("conv1d", conv)
        self.dt_bias = draw_dt_bias(h)
        self.A_log = nn.Parameter(torch.empty(h).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(h))
        if spec.norm:
            groups = norm_groups or spec.ngroups
            self.add("norm", GatedNorm(d, groups, eps, norm_before_gate=norm_before_gate))
        out_bias = spec.bias if spec.out_bias is None else spec.out_bias
        self.add("out_proj", Linear(d, spec.d_model, bias=out_bias))

    def forward(
        self,
        x: Float[Tensor, "b l d_model"],
        state: dict[str, Tensor] | None = None,
        *,
        mask: Bool[Tensor, "b l"] | None = None,
        seq_idx: Int[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b l d_model"]:
        """Mix `l` tokens; state: {"conv": (b d_xBC d_conv), "ssm": (b h p n)}, read and updated.

        mask: False for padding, which contributes nothing. seq_idx: each token's document.
        """
        if x.shape[1] == 1 and state is not None and mask is None and seq_idx is None:
            return self.token(x, state)
        s, g = self.spec, self.spec.ngroups
        z, xBC, dt = self.part("in_proj")(x).split([s.d_inner, s.d_xBC, s.nheads], -1)
        if mask is not None:
            xBC = xBC * mask[..., None]
        conv, conv_state = self.part("conv1d"), state and state["conv"]
        xBC = F.silu(short_conv(xBC, conv.weight, conv.bias, conv_state, seq_idx))
        x, B, C = xBC.split([s.d_inner, g * s.d_state, g * s.d_state], -1)
        x = rearrange(x, "b l (h p) -> b l h p", p=s.headdim)
        B, C = (rearrange(t, "b l (g n) -> b l g n", g=g) for t in (B, C))
        dt = F.softplus(exact(dt) + exact(self.dt_bias)).clamp(*self.dt_limit)
        if mask is not None:
            dt = dt * mask[..., None]  # no step: the state stays as it was
        y = self.scan(x, dt, B, C, state and state["ssm"], seq_idx)
        D = exact(self.D).repeat_interleave(s.headdim)
        y = torch.addcmul(exact(y).flatten(2), exact(x).flatten(2), D)
        y = self.part("norm")(y, z) if s.norm else (y * F.silu(exact(z))).to(z.dtype)
        return self.part("out_proj")(y)

    def token(self, x: Tensor, state: dict[str, Tensor]) -> Tensor:
        """`forward` of a single token, with a dimension and many small operations less."""
        s, b, g = self.spec, len(x), self.spec.ngroups
        z, xBC, dt = self.part("in_proj")(x).split([s.d_inner, s.d_xBC, s.nheads], -1)
        conv = self.part("conv1d")
        xBC = F.silu(short_conv(xBC, conv.weight, conv.bias, state["conv"]))
        x, B, C = xBC[:, 0].split([s.d_inner, g * s.d_state, g * s.d_state], -1)
        dt = F.softplus(exact(dt[:, 0]) + exact(self.dt_bias)).clamp(*self.dt_limit)
        x, B, C = x.view(b, -1, s.headdim), B.view(b, g, -1), C.view(b, g, -1)
        y = self.step(x, dt, B, C, -exact(self.A_log).exp(), state["ssm"])
        y = torch.addcmul(exact(y), exact(x), exact(self.D)[:, None]).view(b, 1, -1)
        y = self.part("norm")(y, z) if s.norm else (y * F.silu(exact(z))).to(z.dtype)
        return self.part("out_proj")(y)

    def scan(self, x, dt, B, C, state, seq_idx):
        """One token by the step, more of them in chunks; `state` is updated in place."""
        A, size = -exact(self.A_log).exp(), self.spec.chunk_size
        if x.shape[1] == 1 and state is not None:
            return self.step(*(t[:, 0] for t in (x, dt, B, C)), A, state)[:, None]
        if (done := kernels.ssd(x, dt, A, B, C, state, size, seq_idx)) is not None:
            y, last = done
        else:
            x, B, C = exact(x), exact(B), exact(C)
            zeros = x.new_zeros(len(x), *x.shape[2:], B.shape[-1])
            held = zeros if state is None else state.to(x.dtype)
            y, last = ssd_chunked(x, dt, A, B, C, held, size, seq_idx)
        if state is not None:
            state.copy_(last.detach())
        return y

    def step(self, x, dt, B, C, A, state):
        """One token, (b h p) and so on; `state` is updated in place."""
        if (y := kernels.step(x, dt, A, B, C, state)) is not None:
            return y
        x, B, C = exact(x), exact(B), exact(C)
        if state.dtype == x.dtype and not torch.is_grad_enabled():
            return ssd_update(x, dt, A, B, C, state)
        y, last = ssd_step(x, dt, A, B, C, exact(state))
        state.copy_(last.detach())
        return y
