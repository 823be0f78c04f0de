"""What in a model wastes a GPU, how much, and what to change it to: every rule has its source.

The rules are those of NVIDIA GPUs and of the CUDA kernels that hybrids are trained with. What is
lost is a prediction from shapes alone; a kernel can do worse, and seldom better.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from cookbook_lib.calculators import sizing
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.gemms import SMS, gemms
from cookbook_lib.calculators.model import Model
from cookbook_lib.calculators.runs import choose
from cookbook_lib.calculators.sizing import Setting, Waste

LEAST = 0.001  # of a forward pass: products that lose less are not worth a line
MOST = 1024  # ranks: more than any model is split over


class Rule(NamedTuple):
    """A check of what one rank holds, or of the whole block, with its reason and source."""

    check: Callable[[Block, Setting], Iterator[Waste]]
    why: str
    source: str
    whole: bool = False


GUIDE = "NVIDIA, Matrix Multiplication Background, DU-09799-001 (2023-02)"
RULES = {
    "aligned": Rule(
        sizing.aligned,
        "tensor cores read 16 bytes at once: a width that is no multiple of 8 takes a slow path",
        f"{GUIDE}, section 2.2; measured by stas00/ml-engineering at a4549bc6: 273 and 398 TFLOP/s",
    ),
    "full lines": Rule(
        sizing.full_lines,
        "tensor cores are fully used by multiples of 128 bytes; on an H100 multiples of 32 lost 1%",
        f"{GUIDE}, section 2.2; arXiv:2401.14489; stas00/ml-engineering at a4549bc6",
    ),
    "vocabulary": Rule(
        sizing.vocabulary,
        "the head is a large product, and padding it costs a few rows",
        "arXiv:2401.14489: vocabulary divisible by 64",
    ),
    "head size": Rule(
        sizing.head_size,
        "flash-attention pads a head to the next size it is compiled for, and takes at most 256",
        "Dao-AILab/flash-attention at 00979f57, csrc/flash_attn/flash_api.cpp, mha_fwd",
    ),
    "convolution": Rule(
        sizing.convolution,
        "causal_conv1d takes 2 to 4 taps and channels in multiples of 8",
        "Dao-AILab/causal-conv1d at 018489dd, csrc/causal_conv1d.cpp, causal_conv1d_fwd",
    ),
    "scan": Rule(
        sizing.scan_sizes,
        "the scans' tiles are powers of two, the rest is padding; Mamba-1's state is at most 256",
        "mamba_ssm 2.3.2, ops/triton/ssd_chunk_scan.py: next_power_of_2; csrc: dstate <= 256",
    ),
    "strides": Rule(
        sizing.strides,
        "in_proj's output is copied for the convolution unless its width is a multiple of 8",
        "mamba_ssm 2.3.2, ops/triton/ssd_combined.py, ensure_stride",
    ),
    "copied heads": Rule(
        sizing.copies,
        "each rank keeps what ranks cannot split, a KV head or MLA's latents: its cache shrinks no "
        "more",
        "arXiv:2305.13245, section 2.2; arXiv:2405.04434, section 2.1",
        whole=True,
    ),
    "groups": Rule(
        sizing.groups,
        "mamba_ssm splits the groups of B and C over the ranks and asserts that they divide",
        "mamba_ssm 2.3.2, modules/mamba2.py: ngroups % world_size",
        whole=True,
    ),
    "tiles and waves": Rule(
        sizing.waves,
        "tiles at the edge are computed whole, and SMs idle in the last wave",
        f"{GUIDE}, sections 3.1 and 3.2",
    ),
    "expert tokens": Rule(
        sizing.expert_tokens,
        "an expert with fewer tokens than a tile has rows computes padding",
        f"{GUIDE}, section 3.1: the smallest of the efficient tiles has 128 rows",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One waste, with the first block that has it. `lost`: of the model's time, if math bounds it.

    efficiency: 0 where the kernel refuses, None where no measurement says.
    """

    rule: str
    where: str
    uses: int
    field: str
    value: int
    efficiency: float | None
    lost: float
    down: int
    up: int
    why: str
    source: str


def lint(model: Model, where: Setting) -> list[Finding]:
    """Refusals first, then what loses most, then what no measurement prices."""
    choose("chip", where.chip, SMS)
    total = model.flops(l=where.tokens, attention="causal")
    found = [
        f for name, block, n in distinct(model) for f in of_block(name, block, n, where, total)
    ]
    return sorted(found, key=lambda f: (f.efficiency != 0, -f.lost, f.rule))


def of_block(name: str, block: Block, uses: int, where: Setting, total: int) -> Iterator[Finding]:
    """What the rules say of one rank's part of a block; if it cannot be split, that."""
    try:
        part = block.shard(tp=where.tp)
    except ValueError as error:
        yield Finding(
            rule="tensor parallel",
            where=name,
            uses=uses,
            field="tp",
            value=where.tp,
            efficiency=0.0,
            lost=0.0,
            down=next(n for n in range(min(where.tp, MOST), 0, -1) if splits(block, n)),
            up=0,
            why=str(error),
            source="arXiv:1909.08053, section 3: each rank takes whole heads and channels",
        )
        return
    for key, rule in RULES.items():
        for waste in rule.check(block if rule.whole else part, where):
            share = where.tp * uses * waste.flops / total
            lost = share * (1 / waste.efficiency - 1) if waste.efficiency else 0.0
            if key != "tiles and waves" or lost >= LEAST:
                yield Finding(
                    rule=key,
                    where=name,
                    uses=uses,
                    efficiency=waste.efficiency,
                    lost=lost,
                    why=rule.why,
                    source=rule.source,
                    field=waste.field,
                    **of_whole(waste, block, part, where),
                )


def of_whole(waste: Waste, block: Block, part: Block, where: Setting) -> dict[str, int]:
    """A rank's value and its neighbours as values of the whole block, if the field is split."""
    values = {k: getattr(waste, k) for k in ("value", "down", "up")}
    sizes = [b.size(where.run) if waste.field.isidentifier() else None for b in (block, part)]
    if where.tp == 1 or waste.field == "tokens" or None in sizes:
        return values
    whole, own = (size(waste.field) for size in sizes)
    times = whole // own if whole == own * where.tp and waste.value == own else 1
    return {k: v * times for k, v in values.items()}


def splits(block: Block, tp: int) -> bool:
    try:
        block.shard(tp=tp)
    except ValueError:
        return False
    return True


def distinct(model: Model) -> list[tuple[str, Block, int]]:
    """Each block once, with the name of its first use and the number of uses."""
    first: dict[Block, str] = {}
    uses: dict[Block, int] = {}
    for name, block in model.layout:
        first.setdefault(block, name)
        uses[block] = uses.get(block, 0) + 1
    return [(name, block, uses[block]) for block, name in first.items()]


def efficiency(model: Model, where: Setting) -> float:
    """The useful share of the time of all products with weights, by tiles, waves and alignment."""
    choose("chip", where.chip, SMS)
    useful = spent = 0.0
    for _, block, uses in distinct(model):
        part = block.shard(tp=where.tp)
        for product in gemms(part, where.run):
            useful += uses * product.flops
            spent += uses * product.flops / sizing.useful(product, where.chip)
    return useful / spent
