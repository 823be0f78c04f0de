"""Multi-head latent attention (MLA), arXiv:2405.04434 section 2.1: keys and values in few numbers.

A token keeps one latent vector for all heads and a small key that rotates. Many queries expand the
latents to keys and values; a single one leaves them as they are and moves into their space, as
section 2.1.2 says: the same result with far fewer products.
"""

from dataclasses import dataclass

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import Op, linear
from cookbook_lib.calculators.kept import Kept
from cookbook_lib.calculators.specs.attention import seen


@dataclass(frozen=True, kw_only=True)
class MLA(Block):
    """Latent attention; fields and parameters are named as in DeepSeek's code.

    q_lora_rank: the queries are low-rank too; None for one weight.
    """

    d_model: int
    n_heads: int
    kv_lora_rank: int = 512
    q_lora_rank: int | None = None
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    bias: bool = False

    component = "mla"
    d_kv_a = property(lambda self: self.kv_lora_rank + self.qk_rope_head_dim)  # what is kept
    qk_head_dim = property(lambda self: self.qk_nope_head_dim + self.qk_rope_head_dim)
    d_q = property(lambda self: self.n_heads * self.qk_head_dim)
    d_v = property(lambda self: self.n_heads * self.v_head_dim)
    kv_head_dim = property(lambda self: self.qk_nope_head_dim + self.v_head_dim)
    state = {
        "latent": ("kv", "b s kv_lora_rank", ""),
        "k_rope": ("kv", "b s qk_rope_head_dim", ""),
    }

    def shard(self, tp=1, ep=1):
        """Heads are split; each rank makes all latents, with whole weights, for they belong to no
        head: so does Megatron-Core (transformer/multi_latent_attention.py, "duplicated")."""
        return self.but(**self.split(tp, "n_heads"))

    def size(self, run):
        return super().size(run, pairs=seen(run))

    def ops(self, run):
        norm = "b l {0}, {0} -> b l {0}".format
        queries = linear("q_proj", "d_model", "d_q")
        if self.q_lora_rank:
            queries = [
                *linear("q_a_proj", "d_model", "q_lora_rank", self.bias),
                Op("q_a_layernorm.weight", norm("q_lora_rank")),
                *linear("q_b_proj", "q_lora_rank", "d_q"),
            ]
        return [
            *queries,
            *linear("kv_a_proj_with_mqa", "d_model", "d_kv_a", self.bias),
            Op("kv_a_layernorm.weight", norm("kv_lora_rank")),
            *(self.absorbed() if run.l == 1 else self.expanded()),
            *linear("o_proj", "d_v", "d_model", self.bias),
        ]

    def expanded(self) -> list[Op]:
        """Keys and values of every token held, made from the latents; then plain attention."""
        q, k = "b l n_heads qk_head_dim", "b s n_heads qk_head_dim"
        expand = "b s kv_lora_rank, kv_lora_rank n_heads kv_head_dim -> b s n_heads kv_head_dim"
        return [
            Op("kv_b_proj.weight", expand),
            Op("scores", f"{q}, {k} -> b n_heads l s"),
            Op("values", "b n_heads l s, b s n_heads v_head_dim -> b l n_heads v_head_dim"),
        ]

    def absorbed(self) -> list[Op]:
        """The keys' half of `kv_b_proj` is applied to the query, the values' half to the output.

        One row for both halves: they are one parameter.
        """
        x, latent = "b l n_heads kv_head_dim", "b l n_heads kv_lora_rank"
        return [
            Op("kv_b_proj.weight", f"{x}, kv_lora_rank n_heads kv_head_dim -> {latent}"),
            Op("scores", "b l n_heads d_kv_a, b s d_kv_a -> b n_heads l s"),
            Op("values", f"b n_heads l s, b s kv_lora_rank -> {latent}"),
        ]

    def kept_fused(self, run):
        """FlashAttention on expanded heads, with values narrower than keys; norms keep inputs."""
        low = self.q_lora_rank is not None
        queries = [
            Kept("q_latent", "b l q_lora_rank"),
            Kept("q_rms", "b l", "fp32"),
            Kept("q_normed", "b l q_lora_rank", light=True),
        ]
        return [
            Kept("x", "b l d_model", light=True),
            *queries * low,
            *[Kept("latent_and_k_rope", "b l d_kv_a"), Kept("rms", "b l", "fp32")],
            Kept("latent_normed", "b l kv_lora_rank", light=True),
            *[Kept("q", "b l d_q"), Kept("k", "b l d_q"), Kept("v", "b l d_v")],
            *[Kept("out", "b l d_v"), Kept("logsumexp", "b l n_heads", "fp32")],
        ]
