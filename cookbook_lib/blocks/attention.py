"""Softmax attention: every token compares itself with those before it and averages their values.

arXiv:1706.03762; fewer keys than queries (GQA): arXiv:2305.13245. Axes: b batch, l new tokens,
s keys at hand, h query heads, g key heads (groups), k head_dim.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, einsum, nn

from cookbook_lib.blocks.kv_cache import Start, extend
from cookbook_lib.blocks.linear import Linear
from cookbook_lib.blocks.naming import Named
from cookbook_lib.blocks.norms import RMSNorm
from cookbook_lib.blocks.rope import RoPE, rotate
from cookbook_lib.blocks.short_conv import short_conv
from cookbook_lib.calculators import specs


def attention_recurrent(
    q: Float[Tensor, "b h l k"],
    k: Float[Tensor, "b g l k"],
    v: Float[Tensor, "b g l k"],
    scale: float | None = None,
    window: int | None = None,
) -> Float[Tensor, "b h l k"]:
    """The definition, token by token: softmax of a query with the keys so far, times values."""
    q = rearrange(q, "b (g r) l k -> b g r l k", g=k.shape[1])
    ys = []
    for t in range(q.shape[3]):
        first = 0 if window is None else max(0, t - window + 1)
        keys, values = k[:, :, first : t + 1], v[:, :, first : t + 1]
        scores = einsum("bgrk, bgsk -> bgrs", q[:, :, :, t], keys)
        scores = scores * (q.shape[-1] ** -0.5 if scale is None else scale)
        ys.append(einsum("bgrs, bgsk -> bgrk", scores.softmax(-1), values))
    return rearrange(torch.stack(ys, 3), "b g r l k -> b (g r) l k")


def attention_parallel(
    q: Float[Tensor, "b h l k"],
    k: Float[Tensor, "b g s k"],
    v: Float[Tensor, "b g s w"],
    scale: float | None = None,
    mask: Bool[Tensor, "#b l s"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h l w"]:
    """All queries at once, through PyTorch's fused kernel; `mask` is True where a query sees.

    w: the width of values, where that is not the keys'.
    """
    mask = None if mask is None else mask[:, None]
    if q.shape[2] == 1:  # heads that share a key become its queries: the keys are read once
        queries = q.reshape(len(q), k.shape[1], -1, q.shape[3])
        y = F.scaled_dot_product_attention(queries, k, v, mask, scale=scale)
        return y.reshape(*q.shape[:3], -1)
    gqa = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, mask, is_causal=causal, scale=scale, enable_gqa=gqa
    )


def visible(
    q: Int[Tensor, "#b l"],
    k: Int[Tensor, "#b s"],
    window: int | None = None,
    valid: Bool[Tensor, "b n"] | None = None,
    seq_idx: Int[Tensor, "b l"] | None = None,
) -> Bool[Tensor, "#b l s"]:
    """Which keys each query sees, from the positions of both.

    valid: False for padding, by position. A query always sees itself, padding too: some kernels
    make NaN of a softmax over nothing. seq_idx: each token's document, where q and k are the same.
    """
    gap = q[:, :, None] - k[:, None, :]
    see = (gap >= 0) & (k >= 0)[:, None, :]
    if window is not None:
        see = see & (gap < window)
    if valid is not None:
        keys = k.clamp(0, valid.shape[1] - 1).expand(valid.shape[0], -1)
        see = see & valid.gather(1, keys)[:, None, :]
    if seq_idx is not None:
        see = see & (seq_idx[:, :, None] == seq_idx[:, None, :])
    return see | (gap == 0)


class Attention(Named):
    """Attention in all the shapes of `specs.Attention`; a fused weight is q, k, v in a row.

    eps: of the norms of queries and keys. scale: of the scores, 1 / sqrt(head_dim) if None
    (Zamba: (head_dim / 2) ** -0.5). rope: None for no positions.
    """

    def __init__(
        self,
        spec: specs.Attention,
        eps: float = 1e-5,
        *,
        rope: RoPE | None = None,
        scale: float | None = None,
    ):
        super().__init__(spec)
        if spec.gated:
            raise ValueError("gated is True, expected False: a gate can be counted but not run")
        self.rope, self.scale = rope, scale
        self.widths = [spec.d_q, spec.d_kv, spec.d_kv]
        parts = {"qkv": spec.d_qkv} if spec.fused else dict(zip("qkv", self.widths, strict=True))
        for name, d_out in parts.items():
            self.add(f"{name}_proj", Linear(spec.d_x, d_out, bias=spec.qkv_bias))
        if spec.qk_norm != "none":
            for name, d in zip("qk", self.widths, strict=False):
                d_norm = spec.head_dim if spec.qk_norm == "head" else d
                self.add(f"{name}_norm", RMSNorm(d_norm, eps=eps))
        if spec.d_conv:
            d = spec.d_qkv
            conv = nn.Conv1d(d, d, spec.d_conv, groups=d, bias=spec.conv_bias)
            self.add("conv1d", conv)
        self.add("o_proj", Linear(spec.d_q, spec.d_model, bias=spec.out_bias))

    def forward(
        self,
        x: Float[Tensor, "b l d_in"],
        state: dict[str, Tensor] | None = None,
        *,
        start: Start = 0,
        mask: Bool[Tensor, "b n"] | None = None,
        seq_idx: Int[Tensor, "b l"] | None = None,
        adapters: dict[str, nn.Module] | None = None,
    ) -> Float[Tensor, "b l d_model"]:
        """Mix `l` new tokens with each other and with the `start` tokens in the cache.

        state: {"k", "v"}, each (b g c k); the new keys and values are written to it. With a
            convolution also {"conv"}: (b d_qkv d_conv).
        mask: True for each of the n >= start + l positions that is not padding.
        adapters: modules whose output is added to that of "q_proj", "k_proj" or "v_proj" (LoRA).
        """
        if seq_idx is not None and state is not None:
            raise ValueError("seq_idx and state are both given, expected one: packs keep no cache")
        if mask is not None and isinstance(start, int) and mask.shape[1] < start + x.shape[1]:
            raise ValueError(
                f"mask has {mask.shape[1]} columns, expected {start + x.shape[1]}: one for each "
                f"token in the cache ({start}) and each new one ({x.shape[1]})"
            )
        positions = torch.as_tensor(start, device=x.device).reshape(-1, 1)
        positions = positions + torch.arange(x.shape[1], device=x.device)
        parts = self.project(x, adapters or {})
        if self.spec.d_conv:
            real = None if mask is None else mask.gather(1, positions.expand(len(x), -1))
            parts = self.convolve(torch.cat(parts, -1), state, real, seq_idx)
        q, k, v = self.heads(parts)
        if self.rope:
            tables = self.rope.at(start, positions, self.spec.head_dim, x.dtype)
            q, k = rotate(q, *tables), rotate(k, *tables)
        at, window = positions, self.spec.window
        if state is not None:
            k, v, at = extend(state, k, v, positions, start, window)
        plain = mask is None and seq_idx is None and isinstance(start, int)
        plain = plain and (window is None or at.shape[1] <= window)
        if plain and (start == 0 or x.shape[1] == 1):  # a triangle, or all that is held
            see, causal = None, x.shape[1] > 1
        else:
            see, causal = visible(positions, at, window, mask, seq_idx), False
        y = attention_parallel(q, k, v, self.scale, see, causal)
        return self.part("o_proj")(y.transpose(1, 2).flatten(2))

    def project(self, x: Tensor, adapters: dict[str, nn.Module]) -> list[Tensor]:
        """Queries, keys and values of the new tokens, all heads in a row."""
        names = ["qkv_proj"] if self.spec.fused else ["q_proj", "k_proj", "v_proj"]
        if unknown := set(adapters) - set(names):
            raise ValueError(f"adapters has {min(unknown)!r}, expected only {', '.join(names)}")
        parts = [self.part(n)(x) + (adapters[n](x) if n in adapters else 0) for n in names]
        return list(parts[0].split(self.widths, -1)) if self.spec.fused else parts

    def convolve(
        self, qkv: Tensor, state: dict[str, Tensor] | None, real: Tensor | None, seq_idx
    ) -> list[Tensor]:
        """Each channel with its last few tokens (mamba_ssm's MHA); padding counts as zeros."""
        qkv = qkv if real is None else qkv * real[..., None]
        conv, held = self.part("conv1d"), None if state is None else state["conv"]
        return list(short_conv(qkv, conv.weight, conv.bias, held, seq_idx).split(self.widths, -1))

    def heads(self, parts: list[Tensor]) -> list[Tensor]:
        """The same a head each, (b h l k), queries and keys normed."""
        if self.spec.qk_norm == "all":
            parts[:2] = self.part("q_norm")(parts[0]), self.part("k_norm")(parts[1])
        d = self.spec.head_dim
        q, k, v = (t.view(*t.shape[:2], -1, d).transpose(1, 2) for t in parts)
        if self.spec.qk_norm == "head":
            q, k = self.part("q_norm")(q), self.part("k_norm")(k)
        return [q, k, v]
