"""Gated DeltaNet: a state that forgets, and that is corrected instead of added to.

S' = exp(a) S; S = S' + beta k (v - k S'); y = q S. arXiv:2412.06464, sections 3.1 to 3.3; keys and
queries have length 1. Axes: b batch, l tokens, c chunks, q and k positions in a chunk, g key
heads, r value heads that share a key, n head_k_dim, m head_v_dim.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, einsum, nn

from cookbook_lib.blocks import kernels
from cookbook_lib.blocks.chunks import documents, in_chunks, unrounded
from cookbook_lib.blocks.linear import Linear
from cookbook_lib.blocks.naming import Named
from cookbook_lib.blocks.short_conv import short_conv
from cookbook_lib.blocks.ssm_parts import GatedNorm
from cookbook_lib.calculators import specs


def deltanet_step(
    q: Float[Tensor, "b g n"],
    k: Float[Tensor, "b g n"],
    v: Float[Tensor, "b g r m"],
    a: Float[Tensor, "b g r"],
    beta: Float[Tensor, "b g r"],
    state: Float[Tensor, "b g r n m"],
) -> tuple[Float[Tensor, "b g r m"], Float[Tensor, "b g r n m"]]:
    """One token: the output and the new state. a: log of the decay; beta: how much is corrected."""
    state = state * a.exp()[..., None, None]
    held = einsum("bgn, bgrnm -> bgrm", k, state)
    delta = beta[..., None] * (v - held)
    state = state + k[:, :, None, :, None] * delta[:, :, :, None]
    return einsum("bgn, bgrnm -> bgrm", q, state), state


def deltanet_recurrent(
    q: Float[Tensor, "b l g n"],
    k: Float[Tensor, "b l g n"],
    v: Float[Tensor, "b l g r m"],
    a: Float[Tensor, "b l g r"],
    beta: Float[Tensor, "b l g r"],
    state: Float[Tensor, "b g r n m"],
) -> tuple[Float[Tensor, "b l g r m"], Float[Tensor, "b g r n m"]]:
    """Token by token: the definition."""
    ys = []
    for token in zip(*(t.unbind(1) for t in (q, k, v, a, beta)), strict=True):
        y, state = deltanet_step(*token, state)
        ys.append(y)
    return torch.stack(ys, 1), state


@unrounded
def deltanet_chunked(
    q: Float[Tensor, "b l g n"],
    k: Float[Tensor, "b l g n"],
    v: Float[Tensor, "b l g r m"],
    a: Float[Tensor, "b l g r"],
    beta: Float[Tensor, "b l g r"],
    state: Float[Tensor, "b g r n m"],
    chunk_size: int = 64,
    seq_idx: Int[Tensor, "b l"] | None = None,
) -> tuple[Float[Tensor, "b l g r m"], Float[Tensor, "b g r n m"]]:
    """The same in chunks, for training: section 3.3.

    Inside a chunk, what token q corrects by depends on what the tokens before it wrote: a unit
    triangular system. It is solved at once for the values and for the part that reads the state
    at the chunk's start, which is known only when the chunks before are done.
    """
    l, n = q.shape[1], q.shape[-1]
    q, k, v, a, beta = (in_chunks(t, chunk_size) for t in (q, k, v, a, beta))
    q, k = (rearrange(t, "b c k g n -> b c g k n") for t in (q, k))
    v = rearrange(v, "b c k g r m -> b c g r k m")
    a, beta = (rearrange(t, "b c k g r -> b c g r k") for t in (a, beta))
    a = a.cumsum(-1)  # log decay since the chunk began
    start, end, through = a.exp(), (a[..., -1:] - a).exp(), a[..., -1].exp()
    lower = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=a.device).tril()
    if seq_idx is not None:
        docs = documents(seq_idx, chunk_size)
        lower = lower & docs.pairs[:, :, None, None]
        start, end = start * docs.start[:, :, None, None], end * docs.end[:, :, None, None]
        through = through * docs.through[:, :, None, None]
    decay = (a[..., :, None] - a[..., None, :]).masked_fill(~lower, -torch.inf).exp()
    scores = einsum("bcgqn, bcgkn -> bcgqk", q, k)[:, :, :, None] * decay
    system = einsum("bcgqn, bcgkn -> bcgqk", k, k)[:, :, :, None] * decay * beta[..., None]
    k_read = (beta * start)[..., None] * k[:, :, :, None]
    both = torch.cat([beta[..., None] * v, k_read], -1)
    both = torch.linalg.solve_triangular(system, both, upper=False, unitriangular=True)
    v, k_read = both.split([v.shape[-1], n], -1)
    states, news = [], []
    chunks = (t.unbind(1) for t in (k, v, k_read, end[..., None], through[..., None, None]))
    for k_i, v_i, k_read_i, end_i, through_i in zip(*chunks, strict=True):
        states.append(state)  # at the chunk's start: what is read of it waits until all are known
        news.append(v_i - einsum("bgrqn, bgrnm -> bgrqm", k_read_i, state))
        added = einsum("bgkn, bgrkm -> bgrnm", k_i, end_i * news[-1])
        state = state * through_i + added
    y = einsum("bcgrqk, bcgrkm -> bcgrqm", scores, torch.stack(news, 1))
    read = einsum("bcgqn, bcgrnm -> bcgrqm", q, torch.stack(states, 1))
    y = y + read * start[..., None]
    return rearrange(y, "b c g r q m -> b (c q) g r m")[:, :l], state


class GatedDeltaNet(Named):
    """`specs.GatedDeltaNet`, with the parameters of Qwen3-Next's; eps is of the norm.

    The scan and its state are in float32 (float64 if the input is), whatever the weights' dtype.
    """

    def __init__(self, spec: specs.GatedDeltaNet, eps: float = 1e-6):
        super().__init__(spec)
        d, h = spec.d_model, spec.n_v_heads
        self.add("in_proj_qkvz", Linear(d, spec.d_qkvz, bias=False))
        self.add("in_proj_ba", Linear(d, spec.d_ba, bias=False))
        conv = nn.Conv1d(spec.d_qkv, spec.d_qkv, spec.d_conv, groups=spec.d_qkv, bias=False)
        self.add("conv1d", conv)
        self.dt_bias = nn.Parameter(torch.ones(h))
        self.A_log = nn.Parameter(torch.empty(h).uniform_(0.01, 16).log())
        self.add("norm", GatedNorm(spec.head_v_dim, eps=eps, norm_before_gate=True))
        self.add("out_proj", Linear(spec.d_v, d, bias=False))

    def forward(
        self,
        x: Float[Tensor, "b l d"],
        state: dict[str, Tensor] | None = None,
        *,
        seq_idx: Int[Tensor, "b l"] | None = None,
        mask: Bool[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b l d"]:
        """Mix tokens; state: {"conv": (b d_qkv d_conv), "ssm": (b n_v_heads n m)}.

        mask: False for padding, which contributes nothing. seq_idx: each token's document.
        """
        s, g, state = self.spec, self.spec.n_k_heads, state or {}
        x = x if mask is None else x * mask[..., None].to(x.dtype)
        q, k, v, z, beta, a = self.project(x)
        qkv = torch.cat([t.flatten(2) for t in (q, k, v)], -1)
        conv = state.get("conv")
        qkv = F.silu(short_conv(qkv, self.part("conv1d").weight, None, conv, seq_idx))
        q, k, v = qkv.split([s.d_k, s.d_k, s.d_v], -1)
        exact = torch.float64 if x.dtype == torch.float64 else torch.float32
        q, k, v, a, beta = (t.to(exact) for t in (q, k, v, a, beta))
        q, k = (rearrange(t, "b l (g n) -> b l g n", g=g) for t in (q, k))
        q, k = (t * (t.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for t in (q, k))
        v = rearrange(v, "b l (g r m) -> b l g r m", g=g, m=s.head_v_dim)
        dt_bias, A_log = (rearrange(t, "(g r) -> g r", g=g) for t in (self.dt_bias, self.A_log))
        a = -A_log.to(exact).exp() * F.softplus(a + dt_bias.to(exact))
        tokens = (q * s.head_k_dim**-0.5, k, v, a, beta.sigmoid())
        y, last = self.scan(tokens, state, seq_idx, x.dtype)
        if "ssm" in state:
            state["ssm"].copy_(last.flatten(1, 2))
        return self.part("out_proj")(self.part("norm")(y, z).flatten(2))

    def project(self, x: Tensor) -> list[Tensor]:
        """q, k, v, z, beta and a; the weights hold them key head by key head."""
        s, r = self.spec, self.spec.per_k
        qkvz = rearrange(self.part("in_proj_qkvz")(x), "b l (g n) -> b l g n", g=s.n_k_heads)
        ba = rearrange(self.part("in_proj_ba")(x), "b l (g r) -> b l g r", g=s.n_k_heads)
        n, m = s.head_k_dim, r * s.head_v_dim
        q, k, v, z = qkvz.split([n, n, m, m], -1)
        return [q, k, v, z.unflatten(-1, (r, -1)), *ba.split([r, r], -1)]

    def scan(self, tokens, state, seq_idx, dtype):
        """One token by the step, more of them in chunks; dtype: that a kernel may work in."""
        q, _, v, a, _ = tokens
        shape = (*a.shape[:1], *a.shape[2:], q.shape[-1], v.shape[-1])
        ssm = state["ssm"].to(q.dtype).view(shape) if "ssm" in state else q.new_zeros(shape)
        if q.shape[1] == 1:
            y, ssm = deltanet_step(*(t[:, 0] for t in tokens), ssm)
            return y[:, None], ssm
        if seq_idx is None and (done := kernels.gated_delta_rule(*tokens, ssm, dtype)):
            return done
        return deltanet_chunked(*tokens, ssm, self.spec.chunk_size, seq_idx)
