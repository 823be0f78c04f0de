"""RWKV-7's two layers: the time mix around the recurrence, and the channel mix.

arXiv:2503.14456, sections 4.1 and 4.2; parameters are named as in flash-linear-attention.
Axes: b batch, l tokens, d d_model, h heads, n channels of a head.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cookbook_lib.blocks import kernels
from cookbook_lib.blocks.linear import Linear
from cookbook_lib.blocks.mlp import relu2
from cookbook_lib.blocks.naming import Named
from cookbook_lib.blocks.wkv7 import rwkv7_chunked, rwkv7_step, shift
from cookbook_lib.calculators import specs

FASTEST = -0.6065306597126334  # -exp(-1 / 2): the log decay of the channel that forgets fastest


class LowRank(nn.Module):
    """Through a narrow middle: d to rank, an activation, and out to d_out."""

    def __init__(self, d: int, rank: int, d_out: int, middle: nn.Module, bias: bool = True):
        super().__init__()
        down, up = Linear(d, rank, bias=False), Linear(rank, d_out, bias=bias)
        self.lora = nn.Sequential(down, middle, up)

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        return self.lora(x)


class RWKV7(Named):
    """`specs.RWKV7`, the time mix.

    eps: of the norm of each head, times headdim. depth: where in the model the layer is, from 0
    for the first to 1, which the authors' initialisation depends on.
    """

    def __init__(self, spec: specs.RWKV7, eps: float = 1e-5, *, depth: float = 0.0):
        super().__init__(spec)
        d, inner = spec.d_model, spec.d_inner
        for name in "rwkvag":
            self.register_parameter(f"x_{name}", nn.Parameter(torch.empty(1, 1, d)))
        self.k_k, self.k_a = (nn.Parameter(torch.empty(inner)) for _ in "ka")
        self.r_k = nn.Parameter(torch.empty(spec.nheads, spec.headdim))
        for name in "rkv":
            self.add(f"{name}_proj", Linear(d, inner, bias=False))
        self.add("o_proj", Linear(inner, d, bias=False))
        self.add("w_lora", LowRank(d, spec.rank_w, inner, nn.Tanh()))
        self.add("a_lora", LowRank(d, spec.rank_a, inner, nn.Identity()))
        self.add("g_lora", LowRank(d, spec.rank_g, inner, nn.Sigmoid(), bias=False))
        if not spec.first:
            self.add("v_lora", LowRank(d, spec.rank_v, inner, nn.Identity()))
        self.add("g_norm", nn.GroupNorm(spec.nheads, inner, eps=spec.headdim * eps))
        self.initialise(depth)

    @torch.no_grad()
    def initialise(self, depth: float) -> None:
        """The authors' starting values: channels differ in what they mix and how they decay."""
        d, n = self.spec.d_model, self.spec.headdim
        inner = torch.arange(self.spec.d_inner)
        channel = inner / max(len(inner) - 1, 1)
        inside = 2 * (inner % n) / max(n - 1, 1) - 1
        zigzag = inside * inside.abs()
        for name, power in zip("rwkvag", (0.2, 0.9, 0.7, 0.7, 0.9, 0.2), strict=True):
            mix = 1 - (torch.arange(d) / d) ** (power * (1 - depth))
            getattr(self, f"x_{name}").copy_(mix[None, None])
        self.k_k.copy_(0.76 - 0.1 * channel)
        self.k_a.fill_(1.02)
        self.r_k.fill_(-0.04)
        biases = {"w": 6 * channel ** (1 + depth**0.3) - 5.5 + 2.5 * zigzag}
        biases["a"] = 0.3 * zigzag + 0.4 * channel - 0.39
        biases["v"] = 0.93 - 0.4 * channel
        for name in "wa" if self.spec.first else "wav":
            self.part(f"{name}_lora").lora[2].bias.copy_(biases[name])

    def forward(
        self,
        x: Float[Tensor, "b l d"],
        state: dict[str, Tensor] | None = None,
        *,
        seq_idx: Int[Tensor, "b l"] | None = None,
        mask: Bool[Tensor, "b l"] | None = None,
        shared: dict[str, Tensor] | None = None,
    ) -> Float[Tensor, "b l d"]:
        """Mix tokens; state: {"shift": (b d), "ssm": (b h n n)}.

        mask: False for padding, which contributes nothing. seq_idx: each token's document.
        shared: one dict for all layers of a forward pass; the first layer puts its values there.
        """
        s, state = self.spec, state or {}
        x = x if mask is None else x * mask[..., None].to(x.dtype)
        delta = shift(x, state.get("shift"), seq_idx)
        xr, xw, xk, xv, xa, xg = (x + delta * getattr(self, f"x_{name}") for name in "rwkvag")
        r, k, v = self.part("r_proj")(xr), self.part("k_proj")(xk), self.part("v_proj")(xv)
        v = self.mix_values(xv, v, shared)
        exact = torch.float64 if x.dtype == torch.float64 else torch.float32
        w = FASTEST * self.part("w_lora")(xw).to(exact).sigmoid()
        a = self.part("a_lora")(xa).sigmoid()
        kk, k = k * self.k_k, k * (1 + (a - 1) * self.k_a)
        r, w, k, v, kk, a = (
            rearrange(t, "b l (h n) -> b l h n", n=s.headdim).to(exact) for t in (r, w, k, v, kk, a)
        )
        tokens = (r, w, k, v, F.normalize(kk, dim=-1), a)
        y, last = self.scan(tokens, state, seq_idx, x.dtype)
        if "ssm" in state:
            state["ssm"].copy_(last)
        y = self.part("g_norm")(y.flatten(0, 1).flatten(1).to(x.dtype)).unflatten(0, x.shape[:2])
        bonus = (r * k * self.r_k).sum(-1, keepdim=True) * v
        y = (y + bonus.flatten(2).to(x.dtype)) * self.part("g_lora")(xg)
        return self.part("o_proj")(y)

    def mix_values(self, x: Tensor, v: Tensor, shared: dict[str, Tensor] | None) -> Tensor:
        """The first layer's values are kept; every other layer mixes them into its own."""
        if self.spec.first:
            if shared is not None:
                shared["values"] = v
            return v
        if shared is None or "values" not in shared:
            raise ValueError(
                "shared has no 'values', expected those of the first layer: give all layers one "
                "dict, and the first a spec with first=True"
            )
        return v.lerp(shared["values"], self.part("v_lora")(x).sigmoid())

    def scan(self, tokens, state, seq_idx, dtype):
        """One token by the step, more of them in chunks; dtype: that a kernel may work in."""
        b, l, h, n = tokens[0].shape
        ssm = (
            state["ssm"].to(tokens[0].dtype) if "ssm" in state else tokens[0].new_zeros(b, h, n, n)
        )
        if l == 1:
            y, ssm = rwkv7_step(*(t[:, 0] for t in tokens), ssm)
            return y[:, None], ssm
        if seq_idx is None and (done := kernels.rwkv7(*tokens, ssm, dtype)):
            return done
        return rwkv7_chunked(*tokens, ssm, self.spec.chunk_size, seq_idx)


class RWKV7ChannelMix(Named):
    """`specs.RWKV7ChannelMix`: squared ReLU of the token mixed with the one before."""

    def __init__(self, spec: specs.RWKV7ChannelMix, *, depth: float = 0.0):
        super().__init__(spec)
        d = spec.d_model
        self.x_k = nn.Parameter(1 - (torch.arange(d) / d) ** (1 - depth) ** 4)
        self.add("key", Linear(d, spec.d_ff, bias=False))
        self.add("value", Linear(spec.d_ff, d, bias=False))

    def forward(
        self,
        x: Float[Tensor, "b l d"],
        state: dict[str, Tensor] | None = None,
        *,
        seq_idx: Int[Tensor, "b l"] | None = None,
        mask: Bool[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b l d"]:
        """state: {"shift": (b d)}, the last token; mask and seq_idx as in the time mix."""
        x = x if mask is None else x * mask[..., None].to(x.dtype)
        x = x + shift(x, (state or {}).get("shift"), seq_idx) * self.x_k
        return self.part("value")(relu2(self.part("key")(x)))
