"""mLSTM, arXiv:2405.04517 section 2.3: a matrix memory with gates, and a vector that norms it."""

from dataclasses import dataclass

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import Op, linear
from cookbook_lib.calculators.kept import Kept
from cookbook_lib.calculators.runs import BITS, choose
from cookbook_lib.calculators.specs.mamba2 import chunked, chunks


@dataclass(frozen=True, kw_only=True)
class MLSTM(Block):
    """mLSTM as xLSTM-7B has it, arXiv:2503.13427, with the parameter names of transformers.

    fused: q, k, v and output gate are one weight, and the two other gates another.
    """

    d_model: int
    n_heads: int
    d_qk: int
    d_v: int
    bias: bool = False
    fused: bool = False
    chunk_size: int = 64
    ssm_dtype: str = ""

    component = "mlstm"
    d_state = property(lambda self: self.d_qk // self.n_heads)  # keys of a head
    headdim = property(lambda self: self.d_v // self.n_heads)  # values of a head
    d_qkvo = property(lambda self: 2 * self.d_qk + 2 * self.d_v)
    d_if = property(lambda self: 2 * self.n_heads)  # input gate, forget gate

    def __post_init__(self):
        super().__post_init__()
        self.divides("n_heads", "d_qk")
        self.divides("n_heads", "d_v")
        choose("ssm_dtype", self.ssm_dtype, ("", *BITS))

    @property
    def state(self):
        axes = {"C": "b n_heads d_state headdim", "n": "b n_heads d_state", "m": "b n_heads"}
        return {name: ("ssm", ax, self.ssm_dtype) for name, ax in axes.items()}

    def size(self, run):
        return super().size(run, **chunks(run, self.chunk_size))

    def shard(self, tp=1, ep=1):
        """Heads are split, with their gates and norms."""
        return self.but(**self.split(tp, "n_heads", "d_qk", "d_v"))

    def ops(self, run):
        v = "b l d_v"
        one_by_one = run.l == 1 or run.scan == "recurrent"
        return [
            *self.projections(),
            *(self.recurrence() if one_by_one else self.chunked()),
            Op("multihead_norm.weight", f"{v}, d_v -> {v}"),
            *[Op("multihead_norm.bias", f"{v}, d_v -> {v}")] * self.bias,
            Op("gate", f"{v}, {v} -> {v}"),
            *linear("out_proj", "d_v", "d_model", self.bias),
        ]

    def projections(self) -> list[Op]:
        """Queries, keys, values, output gate; and the two gates of the memory, with biases."""
        wide = {"q": "d_qk", "k": "d_qk", "v": "d_v", "ogate_preact": "d_v"}
        narrow = {"igate_preact": "n_heads", "fgate_preact": "n_heads"}
        if self.fused:
            wide, narrow = {"qkv_opreact": "d_qkvo"}, {"ifgate_preact": "d_if"}
        return [
            op
            for parts, bias in ((wide, self.bias), (narrow, True))
            for name, d_out in parts.items()
            for op in linear(name, "d_model", d_out, bias)
        ]

    def chunked(self) -> list[Op]:
        """Attention with decays inside a chunk, the memory between chunks; then its norm."""
        n, heads = "b c n_heads d_state", "b c k n_heads"
        return [
            *chunked("n_heads", ""),
            Op("chunk_norm", f"{heads}, {heads} d_state -> {n}", kind="elementwise"),
            Op("carry_norm", f"b c n_heads, {n} + {n} -> {n}"),
            Op("between_norm", f"b c q n_heads d_state, {n} -> b c q n_heads"),
            Op("normalise", "b c q n_heads, b c q n_heads headdim -> b c q n_heads headdim"),
        ]

    def recurrence(self) -> list[Op]:
        """Token by token: gate the key, write, decay, read; the same for the norm."""
        heads, k, v = "b l n_heads", "b l n_heads d_state", "b l n_heads headdim"
        C = "b l n_heads d_state headdim"
        return [
            Op("gate_key", f"{heads}, {k} -> {k}"),
            Op("write", f"{k}, {v} -> {C}"),
            Op("carry", f"{heads}, {C} + {C} -> {C}"),
            Op("carry_norm", f"{heads}, {k} + {k} -> {k}"),
            Op("read", f"{k}, {C} -> {v}"),
            Op("read_norm", f"{k}, {k} -> {heads}"),
            Op("normalise", f"{heads}, {v} -> {v}"),
        ]

    def kept_fused(self, run):
        """`mlstm_chunkwise__xl_chunk` of mlstm_kernels 2.0.6, which makes the states again.

        The gates are kept as they were capped, by a tanh that keeps its result; n and m norm the
        output.
        """
        heads = "b l n_heads"
        return [
            Kept("x", "b l d_model", light=True),
            *[Kept("q", "b l d_qk"), Kept("k", "b l d_qk"), Kept("v", "b l d_v")],
            *[Kept("capped", "b l d_if"), Kept("gates", "b l d_if", light=True)],
            *[Kept("n", heads, "fp32"), Kept("m", heads, "fp32")],
            *[Kept("y", "b l d_v"), Kept("mean", heads, "fp32"), Kept("rms", heads, "fp32")],
            Kept("gate", "b l d_v"),
            Kept("out", "b l d_v", light=True),
        ]
