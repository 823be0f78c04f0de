"""Sequence mixing by comparing tokens: attention in all the shapes that hybrids use."""

from dataclasses import dataclass

from cookbook_lib.calculators.costs import Block, Run, choose
from cookbook_lib.calculators.einsums import Op, linear


@dataclass(frozen=True, kw_only=True)
class Attention(Block):
    """Softmax attention: MHA, GQA and MQA by `n_kv_heads`, sliding by `window`.

    d_in: width of the input where it is not d_model (Zamba reads [x, x0]).
    window: a token sees this many, itself included, so the cache keeps one less.
    qk_norm: a norm of queries and keys, over a "head" or over "all" heads.
    d_conv: taps of a short convolution over q, k and v (mamba_ssm's MHA); 0 for none.
    fused: q, k and v are one weight.
    gated: q_proj is twice as wide, and its second half gates the output (Qwen3-Next).
    """

    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_in: int | None = None
    window: int | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: str = "none"
    d_conv: int | None = None
    conv_bias: bool = True
    fused: bool = False
    gated: bool = False

    component = "attention"
    d_x = property(lambda self: self.d_in or self.d_model)
    d_q = property(lambda self: self.n_heads * self.head_dim)
    d_q_proj = property(lambda self: (1 + self.gated) * self.d_q)
    d_kv = property(lambda self: self.n_kv_heads * self.head_dim)
    d_qkv = property(lambda self: self.d_q + 2 * self.d_kv)
    per_kv = property(lambda self: self.n_heads // self.n_kv_heads)  # queries that share a key

    def __post_init__(self):
        super().__post_init__()
        self.divides("n_kv_heads", "n_heads")
        choose("qk_norm", self.qk_norm, ("none", "head", "all"))
        if self.gated and (self.fused or self.d_conv):
            raise ValueError("gated is True, expected False if q, k and v are fused or convolved")

    @property
    def state(self):
        kv = {name: ("kv", "b n_kv_heads kept head_dim", "") for name in ("k", "v")}
        return kv | {"conv": ("conv", "b d_qkv d_conv", "")} if self.d_conv else kv

    def size(self, run):
        kept = run.s if self.window is None else min(run.s, self.window - 1)
        return super().size(run, s=self.held(run), pairs=self.pairs(run), kept=kept)

    def held(self, run: Run) -> int:
        """Keys at hand: those of the new tokens, and those that the cache kept before them."""
        before = run.s - run.l
        return run.l + (before if self.window is None else min(before, self.window - 1))

    def pairs(self, run: Run) -> int:
        """Query-key pairs that the causal mask (and the window) keeps."""
        first = run.s - run.l + 1  # keys that the first new token sees
        window = self.window or run.s
        growing = max(0, min(run.l, window - first + 1))  # queries that see less than a window
        return growing * (2 * first + growing - 1) // 2 + (run.l - growing) * window

    def ops(self, run):
        q, kv = "b l n_kv_heads per_kv head_dim", "b s n_kv_heads head_dim"
        return [
            *self.projections(),
            Op("scores", f"{q}, {kv} -> b n_kv_heads per_kv l s"),
            Op("values", f"b n_kv_heads per_kv l s, {kv} -> {q}"),
            *[Op("gate", "b l d_q, b l d_q -> b l d_q")] * self.gated,
            *linear("o_proj", "d_q", "d_model", self.out_bias),
        ]

    def shard(self, tp=1, ep=1):
        """Query heads are split; a key head that fewer queries than ranks share is copied."""
        return self.but(**self.split(tp, "n_heads"), **self.split_or_copy(tp, "n_kv_heads"))

    def projections(self) -> list[Op]:
        parts = {"q": "d_q_proj", "k": "d_kv", "v": "d_kv"}
        parts = {"qkv": "d_qkv"} if self.fused else parts
        ops = [
            op
            for name, d_out in parts.items()
            for op in linear(f"{name}_proj", "d_x", d_out, self.qkv_bias)
        ]
        if self.d_conv:
            conv = "b l d_qkv, d_qkv d_conv -> b l d_qkv"
            ops.append(Op("conv1d.weight", conv, kind="conv"))
            ops += [Op("conv1d.bias", "b l d_qkv, d_qkv -> b l d_qkv")] * self.conv_bias
        for name, heads, d in ("q", "n_heads", "d_q"), ("k", "n_kv_heads", "d_kv"):
            x, w = {"head": (f"{heads} head_dim", "head_dim"), "all": (d, d)}.get(
                self.qk_norm, ("", "")
            )
            ops += [Op(f"{name}_norm.weight", f"b l {x}, {w} -> b l {x}")] * bool(w)
        return ops
