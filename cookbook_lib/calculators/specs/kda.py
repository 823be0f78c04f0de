"""Kimi Delta Attention, arXiv:2510.26692: gated DeltaNet whose every channel decays on its own."""

from dataclasses import dataclass

from cookbook_lib.calculators.einsums import Op, linear
from cookbook_lib.calculators.kept import Kept
from cookbook_lib.calculators.specs.delta import DeltaRule


@dataclass(frozen=True, kw_only=True)
class KDA(DeltaRule):
    """KDA with the parameter names of transformers; decay and output gate are of rank head_dim."""

    n_heads: int
    head_dim: int = 128
    d_conv: int = 4

    component = "kda"
    d_inner = property(lambda self: self.n_heads * self.head_dim)
    d_qkv = property(lambda self: 3 * self.d_inner)
    key = property(lambda self: self.head_dim)  # the state is key by value, both head_dim wide
    both = property(lambda self: 2 * self.head_dim)

    @property
    def state(self):
        ssm = ("ssm", "b n_heads key head_dim", self.ssm_dtype)
        return {"conv": ("conv", "b d_qkv d_conv", ""), "ssm": ssm}

    def shard(self, tp=1, ep=1):
        """Heads are split; the narrow middles of the two gates stay whole."""
        return self.but(**self.split(tp, "n_heads"))

    def ops(self, run):
        x, v = "b l d_inner", "b l n_heads head_dim"
        scan = self.recurrence() if run.l == 1 or run.scan == "recurrent" else self.chunked()
        return [
            *(op for name in "qkv" for op in linear(f"{name}_proj", "d_model", "d_inner")),
            Op("conv1d.weight", "b l d_qkv, d_qkv d_conv -> b l d_qkv", kind="conv"),
            *linear("forget_gate.f_a_proj", "d_model", "head_dim"),
            *linear("forget_gate.f_b_proj", "head_dim", "d_inner"),
            Op("forget_gate.dt_bias", f"{x}, d_inner -> {x}"),
            Op("forget_gate.A_log", f"{v}, n_heads -> {v}"),  # the log decay
            *linear("b_proj", "d_model", "n_heads"),
            *scan,
            *linear("g_a_proj", "d_model", "head_dim"),
            *linear("g_b_proj", "head_dim", "d_inner"),
            Op("o_norm.weight", f"{v}, head_dim -> {v}"),
            Op("gate", f"{x}, {x} -> {x}"),
            *linear("o_proj", "d_inner", "d_model"),
        ]

    def chunked(self) -> list[Op]:
        """As gated DeltaNet, with the decays in the queries and keys: they differ by channel."""
        chunk, S = "b c n_heads", "b c n_heads key head_dim"
        q, k, pairs = f"{chunk} q key", f"{chunk} k key", f"{chunk} q k"
        v, y = f"{chunk} k head_dim", f"{chunk} q head_dim"
        return [
            Op("decay_q", f"{q}, {q} -> {q}"),
            Op("decay_k", f"{k}, {k} -> {k}"),
            Op("beta_v", f"{chunk} k, {v} -> {v}"),
            Op("beta_k", f"{chunk} k, {k} -> {k}"),
            Op("decay_beta_k", f"{k}, {k} -> {k}"),
            Op("scores", f"{q}, {k} -> {pairs}"),
            Op("system", f"{q}, {k} -> {pairs}"),
            Op("solve", f"{pairs}, {chunk} k both -> {chunk} q both", kind="solve"),
            Op("held", f"{q}, {S} -> {y}"),
            Op("to_end", f"{k}, {k} -> {k}"),
            Op("chunk_state", f"{k}, {v} -> {S}"),
            Op("carry", f"{chunk} key, {S} + {S} -> {S}"),
            Op("within", f"{pairs}, {v} -> {y}"),
            Op("between", f"{q}, {S} -> {y}"),
        ]

    def recurrence(self) -> list[Op]:
        """Token by token: decay, read what the key holds, write the difference, read."""
        heads, key, v = "b l n_heads", "b l n_heads key", "b l n_heads head_dim"
        S = "b l n_heads key head_dim"
        return [
            Op("decay", f"{key}, {S} -> {S}"),
            Op("held", f"{key}, {S} -> {v}"),
            Op("delta", f"{heads}, {v} + {v} -> {v}"),
            Op("write", f"{key}, {v} + {S} -> {S}"),
            Op("read", f"{key}, {S} -> {v}"),
        ]

    def kept_fused(self, run):
        """`chunk_kda` of fla 0.6.0 (ops/kda/chunk.py), which norms q and k and makes the decay.

        It keeps two squares for each chunk, and makes the states and the solved values again.
        """
        x, heads = "b l d_inner", "b l n_heads"
        return [
            Kept("x", "b l d_model", light=True),
            Kept("conv_in", "b l d_qkv"),
            *(Kept(name, x) for name in "qkv"),
            *(Kept(f"{name}_rms", heads, "fp32") for name in "qk"),
            *[Kept("decay_middle", "b l head_dim"), Kept("decay_in", x)],
            *[Kept("beta_in", heads), Kept("beta", heads, "fp32")],
            *(Kept(name, f"{heads} k") for name in ("scores", "system")),
            *[Kept("gate_middle", "b l head_dim"), Kept("gate", x)],
            *[Kept("y", x), Kept("rms", heads, "fp32")],
            Kept("out", x, light=True),
        ]
