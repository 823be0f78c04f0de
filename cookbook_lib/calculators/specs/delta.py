"""Sequence mixing by a state that is corrected: the delta rule, and gated DeltaNet.

Before a token writes its value to the state under its key, what the state holds for that key is
read and taken away, in part or whole. In chunks of q = k tokens the corrections of a chunk depend
on each other: a triangular solve, counted dense, as is every product that a causal mask halves.
Frameworks keep the state in float32, whatever the weights' dtype; `ssm_dtype` says otherwise.
"""

from dataclasses import dataclass

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import Op, linear
from cookbook_lib.calculators.kept import Kept
from cookbook_lib.calculators.runs import BITS, choose
from cookbook_lib.calculators.specs.mamba2 import chunks, gated


@dataclass(frozen=True, kw_only=True)
class DeltaRule(Block):
    """What such layers share: the chunks, the dtype of the state, and linears without bias."""

    d_model: int
    chunk_size: int = 64
    ssm_dtype: str = "fp32"

    def __post_init__(self):
        super().__post_init__()
        choose("ssm_dtype", self.ssm_dtype, ("", *BITS))

    def size(self, run):
        own = chunks(run, self.chunk_size)
        l_conv = run.l + getattr(self, "d_conv", 0)
        return super().size(run, l_conv=l_conv, c_later=own["c"] - 1, **own)


