"""Mamba: a short convolution, then the selective scan, then a gate.

arXiv:2312.00752, section 3.4; with several heads, Zamba's: arXiv:2405.16712. Axes: b batch,
l tokens, d_model, d_inner, h heads, p headdim, n d_state, k rank of dt.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, einsum, nn

from cookbook_lib.blocks import kernels
from cookbook_lib.blocks.linear import Linear
from cookbook_lib.blocks.naming import Named
from cookbook_lib.blocks.norms import RMSNorm
from cookbook_lib.blocks.selective_scan import selective_scan_chunked, selective_scan_step
from cookbook_lib.blocks.short_conv import short_conv
from cookbook_lib.blocks.ssm_parts import draw_dt_bias, exact
from cookbook_lib.calculators import specs


class Mamba1(Named):
    """`specs.Mamba1`; eps is of the norms of dt, B and C, if the spec has them (Jamba).

    interleaved: in_proj makes x and z channel by channel, not x and then z; None: where there are
    several heads, as in Zamba. plain_norms: norms of dt, B and C without weights (Falcon-Mamba).
    The scan and its state are in float32 (float64 if x is), whatever the weights' dtype.
    """

    def __init__(
        self,
        spec: specs.Mamba1,
        eps: float = 1e-5,
        *,
        interleaved: bool | None = None,
        plain_norms: bool = False,
    ):
        super().__init__(spec)
        h, p, n, rank = spec.nheads, spec.headdim, spec.d_state, spec.rank
        self.interleaved = h > 1 if interleaved is None else interleaved
        self.eps, self.plain_norms = eps, plain_norms
        self.add("in_proj", Linear(spec.d_model, spec.d_in_proj, bias=spec.bias))
        conv = nn.Conv1d(h * p, h * p, spec.d_conv, groups=h * p, bias=spec.conv_bias)
        self.add("conv1d", conv)
        heads = (h,) if "." not in spec.renamed("x_proj.weight") or h > 1 else ()
        wide = (*heads, p)
        for name, shape, fan_in in (
            ("x_proj.weight", (*heads, spec.d_x_proj, p), p),
            ("dt_proj.weight", (*wide, rank), rank),
        ):
            self.add_weight(name, torch.empty(shape).uniform_(-(fan_in**-0.5), fan_in**-0.5))
        self.add_weight("dt_proj.bias", draw_dt_bias(*wide))
        if spec.dt_norm:
            for name, d in ("dt", rank), ("b", n), ("c", n):
                self.add(f"{name}_layernorm", RMSNorm(d, eps=eps))
        self.A_log = nn.Parameter(torch.arange(1.0, n + 1).log().expand(*wide, n).clone())
        self.D = nn.Parameter(torch.ones(wide))
        out_bias = spec.bias if spec.out_bias is None else spec.out_bias
        self.add("out_proj", Linear(h * p, spec.d_model, bias=out_bias))

    def forward(
        self,
        x: Float[Tensor, "b l d_model"],
        state: dict[str, Tensor] | None = None,
        *,
        mask: Bool[Tensor, "b l"] | None = None,
        seq_idx: Int[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b l d_model"]:
        """Mix `l` tokens; state: {"conv": (b d_inner d_conv), "ssm": (b h p n)}, read and updated.

        mask: False for padding, which contributes nothing. seq_idx: each token's document.
        """
        xz = self.part("in_proj")(x)
        pairs = xz.unflatten(-1, (-1, 2)).unbind(-1) if self.interleaved else xz.chunk(2, -1)
        x, z = pairs
        if mask is not None:
            x = x * mask[..., None]
        conv, conv_state = self.part("conv1d"), state and state["conv"]
        x = F.silu(short_conv(x, conv.weight, conv.bias, conv_state, seq_idx))
        x = rearrange(x, "b l (h p) -> b l h p", h=self.spec.nheads)
        dt, B, C = self.select(x)
        if mask is not None:
            dt = dt * mask[..., None, None]  # no step: the state stays as it was
        y = self.scan(exact(x), dt, exact(B), exact(C), state and state["ssm"], seq_idx)
        y = y.flatten(2) * F.silu(exact(z))
        return self.part("out_proj")(y.to(z.dtype))

    def select(self, x: Float[Tensor, "b l h p"]) -> tuple[Tensor, Tensor, Tensor]:
        """dt (b l h p), B and C (b l h n), from the tokens: what the scan is selective by."""
        s, h = self.spec, self.spec.nheads
        x_proj = self.weight("x_proj.weight").view(h, -1, s.headdim)
        dt_proj = self.weight("dt_proj.weight").view(h, s.headdim, -1)
        parts = einsum("blhp, hkp -> blhk", x, x_proj).split([s.rank, s.d_state, s.d_state], -1)
        if s.dt_norm:
            norms = (self.part(f"{name}_layernorm") for name in ("dt", "b", "c"))
            parts = [norm(t) for norm, t in zip(norms, parts, strict=True)]
        if self.plain_norms:
            parts = [F.rms_norm(t, t.shape[-1:], eps=self.eps) for t in parts]
        low, B, C = parts
        dt = exact(einsum("blhk, hpk -> blhp", low, dt_proj))
        return F.softplus(dt + exact(self.weight("dt_proj.bias").view(h, -1))), B, C

    def scan(self, x, dt, B, C, state, seq_idx):
        """One token by the step, more of them in chunks; `state` is updated in place."""
        h, p = x.shape[2:]
        A = -exact(self.A_log).view(h, p, -1).exp()
        if x.shape[1] == 1 and state is not None:
            x1, dt1, B1, C1 = (t[:, 0] for t in (x, dt, B, C))
            last = state
            if (y := kernels.step(x1, dt1, A, B1, C1, state)) is None:
                y, last = selective_scan_step(x1, dt1, A, B1, C1, exact(state))
            y = y[:, None]
        elif (done := kernels.selective_scan(x, dt, A, B, C, state, seq_idx)) is not None:
            y, last = done
        else:
            zeros = x.new_zeros(len(x), *A.shape)
            held = zeros if state is None else exact(state)
            y, last = selective_scan_chunked(x, dt, A, B, C, held, seq_idx=seq_idx)
        if state is not None and last is not state:
            state.copy_(last.detach())
        return torch.addcmul(exact(y), x, exact(self.D).view(h, p))
