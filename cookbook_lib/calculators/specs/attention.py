"""Sequence mixing by comparing tokens: attention in all the shapes that hybrids use."""

from dataclasses import dataclass

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import Op, linear
from cookbook_lib.calculators.kept import Kept
from cookbook_lib.calculators.runs import Run, choose


def seen(run: Run, window: int | None = None) -> int:
    """Query-key pairs that the causal mask (and the window) keeps."""
    first = run.s - run.l + 1  # keys that the first new token sees
    window = window or run.s
    growing = max(0, min(run.l, window - first + 1))  # queries that see less than a window
    return growing * (2 * first + growing - 1) // 2 + (run.l - growing) * window


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
    d_k = d_kv = property(lambda self: self.n_kv_heads * self.head_dim)
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
        return super().size(
            run,
            s=self.held(run),
            pairs=self.pairs(run),
            kept=kept,
            l_conv=run.l + (self.d_conv or 0),
        )

    def held(self, run: Run) -> int:
        """Keys at hand: those of the new tokens, and those that the cache kept before them."""
        before = run.s - run.l
        return run.l + (before if self.window is None else min(before, self.window - 1))

    def pairs(self, run: Run) -> int:
        """Query-key pairs that the causal mask (and the window) keeps."""
        return seen(run, self.window)

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

    def kept_eager(self, run: Run) -> list[Kept]:
        """With PyTorch's fused attention; RoPE's tables are left out.

        RoPE and a norm of heads lay queries and keys out anew: values stay views of a fused
        projection, and the output is copied for o_proj. Without either it is not.
        """
        windowed = self.window is not None and run.s > self.window
        return [
            *self.inputs(fused=False),
            *[Kept("mask", "l s")] * windowed,
            *self.flash("d_qkv" if self.fused else "d_k"),
            Kept("merged", "b l d_q"),
            *self.gate_kept(),
        ]

    def kept_unfused(self, run: Run) -> list[Kept]:
        """Scores, softmax and values one after the other, keys and values copied to each query."""
        return [
            *self.inputs(fused=False),
            *(Kept(name, "b l d_q") for name in "qkv"),
            Kept("softmax", "b n_heads l s", light=True),
            Kept("merged", "b l d_q"),
            *self.gate_kept(),
        ]

    def kept_fused(self, run: Run) -> list[Kept]:
        return [*self.inputs(fused=True), *self.flash(), *self.gate_kept()]

    def gate_kept(self) -> list[Kept]:
        """The gate, before its sigmoid or after, beside the output that it scales."""
        gated = [Kept("gate", "b l d_q"), Kept("gated", "b l d_q", light=True)]
        return gated * self.gated

    def inputs(self, fused: bool) -> list[Kept]:
        """What is kept before the heads meet; PyTorch on a CPU norms in float32, in two steps."""
        kept = [Kept("x", "b l d_x", light=True)]
        if self.d_conv:
            kept.append(Kept("conv_in", "b l_conv d_qkv"))
        if self.qk_norm != "none":
            for name, heads in ("q", "n_heads"), ("k", "n_kv_heads"):
                stat = f"b l {heads}" if self.qk_norm == "head" else "b l"
                kept.append(Kept(f"{name}_in", f"b l d_{name}", "" if fused else "fp32"))
                kept.append(Kept(f"{name}_rms", stat, "fp32"))
                if not fused:
                    kept.append(Kept(f"{name}_normed", f"b l d_{name}", "fp32"))
        return kept

    def flash(self, d_v: str = "d_k") -> list[Kept]:
        """FlashAttention's operands, its output, and one number for each query and head."""
        qkv = (Kept("q", "b l d_q"), Kept("k", "b l d_k"), Kept("v", f"b l {d_v}"))
        return [*qkv, Kept("out", "b l d_q"), Kept("logsumexp", "b l n_heads", "fp32")]
