"""Multi-head latent attention (MLA): a token keeps one vector for all heads, and a key that turns.

arXiv:2405.04434, section 2.1. Many queries expand the vectors to keys and values (the naive form);
a lone one moves into their space (the absorbed form): the same numbers, and the cache is read as it
is. Axes: b batch, l new tokens, s tokens at hand, h heads, n channels of a head that stand still,
r those that turn, v those of a value, c of the latent.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, einsum

from cookbook_lib.blocks.attention import attention_parallel, visible
from cookbook_lib.blocks.kv_cache import Start, extend
from cookbook_lib.blocks.linear import Linear
from cookbook_lib.blocks.naming import Named
from cookbook_lib.blocks.norms import RMSNorm
from cookbook_lib.blocks.rope import RoPE, rotate
from cookbook_lib.blocks.ssm_parts import exact
from cookbook_lib.calculators import specs


class MLA(Named):
    """`specs.MLA`. eps: of the norms of latents. rope: None for no positions.

    scale: of the scores; 1 / sqrt(n + r) if None. interleaved: the stored weights pair neighbouring
    channels for the rotation, as DeepSeek's do; then they are put in `rotate`'s order first.
    """

    def __init__(
        self,
        spec: specs.MLA,
        eps: float = 1e-6,
        *,
        rope: RoPE | None = None,
        scale: float | None = None,
        interleaved: bool = True,
    ):
        super().__init__(spec)
        self.rope, self.interleaved = rope, interleaved
        self.scale = spec.qk_head_dim**-0.5 if scale is None else scale
        if spec.q_lora_rank:
            self.add("q_a_proj", Linear(spec.d_model, spec.q_lora_rank, bias=spec.bias))
            self.add("q_a_layernorm", RMSNorm(spec.q_lora_rank, eps=eps))
            self.add("q_b_proj", Linear(spec.q_lora_rank, spec.d_q, bias=False))
        else:
            self.add("q_proj", Linear(spec.d_model, spec.d_q, bias=False))
        self.add("kv_a_proj_with_mqa", Linear(spec.d_model, spec.d_kv_a, bias=spec.bias))
        self.add("kv_a_layernorm", RMSNorm(spec.kv_lora_rank, eps=eps))
        d_kv_b = spec.n_heads * spec.kv_head_dim
        self.add("kv_b_proj", Linear(spec.kv_lora_rank, d_kv_b, bias=False))
        self.add("o_proj", Linear(spec.d_v, spec.d_model, bias=spec.bias))

    def forward(
        self,
        x: Float[Tensor, "b l d_model"],
        state: dict[str, Tensor] | None = None,
        *,
        start: Start = 0,
        mask: Bool[Tensor, "b m"] | None = None,
        seq_idx: Int[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b l d_model"]:
        """Mix `l` new tokens with each other and with the `start` tokens in the cache.

        state: {"latent": (b s c), "k_rope": (b s r)}, normed and turned, written in place.
        mask: True for each of the m >= start + l positions that is not padding.
        """
        if seq_idx is not None and state is not None:
            raise ValueError("seq_idx and state are both given, expected one: packs keep no cache")
        at = torch.as_tensor(start, device=x.device).reshape(-1, 1)
        at = at + torch.arange(x.shape[1], device=x.device)
        q_nope, q_rope = self.queries(x).split(
            [self.spec.qk_nope_head_dim, self.spec.qk_rope_head_dim], -1
        )
        latent, k_rope = self.kept(x)
        if self.rope:
            tables = self.rope.at(start, at, self.spec.qk_rope_head_dim, x.dtype)
            q_rope, k_rope = (self.turned(t, tables) for t in (q_rope, k_rope))
        keys_at = at
        if state is not None:
            held = {"k": state["latent"][:, None], "v": state["k_rope"][:, None]}
            latent, k_rope, keys_at = extend(held, latent, k_rope, at, start)
        alone = x.shape[1] == 1 and mask is None and seq_idx is None and isinstance(start, int)
        see = None if alone else visible(at, keys_at, None, mask, seq_idx)
        form = self.absorbed if x.shape[1] == 1 and state is not None else self.expanded
        y = form(q_nope, q_rope, latent[:, 0], k_rope[:, 0], see)
        return self.part("o_proj")(y.transpose(1, 2).flatten(2))

    def queries(self, x: Float[Tensor, "b l d_model"]) -> Float[Tensor, "b h l k"]:
        if self.spec.q_lora_rank:
            x = self.part("q_b_proj")(self.part("q_a_layernorm")(self.part("q_a_proj")(x)))
        else:
            x = self.part("q_proj")(x)
        return x.unflatten(-1, (self.spec.n_heads, -1)).transpose(1, 2)

    def kept(
        self, x: Float[Tensor, "b l d_model"]
    ) -> tuple[Float[Tensor, "b 1 l c"], Float[Tensor, "b 1 l r"]]:
        """What the cache keeps of each token, its key not yet turned."""
        sizes = [self.spec.kv_lora_rank, self.spec.qk_rope_head_dim]
        latent, k_rope = self.part("kv_a_proj_with_mqa")(x).split(sizes, -1)
        return self.part("kv_a_layernorm")(latent)[:, None], k_rope[:, None]

    def turned(self, x: Float[Tensor, "b h l r"], tables: tuple) -> Float[Tensor, "b h l r"]:
        if self.interleaved:
            x = x.unflatten(-1, (-1, 2)).mT.flatten(-2)
        return rotate(x, *tables)

    def halves(self) -> tuple[Float[Tensor, "h n c"], Float[Tensor, "h v c"]]:
        """`kv_b_proj`, which makes keys and values of a latent, head by head."""
        weight = self.part("kv_b_proj").weight.unflatten(0, (self.spec.n_heads, -1))
        return weight.split([self.spec.qk_nope_head_dim, self.spec.v_head_dim], 1)

    def expanded(
        self,
        q_nope: Float[Tensor, "b h l n"],
        q_rope: Float[Tensor, "b h l r"],
        latent: Float[Tensor, "b s c"],
        k_rope: Float[Tensor, "b s r"],
        see: Bool[Tensor, "#b l s"] | None,
    ) -> Float[Tensor, "b h l v"]:
        """Keys and values of every token at hand, then attention: what pays for many queries."""
        keys, values = (einsum("bsc, hnc -> bhsn", latent, w) for w in self.halves())
        shared = k_rope[:, None].expand(-1, self.spec.n_heads, -1, -1)
        k, q = torch.cat([keys, shared], -1), torch.cat([q_nope, q_rope], -1)
        return attention_parallel(q, k, values, self.scale, see)

    def absorbed(
        self,
        q_nope: Float[Tensor, "b h l n"],
        q_rope: Float[Tensor, "b h l r"],
        latent: Float[Tensor, "b s c"],
        k_rope: Float[Tensor, "b s r"],
        see: Bool[Tensor, "#b l s"] | None,
    ) -> Float[Tensor, "b h l v"]:
        """q (W c) = (W^T q) c: the keys' weight goes to the query, the values' to the result."""
        keys, values = self.halves()
        moved = einsum("bhln, hnc -> bhlc", q_nope, keys)
        scores = einsum("bhlc, bsc -> bhls", moved, latent)
        scores = exact(scores + einsum("bhlr, bsr -> bhls", q_rope, k_rope)) * self.scale
        if see is not None:
            scores = scores.masked_fill(~see[:, None], -torch.inf)
        y = einsum("bhls, bsc -> bhlc", scores.softmax(-1).to(latent.dtype), latent)
        return einsum("bhlc, hvc -> bhlv", y, values)
