"""Sizes that waste a GPU: each check looks at one block and yields what it dislikes.

What it yields is a field, its value, and the share of the work that is of use, or None where no
measurement says. `lint.py` has the reason for each check, and its source.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.gemms import SMS, Gemm, gemms
from cookbook_lib.calculators.runs import Run
from cookbook_lib.calculators.specs import MLA, Attention, Head, Mamba1, Mamba2, MoE

LINE, FULL = 8, 64  # bf16 elements in 16 and 128 bytes: what tensor cores need, and like
UNALIGNED = 272.73 / 398.38  # an MLP 10,922 wide beside one of 10,944: stas00/ml-engineering
KERNEL_HEADS = (32, 64, 96, 128, 160, 192, 256)  # flash_api.cpp at 00979f57: head_size_rounded


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where the block runs: `tokens` of a micro-batch, on a chip by its name, over `tp` ranks."""

    tokens: int
    chip: str = "h100"
    tp: int = 1

    @property
    def run(self) -> Run:
        return Run(l=self.tokens, attention="causal")


class Waste(NamedTuple):
    """What a rule dislikes. `efficiency`: useful share of the work, 0 if the kernel refuses.

    down, up: the nearest values that the rule likes; 0 for none. flops: of the work in question.
    """

    field: str
    value: int
    efficiency: float | None
    down: int
    up: int
    flops: int = 0


def useful(product: Gemm, chip: str) -> float:
    """The share of a product's time in which it computes what is asked for, at best: predicted."""
    slow = product.n % LINE or product.k % LINE
    return product.efficiency(SMS[chip]) * (UNALIGNED if slow else 1)


def beside(value: int, step: int) -> tuple[int, int]:
    """The multiples of `step` around a value that is none."""
    return value // step * step, -(-value // step) * step


def widths(block: Block, where: Setting) -> dict[tuple[str, int], int]:
    """Each width that a product reads or writes in a row of memory, and the FLOPs that meet it."""
    met: dict[tuple[str, int], int] = {}
    for product in gemms(block, where.run):
        for axes, value in ((product.outs, product.n), (product.ins, product.k)):
            if axes != ("vocab",):  # has a rule of its own
                key = " ".join(axes), value
                met[key] = met.get(key, 0) + product.flops
    return met


def aligned(block: Block, where: Setting) -> Iterator[Waste]:
    for (axis, value), flops in widths(block, where).items():
        if value % LINE:
            yield Waste(axis, value, UNALIGNED, *beside(value, FULL), flops)


def full_lines(block: Block, where: Setting) -> Iterator[Waste]:
    for (axis, value), flops in widths(block, where).items():
        if value % LINE == 0 and value % FULL and value > FULL:
            yield Waste(axis, value, None, *beside(value, FULL), flops)


def vocabulary(block: Block, where: Setting) -> Iterator[Waste]:
    if isinstance(block, Head) and block.vocab % FULL:
        loss = UNALIGNED if block.vocab % LINE else None
        flops = block.flops(l=where.tokens)
        yield Waste("vocab", block.vocab, loss, *beside(block.vocab, FULL), flops)


def head_size(block: Block, where: Setting) -> Iterator[Waste]:
    if isinstance(block, Attention) and block.head_dim not in KERNEL_HEADS:
        size, most = block.head_dim, KERNEL_HEADS[-1]
        down = max((x for x in KERNEL_HEADS if x < size), default=0)
        up = min((x for x in KERNEL_HEADS if x > size), default=0)
        flops = sum(r.flops for r in block.rows(where.run) if r.op in ("scores", "values"))
        yield Waste("head_dim", size, size / up if size < most else 0.0, down, up, flops)


def convolution(block: Block, where: Setting) -> Iterator[Waste]:
    taps = getattr(block, "d_conv", None)
    for op in block.ops(where.run):
        if op.kind == "conv" and op.name.endswith("weight"):
            axis = op.einsum.split()[2].strip(",")
            if (width := block.size(where.run)(axis)) % LINE:
                yield Waste(axis, width, 0.0, *beside(width, LINE))
    if taps is not None and not 2 <= taps <= 4:
        yield Waste("d_conv", taps, 0.0, 4 if taps > 4 else 0, 2 if taps < 2 else 0)


def scan_sizes(block: Block, where: Setting) -> Iterator[Waste]:
    if isinstance(block, Mamba1) and block.d_state > 256:
        yield Waste("d_state", block.d_state, 0.0, 256, 0)
    if isinstance(block, Mamba2):
        names = {"d_state", "headdim", "chunk_size"}
        scan = ("scores", "within", "chunk_state", "between")
        flops = sum(r.flops for r in block.rows(where.run) if r.op in scan)
        for name in sorted(names):
            value = getattr(block, name)
            up = 1 << (value - 1).bit_length()
            if up != value:
                yield Waste(name, value, value / up, up // 2, up, flops)


def strides(block: Block, where: Setting) -> Iterator[Waste]:
    if isinstance(block, Mamba2) and block.d_in_proj % LINE:
        yield Waste("nheads", block.nheads, None, *beside(block.nheads, LINE))


def copies(whole: Block, where: Setting) -> Iterator[Waste]:
    if isinstance(whole, Attention) and where.tp > whole.n_kv_heads:
        yield Waste("n_kv_heads", whole.n_kv_heads, None, 0, where.tp)
    if isinstance(whole, MLA) and where.tp > 1:
        yield Waste("kv_lora_rank", whole.kv_lora_rank, None, 0, 0)


def groups(whole: Block, where: Setting) -> Iterator[Waste]:
    if isinstance(whole, Mamba2) and whole.ngroups % where.tp:
        yield Waste("ngroups", whole.ngroups, 0.0, *beside(whole.ngroups, where.tp))


def waves(block: Block, where: Setting) -> Iterator[Waste]:
    sms = SMS[where.chip]
    slow: dict[Gemm, int] = {}  # one of each shape, with the FLOPs of all: k and v, gate and up
    for product in gemms(block, where.run):
        if product.efficiency(sms) < 0.9 and product.n >= FULL:
            one = product._replace(op="")
            slow[one] = slow.get(one, 0) + product.flops
    for product, flops in slow.items():
        good = [
            n
            for n in range(FULL, 2 * product.n + 1, FULL)
            if product._replace(n=n).efficiency(sms) >= 0.95
        ]
        down = max((n for n in good if n < product.n), default=0)
        up = min((n for n in good if n > product.n), default=0)
        axis, now = " ".join(product.outs), product.efficiency(sms)
        yield Waste(axis, product.n, now, down, up, flops)


def expert_tokens(block: Block, where: Setting) -> Iterator[Waste]:
    if isinstance(block, MoE):
        each = where.tokens * block.topk / block.n_experts
        if each < 128:
            up = -(-128 * block.n_experts // block.topk)
            flops = sum(r.flops for r in block.rows(where.run) if r.op.startswith("experts"))
            yield Waste("tokens", where.tokens, each / 128, 0, up, flops)
