"""What of prose pages is computed, so that no number is typed there: `<!-- computed: NAME -->`."""

import re
from collections.abc import Callable

from cookbook_lib.calculators import specs
from cookbook_lib.calculators.costs import Block
from cookbook_lib.publishing import glossary, measured
from cookbook_lib.publishing.planner import bundle

MARK = re.compile(r"<!-- computed: (\w+) -->")
D, CONTEXT = 2048, 65536

SPECS: dict[str, tuple[Block, str, str]] = {  # name -> spec, what it mixes, source
    "Attention (MHA)": (
        specs.Attention(d_model=D, n_heads=16, n_kv_heads=16, head_dim=128),
        "sequence",
        "1706.03762",
    ),
    "Attention (GQA)": (
        specs.Attention(d_model=D, n_heads=16, n_kv_heads=4, head_dim=128),
        "sequence",
        "2305.13245",
    ),
    "Latent attention (MLA)": (
        specs.MLA(d_model=D, n_heads=16),
        "sequence",
        "2405.04434",
    ),
    "Mamba": (specs.Mamba1(d_model=D), "sequence", "2312.00752"),
    "Mamba-2": (specs.Mamba2(d_model=D), "sequence", "2405.21060"),
    "RWKV-7": (specs.RWKV7(d_model=D), "sequence", "2503.14456"),
    "Gated DeltaNet, a gated linear attention": (
        specs.GatedDeltaNet(d_model=D, n_k_heads=16, n_v_heads=16),
        "sequence",
        "2412.06464",
    ),
    "Kimi delta attention": (specs.KDA(d_model=D, n_heads=16), "sequence", "2510.26692"),
    "Lightning attention": (specs.Lightning(d_model=D, n_heads=16), "sequence", "2401.04658"),
    "xLSTM (mLSTM)": (
        specs.MLSTM(d_model=D, n_heads=4, d_qk=D // 2, d_v=D),
        "sequence",
        "2405.04517",
    ),
    "RG-LRU (Griffin)": (specs.RGLRU(d_model=D, n_heads=16), "sequence", "2402.19427"),
    "Gated short convolution": (specs.GatedConv(d_model=D), "sequence", "2511.23404"),
    "MLP (gated)": (specs.MLP(d_model=D, d_ff=4 * D), "channels", "2002.05202"),
    "Mixture of experts": (
        specs.MoE(d_model=D, d_ff=4 * D, n_experts=8, topk=2),
        "channels",
        "1701.06538",
    ),
}
WITHOUT_SPEC = {  # name -> what it mixes, its state, its cost, source: in words, not computed here
    "KAN": ("channels", "none", "a learned spline for each edge", "2404.19756"),
}


def fill(markdown: str) -> str:
    """The page with each mark replaced by its table. `ValueError` for a name that has none."""

    def table(mark: re.Match) -> str:
        if mark[1] not in TABLES:
            raise ValueError(f"{mark[0]}: no such table, expected one of {', '.join(TABLES)}")
        return TABLES[mark[1]]()

    return MARK.sub(table, markdown)


def ingredients() -> str:
    """What each ingredient mixes, keeps and costs, from its spec where it has one."""
    lines = [
        f"| Ingredient | Mixes | State at 4k / {CONTEXT // 1024}k tokens | "
        f"MFLOP to decode a token at 4k / {CONTEXT // 1024}k | Parameters |",
        "|---|---|--:|--:|--:|",
    ]
    for name, (spec, mixes, source) in SPECS.items():
        state = " / ".join(mebibytes(spec.state_bytes(s=s)) for s in (4096, CONTEXT))
        flops = " / ".join(f"{spec.flops(l=1, s=s) / 1e6:.0f}" for s in (4096, CONTEXT))
        kept = f"{state} MiB" if spec.states() else "none"
        lines.append(f"| {link(name, source)} | {mixes} | {kept} | {flops} | {millions(spec)} |")
    for name, (mixes, kept, flops, source) in WITHOUT_SPEC.items():
        lines.append(f"| {link(name, source)} | {mixes} | {kept} | {flops} | |")
    note = (
        f"One layer of width {D}, one sequence, bf16; recurrent states in the dtype of their "
        "frameworks, most in float32; computed from specs."
    )
    return "\n".join([*lines, "", f"<small>{note}</small>"])


def link(name: str, source: str) -> str:
    return f"[{name}](https://arxiv.org/abs/{source})"


def mebibytes(nbytes: int) -> str:
    """MiB with one digit behind the point, or with as many as a small number needs."""
    mib = nbytes / 2**20
    return f"{mib:.1f}" if mib >= 0.1 else f"{mib:.2g}"


def millions(spec: Block) -> str:
    stored, used = (n / 1e6 for n in (spec.params(), spec.params_active()))
    return f"{stored:.1f} M" + (f", {used:.1f} M used" if used < stored else "")


TABLES: dict[str, Callable[[], str]] = {
    "glossary": glossary.page,
    "ingredients": ingredients,
    "planner": bundle.form,
    "results": measured.files,
}
