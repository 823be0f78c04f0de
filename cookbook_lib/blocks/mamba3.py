"""Mamba-3: no convolution; the trapezoid's recurrence over B and C that turn; a gate.

arXiv:2603.15569, sections 3 and 4, one input and one output (SISO); parameters are named as in
mamba_ssm 2.3. Axes: b batch, l tokens, d_model, h heads, p headdim, g groups, n d_state, w angles.
"""

from math import pi

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cookbook_lib.blocks.linear import Linear
from cookbook_lib.blocks.naming import Named
from cookbook_lib.blocks.norms import RMSNorm
from cookbook_lib.blocks.ssm_parts import GatedNorm, draw_dt_bias, exact
from cookbook_lib.blocks.trapezoid import total_angles, trapezoid_chunked, trapezoid_step, turned
from cookbook_lib.calculators import specs


class Mamba3(Named):
    """`specs.Mamba3`; eps is of the norms.

    slowest: what the rate of decay, -A, is at least (mamba_ssm's `A_floor`).
    The scan and its state are in float32 (float64 if x is), whatever the weights' dtype.
    """

    def __init__(self, spec: specs.Mamba3, eps: float = 1e-5, *, slowest: float = 1e-4):
        super().__init__(spec)
        self.slowest, h, n = slowest, spec.nheads, spec.d_state
        self.add("in_proj", Linear(spec.d_model, spec.d_in_proj, bias=False))
        self.dt_bias = draw_dt_bias(h)
        self.B_bias, self.C_bias = (nn.Parameter(torch.ones(h, 1, n)) for _ in "BC")
        self.add("B_norm", RMSNorm(n, eps=eps))
        self.add("C_norm", RMSNorm(n, eps=eps))
        self.D = nn.Parameter(torch.ones(h))
        if spec.norm:
            self.add("norm", GatedNorm(spec.d_inner, h, eps, norm_before_gate=True))
        self.add("out_proj", Linear(spec.d_inner, spec.d_model, bias=False))

    def forward(
        self,
        x: Float[Tensor, "b l d_model"],
        state: dict[str, Tensor] | None = None,
        *,
        mask: Bool[Tensor, "b l"] | None = None,
        seq_idx: Int[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b l d_model"]:
        """Mix `l` tokens; state: {"angle": (b h w), "ssm": (b h p n), "last_B": (b h n),
        "last_x": (b h p)}, read and updated.

        mask: False for padding, which contributes nothing. seq_idx: each token's document.
        """
        s, h = self.spec, self.spec.nheads
        widths = [s.d_inner] * 2 + [s.ngroups * s.d_state] * 2 + [h] * 3 + [s.n_angles]
        z, x, B, C, dt, A, share, turn = self.part("in_proj")(x).split(widths, -1)
        dt = F.softplus(exact(dt) + exact(self.dt_bias))
        if mask is not None:  # no step: the state stays as it was
            dt, x = dt * mask[..., None], x * mask[..., None]
        a = -dt * F.softplus(exact(A)).clamp(min=self.slowest)
        turn = pi * exact(turn).tanh()[:, :, None] * dt[..., None]
        x = exact(rearrange(x, "b l (h p) -> b l h p", h=h))
        B, C = self.keys("B", B), self.keys("C", C)
        y = self.scan(x, dt, a, exact(share).sigmoid(), B, C, turn, state, seq_idx)
        y = (y + exact(self.D)[:, None] * x).flatten(2)
        y = self.part("norm")(y, z) if s.norm else (y * F.silu(exact(z))).to(z.dtype)
        return self.part("out_proj")(y)

    def keys(self, name: str, t: Float[Tensor, "b l gn"]) -> Float[Tensor, "b l h n"]:
        """B or C of each head: those of its group, normed, and the head's own bias."""
        t = self.part(f"{name}_norm")(t.unflatten(-1, (self.spec.ngroups, -1)))
        t = t.repeat_interleave(self.spec.nheads // self.spec.ngroups, 2)
        return exact(t) + exact(self.get_parameter(f"{name}_bias")).squeeze(1)

    def scan(self, x, dt, a, share, B, C, turn, state, seq_idx):
        """One token by the step, more of them in chunks; `state` is updated in place."""
        names = ("angle", "ssm", "last_B", "last_x")
        if state is None:
            b, _, h, p = x.shape
            shapes = (turn.shape[2:], (h, p, B.shape[-1]), B.shape[2:], (h, p))
            held = [x.new_zeros(b, *shape) for shape in shapes]
        else:
            held = [exact(state[name]) for name in names]
        angles = total_angles(turn, held[0])
        B, C = turned(B, angles), turned(C, angles)
        if x.shape[1] == 1:
            y, last = trapezoid_step(*(t[:, 0] for t in (x, dt, a, share, B, C)), tuple(held[1:]))
            y = y[:, None]
        else:
            tokens, size = (x, dt, a, share, B, C), self.spec.chunk_size
            y, last = trapezoid_chunked(*tokens, tuple(held[1:]), size, seq_idx)
        if state is not None:
            for name, new in zip(names, (angles[:, -1], *last), strict=True):
                state[name].copy_(new.detach())
        return y
