"""RWKV-7, arXiv:2503.14456: a delta rule whose every channel decays at its own pace, and its MLP.

Each layer also mixes every token with the one before it, which is a state of one token.
"""

from dataclasses import dataclass

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.einsums import Op, linear
from cookbook_lib.calculators.kept import Kept
from cookbook_lib.calculators.specs.delta import DeltaRule


@dataclass(frozen=True, kw_only=True)
class RWKV7(DeltaRule):
    """RWKV-7's time mix, section 4.1, with the parameter names of flash-linear-attention.

    first: the first layer of a model, whose values the other layers mix into theirs.
    rank_*: widths of the low-rank maps to the decay w, the correction a, the value mix v, the gate.
    """

    headdim: int = 64
    rank_w: int = 64
    rank_a: int = 64
    rank_v: int = 32
    rank_g: int = 128
    first: bool = False
    d_ssm: int | None = None  # the width of all heads together where it is not d_model

    component = "rwkv7"
    d_inner = property(lambda self: self.d_ssm or self.d_model)
    nheads = property(lambda self: self.d_inner // self.headdim)
    key = property(lambda self: self.headdim)  # the state is key by value, both headdim wide
    both = property(lambda self: 2 * self.headdim)
    two, pair = property(lambda self: 2), property(lambda self: 2)

    def __post_init__(self):
        super().__post_init__()
        self.divides("headdim", "d_inner")
        if self.chunk_size > 64:  # products of decays, at least exp(-0.607 * 64), fit in float32
            raise ValueError(f"chunk_size is {self.chunk_size}, expected at most 64")

    @property
    def state(self):
        ssm = ("ssm", "b nheads headdim headdim", self.ssm_dtype)
        return {"shift": ("conv", "b d_model", ""), "ssm": ssm}

    def ops(self, run):
        stream, x = "b l d_model", "b l d_inner"
        heads, head = "b l nheads", "b l nheads headdim"
        scan = self.recurrence() if run.l == 1 or run.scan == "recurrent" else self.chunked()
        own = [] if self.first else [Op("v_mix", f"{x}, {x} + {x} -> {x}")]
        return [
            *(Op(f"x_{name}", f"{stream}, d_model + {stream} -> {stream}") for name in "rwkvag"),
            *(op for name in "rkv" for op in linear(f"{name}_proj", "d_model", "d_inner")),
            *(op for name in ("wag" if self.first else "wvag") for op in self.lora(name)),
            *own,
            *(Op(name, f"{x}, d_inner -> {x}") for name in ("k_k", "k_a")),
            Op("k_mix", f"{x}, {x} -> {x}"),
            Op("correct", f"{x}, {x} -> {x}"),
            *scan,
            Op("g_norm.weight", f"{x}, d_inner -> {x}"),
            Op("g_norm.bias", f"{x}, d_inner -> {x}"),
            Op("r_k", f"{head}, {head}, nheads headdim -> {heads}", kind="elementwise"),
            Op("bonus", f"{heads}, {head} + {head} -> {head}"),
            Op("gate", f"{x}, {x} -> {x}"),
            *linear("o_proj", "d_inner", "d_model"),
        ]

    def shard(self, tp=1, ep=1):
        """Heads are split; the mixing of tokens and the narrow middles stay whole."""
        return self.but(d_ssm=self.split(tp, "nheads")["nheads"] * self.headdim)

    def lora(self, name: str) -> list[Op]:
        """Through a narrow middle; only the gate's has no bias."""
        rank = f"rank_{name}"
        return [
            *linear(f"{name}_lora.lora.0", "d_model", rank),
            *linear(f"{name}_lora.lora.2", rank, "d_inner", bias=name != "g"),
        ]

    def chunked(self) -> list[Op]:
        """Solve for what the chunk's tokens read and replace, then attend; a state between."""
        chunk, S = "b c nheads", "b c nheads key headdim"
        vectors, values = f"{chunk} two k key", f"{chunk} two k headdim"
        pairs, out = f"{chunk} pair two q k", f"{chunk} q headdim"
        return [
            *(
                Op(f"decay_{name}", f"{chunk} k key, {chunk} k key -> {chunk} k key")
                for name in "rakb"
            ),
            Op("scores", f"{chunk} pair q key, {vectors} -> {pairs}"),
            Op("read_values", f"{chunk} q k, {chunk} k headdim -> {out}"),
            Op("solve", f"{chunk} q k, {chunk} k both -> {chunk} q both", kind="solve"),
            Op("held", f"{chunk} q key, {S} + {out} -> {out}"),
            Op("to_end", f"{vectors}, {chunk} k key -> {vectors}"),
            Op("chunk_state", f"{vectors}, {values} -> {S}"),
            Op("carry", f"{chunk} key, {S} + {S} -> {S}"),
            Op("within", f"{chunk} two q k, {values} -> {out}"),
            Op("between", f"{chunk} q key, {S} -> {out}"),
        ]

    def recurrence(self) -> list[Op]:
        """Token by token: read what is to be replaced, decay, replace, add, read."""
        v, key, S = "b l nheads headdim", "b l nheads key", "b l nheads key headdim"
        return [
            Op("held", f"{key}, {S} -> {v}"),
            Op("decay", f"{key}, {S} -> {S}"),
            Op("replace", f"{key}, {v} + {S} -> {S}"),
            Op("write", f"{key}, {v} + {S} -> {S}"),
            Op("read", f"{key}, {S} -> {v}"),
        ]

    def kept_eager(self, run):
        """All chunks of a sequence at once, padded; one after the other for the state only."""
        x, heads, S = "b l d_inner", "b l nheads", "b c nheads key headdim"
        one, both = "b c k d_inner", "b c k d_inner two"
        names = "rwkag" if self.first else "rwkvag"
        ones = ["kk_copied", "a_copied", "decay_k", "decay_r", "r", "decay_b", "total"]
        pairs = ["vectors", "vectors_scored", "readers", "solved", "to_end"]
        pairs += ["values", "values_copied"]
        inside = {
            **dict.fromkeys(ones, one),
            **dict.fromkeys(pairs, both),
            "through": "b c d_inner",
            "v_copied": one,
            "scores": "b c nheads pair two q k",
            "within_copied": "b c nheads two q k",
        }
        if run.b > 1:  # a product of two batches copies an operand
            inside["held_copied"] = "b c_later k d_inner"
        mixed = [] if self.first else [Kept("v_own", x), Kept("v_share", x)]
        return [
            *(Kept(f"x_{name}", "b l d_model") for name in ("delta", *"rwkvag")),
            *(Kept(f"middle_{name}", f"b l rank_{name}") for name in names if name in "wavg"),
            Kept("w", x, "fp32"),
            *mixed,
            *(Kept(name, x) for name in ("a", "k", "a_less", "k_factor")),
            *[Kept("kk", x, "fp32"), Kept("length", heads, "fp32"), Kept("clamped", heads, "fp32")],
            *(Kept(name, axes, "fp32") for name, axes in inside.items()),
            *[Kept("states", S, "fp32"), Kept("states_copied", S, "fp32")],
            Kept("mask", "two q k", "bool"),
            *[Kept("y", x), Kept("mean", heads), Kept("rms", heads)],
            *(Kept(name, x, "fp32") for name in ("bonus_r", "bonus_k", "r_k", "bonus_v")),
            Kept("bonus", heads, "fp32"),
            *(Kept(name, x) for name in ("sum", "gate", "out")),
        ]

    def kept_fused(self, run):
        """`chunk_rwkv7` of fla 0.6.0 keeps its six inputs alone; the mixes are light to make again.

        Around it: ops/rwkv7/fused_addcmul.py, fused_k_update.py and gate_output_correction.py.
        """
        x, heads = "b l d_inner", "b l nheads"
        names = "wag" if self.first else "wavg"
        mixed = [] if self.first else [Kept("v_own", x), Kept("v_share", x)]
        made = ("w", "k_mixed", "minus_kk", "kk_a", "normed", "out")
        return [
            *[Kept("x", "b l d_model", light=True), Kept("x_delta", "b l d_model", light=True)],
            *(Kept(f"x_{name}", "b l d_model", light=True) for name in "rwkvag"),
            *(Kept(f"middle_{name}", f"b l rank_{name}") for name in names),
            *mixed,
            *(Kept(name, x) for name in ("r", "w_share", "k", "v", "a", "g", "kk", "y")),
            *(Kept(name, x, light=True) for name in made),
            *(Kept(name, heads, "fp32") for name in ("kk_rms", "mean", "rms")),
        ]


@dataclass(frozen=True, kw_only=True)
class RWKV7ChannelMix(Block):
    """RWKV-7's channel mix, section 4.2: an MLP with squared ReLU that reads the last token too."""

    d_model: int
    d_ff: int

    component = "rwkv7 channel mix"
    state = {"shift": ("conv", "b d_model", "")}

    def shard(self, tp=1, ep=1):
        return self.but(**self.split(tp, "d_ff"))

    def ops(self, run):
        return [
            Op("x_k", "b l d_model, d_model + b l d_model -> b l d_model"),
            Op("key.weight", "b l d_model, d_model d_ff -> b l d_ff"),
            Op("value.weight", "b l d_ff, d_ff d_model -> b l d_model"),
        ]

    def kept_eager(self, run):
        return [
            *[Kept("delta", "b l d_model"), Kept("x", "b l d_model")],
            *[Kept("wide", "b l d_ff"), Kept("squared", "b l d_ff", light=True)],
        ]