@dataclass(frozen=True, kw_only=True)
class GatedDeltaNet(DeltaRule):
    """Gated DeltaNet, arXiv:2412.06464, as Qwen3-Next has it: value heads share keys in groups."""

    n_k_heads: int
    n_v_heads: int
    head_k_dim: int = 128
    head_v_dim: int = 128
    d_conv: int = 4

    component = "deltanet"
    per_k = property(lambda self: self.n_v_heads // self.n_k_heads)  # value heads that share a key
    d_k = property(lambda self: self.n_k_heads * self.head_k_dim)
    d_v = property(lambda self: self.n_v_heads * self.head_v_dim)
    d_qkv = property(lambda self: 2 * self.d_k + self.d_v)
    d_qkvz = property(lambda self: self.d_qkv + self.d_v)
    d_ba = property(lambda self: 2 * self.n_v_heads)
    d_kv = property(lambda self: self.head_k_dim + self.head_v_dim)

    def __post_init__(self):
        super().__post_init__()
        self.divides("n_k_heads", "n_v_heads")

    @property
    def state(self):
        ssm = ("ssm", "b n_v_heads head_k_dim head_v_dim", self.ssm_dtype)
        return {"conv": ("conv", "b d_qkv d_conv", ""), "ssm": ssm}

    def ops(self, run):
        heads, v = "b l n_v_heads", "b l n_v_heads head_v_dim"
        scan = self.recurrence() if run.l == 1 or run.scan == "recurrent" else self.chunked()
        return [
            *linear("in_proj_qkvz", "d_model", "d_qkvz"),
            *linear("in_proj_ba", "d_model", "d_ba"),
            Op("conv1d.weight", "b l d_qkv, d_qkv d_conv -> b l d_qkv", kind="conv"),
            Op("dt_bias", f"{heads}, n_v_heads -> {heads}"),
            Op("A_log", f"{heads}, n_v_heads -> {heads}"),  # the log decay
            *scan,
            Op("norm.weight", f"{v}, head_v_dim -> {v}"),
            Op("gate", "b l d_v, b l d_v -> b l d_v"),
            *linear("out_proj", "d_v", "d_model"),
        ]

    def shard(self, tp=1, ep=1):
        return self.but(**self.split(tp, "n_k_heads", "n_v_heads"))

    def chunked(self) -> list[Op]:
        """Solve for the corrected values of a chunk, then attend to them; a state between."""
        q, key = "b c n_k_heads q head_k_dim", "b c n_k_heads k head_k_dim"
        heads, pairs = "b c n_k_heads per_k", "b c n_k_heads per_k q k"
        v, y = f"{heads} k head_v_dim", f"{heads} q head_v_dim"
        S = f"{heads} head_k_dim head_v_dim"
        return [
            Op("scores", f"{q}, {key} -> b c n_k_heads q k"),
            Op("keys", f"{q}, {key} -> b c n_k_heads q k"),
            Op("mask", f"b c n_k_heads q k, {pairs} -> {pairs}"),
            Op("system", f"b c n_k_heads q k, {pairs}, {heads} q -> {pairs}"),
            Op("beta_v", f"{heads} k, {v} -> {v}"),
            Op("beta_k", f"{heads} k, {key} -> {heads} k head_k_dim"),
            Op("solve", f"{pairs}, {heads} k d_kv -> {heads} q d_kv", kind="solve"),
            Op("held", f"{heads} q head_k_dim, {S} -> {y}"),
            Op("to_end", f"{heads} k, {v} -> {v}"),
            Op("chunk_state", f"{key}, {v} -> {S}"),
            Op("carry", f"{heads}, {S} + {S} -> {S}"),
            Op("within", f"{pairs}, {v} -> {y}"),
            Op("between", f"{q}, {S} -> {y}"),
            Op("from_start", f"{heads} q, {y} + {y} -> {y}"),
        ]

    def recurrence(self) -> list[Op]:
        """Token by token: decay, read what the key holds, write the difference, read."""
        heads = "b l n_k_heads per_k"
        key, v = "b l n_k_heads head_k_dim", f"{heads} head_v_dim"
        S = f"{heads} head_k_dim head_v_dim"
        return [
            Op("decay", f"{heads}, {S} -> {S}"),
            Op("held", f"{key}, {S} -> {v}"),
            Op("delta", f"{heads}, {v} + {v} -> {v}"),
            Op("write", f"{key}, {v} + {S} -> {S}"),
            Op("read", f"{key}, {S} -> {v}"),
        ]

    def kept_eager(self, run):
        """All chunks of a sequence at once, padded; one after the other for the state only."""
        heads, key, value = "b l n_v_heads", "b c q n_k_heads head_k_dim", "b c q d_v"
        square, pairs = "b c n_k_heads q k", "b c n_v_heads q k"
        copies = ["k_scores", "q_scores", "k_system", "q_system", "k_read", "q_read"]
        inside = {
            **dict.fromkeys(("start", "end", "beta_copied", "beta_start"), "b c q n_v_heads"),
            "through": "b c n_v_heads",
            **dict.fromkeys(("decay", "system_decayed", "system", "scores_copied"), pairs),
            **dict.fromkeys(("scores", "keys"), square),
            **dict.fromkeys(copies, key),
            **dict.fromkeys(("v", "news", "news_to_end", "news_copied", "read", "y"), value),
            "solved": "b c q n_v_heads d_kv",
            **dict.fromkeys(("states", "states_copied"), "b c n_v_heads head_k_dim head_v_dim"),
        }
        if run.b > 1:  # a product of two batches copies an operand
            inside |= {"k_write": key, "k_read_copied": "b c_later q n_v_heads head_k_dim"}
        return [
            Kept("x", "b l d_model", light=True),
            Kept("conv_in", "b l_conv d_qkv"),
            Kept("conv_out", "b l d_qkv"),
            Kept("qkv", "b l d_qkv", "uncast"),
            *[Kept("q", "b l d_k", "cast"), Kept("k", "b l d_k", "cast")],
            *(Kept(f"{t}_rms", "b l n_k_heads", "fp32") for t in "qk"),
            *(Kept(name, "n_v_heads", "fp32") for name in ("exp_A", "A")),
            *(Kept(name, heads, "fp32") for name in ("dt_in", "dt", "beta")),
            *(Kept(name, axes, "fp32") for name, axes in inside.items()),
            Kept("mask", "q k", "bool"),
            *[Kept("z", "b l d_v", "cast"), Kept("qkvz", "b l d_qkvz", "uncast")],
            *gated("b l d_v", heads),
            Kept("out", "b l d_v"),
        ]

    def kept_fused(self, run):
        """`chunk_gated_delta_rule` of flash-linear-attention; A is a square for each chunk."""
        heads = "b l n_v_heads"
        return [
            Kept("x", "b l d_model", light=True),
            Kept("qkvz", "b l d_qkvz"),
            Kept("conv_in", "b l d_qkv"),
            *[Kept("q", "b l d_k"), Kept("k", "b l d_k"), Kept("v", "b l d_v")],
            *(Kept(f"{t}_rms", "b l n_k_heads", "fp32") for t in "qk"),
            *[Kept("decay", heads, "fp32"), Kept("beta", heads), Kept("A", f"{heads} k")],
            *[Kept("y", "b l d_v"), Kept("rms", heads, "fp32")],
            Kept("out", "b l d_v", light=True),
        ]
