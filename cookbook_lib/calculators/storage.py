"""How many bits each number takes while a model serves: weights and caches in formats of few bits.

A format of 4 bits keeps a scale for each group of numbers, so it takes more than 4. Only weights of
large products and the KV cache take such formats. The rest stays as it is: norms, biases,
convolutions, and the state of an SSM, whose errors would be carried from token to token.
"""

from dataclasses import dataclass
from math import prod

from cookbook_lib.calculators.costs import Block, State
from cookbook_lib.calculators.einsums import Op, Row, Size
from cookbook_lib.calculators.runs import BITS, Run, choose


@dataclass(frozen=True, kw_only=True)
class Format:
    """Bits of a number, and those of the scale that each `group` numbers share; 0 for no groups."""

    bits: int
    group: int = 0
    scale: int = 16

    @property
    def mean(self) -> float:
        """Bits that one number takes, its part of the scale included."""
        return self.bits + (self.scale / self.group if self.group else 0.0)


FORMATS = {
    **{name: Format(bits=BITS[name]) for name in ("fp32", "bf16", "fp16")},
    "fp8": Format(bits=8),  # a scale for each tensor or channel: too few to count
    "int8": Format(bits=8),  # likewise
    "int4": Format(bits=4, group=128),  # AWQ's groups, arXiv:2306.00978, section 5.1; a fp16 scale
    "int4-g64": Format(bits=4, group=64),  # the same in finer groups
    "int4-g32": Format(bits=4, group=32),  # llama.cpp's Q4_0: ggml-common.h, block_q4_0
    "mxfp4": Format(bits=4, group=32, scale=8),  # OCP Microscaling Formats v1.0 (2023-09), 5.2
    "nvfp4": Format(bits=4, group=16, scale=8),  # NVIDIA, "Introducing NVFP4" (2025-06)
}
WIDE = "bf16"  # what models are served in


@dataclass(frozen=True, kw_only=True)
class Storage:
    """A format for each kind of number.

    weights: of products with the activations. embed: of the embedding and the head, which
    quantisers leave alone by default. cache: keys and values. ssm: states of SSMs; empty for the
    dtype in which the model's framework keeps them. compute: in which products with weights run;
    bf16 if weights are unpacked first, as kernels for 4-bit weights do. wide: of activations, and
    of what is too small or too delicate for fewer bits.
    """

    weights: str = WIDE
    embed: str = WIDE
    cache: str = WIDE
    ssm: str = ""
    compute: str = WIDE
    wide: str = WIDE

    def __post_init__(self):
        for field in ("weights", "embed", "cache", "wide"):
            choose(field, getattr(self, field), FORMATS)
        choose("ssm", self.ssm, ("", "fp32", "bf16", "fp16"))
        choose("compute", self.compute, ("bf16", "fp16", "fp8", "int8", "fp4", "int4"))

    def weight_bits(self, row: Row) -> float:
        """Of each parameter in a row."""
        if row.component in ("embedding", "head"):
            return FORMATS[self.embed].mean
        return FORMATS[self.weights if row.kind == "matmul" else self.wide].mean

    def weights_nbytes(self, block: Block) -> int | float:
        """Bytes of all weights, each stored once."""
        rows = {row.name: row for row in block.costs() if row.params}
        return sum(row.params * self.weight_bits(row) for row in rows.values()) / 8

    def state_nbytes(self, state: State) -> float:
        """Bytes of a state: KV in the cache's format, the convolution's as wide as activations."""
        kinds = {"kv": FORMATS[self.cache].mean, "conv": FORMATS[self.wide].mean}
        return prod(state.shape) * kinds.get(state.kind, BITS[self.ssm or state.dtype]) / 8

    def states_nbytes(self, block: Block, b: int = 1, s: int = 1) -> int | float:
        """Bytes that b sequences keep after s tokens."""
        return sum(
            uses * self.state_nbytes(state)
            for part, uses in block.distinct
            for state in part.states(b, s, self.wide)
        )

    def traffic(self, block: Block, run: Run) -> int | float:
        """Bytes of state read and written: a cache is read and added to, other states replaced."""
        held = block.states(run.b, run.s - run.l, self.wide) if run.s > run.l else ()
        read = {x.name: self.state_nbytes(x) for x in held}
        written = sum(
            self.state_nbytes(x) - read.get(x.name, 0) * (x.kind == "kv")
            for x in block.states(run.b, run.s, self.wide)
        )
        return sum(read.values()) + written


def picked(op: Op, size: Size) -> float:
    """Part of a weight that a pass reads: all of it, but of a table the rows that are looked up,
    and of experts those that some token picks.

    If each of n tokens picks k of E experts at random, an expert is left out by all of them with
    probability (1 - k/E)^n, so E (1 - (1 - k/E)^n) are read on average. A router that is less even
    reads fewer.
    """
    if not op.gather:
        return 1.0
    n, total = size("b") * size("l"), size(op.gather)
    if not op.take:
        return min(1.0, n / total)
    return 1 - max(0.0, 1 - size(op.take) / total) ** n
