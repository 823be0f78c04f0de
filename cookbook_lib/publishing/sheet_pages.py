"""A sheet as a page: the model drawn, and its numbers in tables with the commands behind them."""

import re
from html import escape

from cookbook_lib.calculators.diagram import describe, draw
from cookbook_lib.calculators.memory_plan import PARTS
from cookbook_lib.commands.output import gb
from cookbook_lib.plots import INK, PAPER
from cookbook_lib.publishing import outputs
from cookbook_lib.publishing.sheets import CONTEXTS, SERVE, TRAIN, Sheet, runs
from cookbook_lib.publishing.tables import Cell, flop, giga, share, size, span, table, whole

WIDE, NARROW = 680, 328  # pixels of the two drawings: beside the menus, and on a phone
ADDRESS = re.compile(r"https?://[^\s;,()]+|arXiv:\d{4}\.\d{5}")
HELD = [f"{n:,} tokens" for n in CONTEXTS]


def page(s: Sheet) -> str:
    """The page of a sheet as Markdown; each table and drawing is one line of HTML."""
    note = linked(s.entry.get("note", ""))
    top = [f"# {s.title}", facts(s), f"<p>{note}</p>" if note else ""]
    sections = (drawing, parameters, tokens, training, serving)
    return "\n\n".join([*top, *(part for section in sections for part in section(s))])


def facts(s: Sheet) -> str:
    """The line below the title."""
    run = "built by this book's blocks" if runs(s.name) else "counted here, not built"
    source = linked(s.entry["source"])
    return (
        f'<p class="nb-facts"><a href="../">All models</a> · {s.kind} · {s.model.family} · '
        f"config: {source} · {run}</p>"
    )


def linked(text: str) -> str:
    """Text as HTML, its addresses and arXiv ids as links."""

    def link(match: re.Match) -> str:
        shown = match[0].removeprefix("https://")
        address = match[0].replace("arXiv:", "https://arxiv.org/abs/")
        return f'<a href="{address}">{shown}</a>'

    return ADDRESS.sub(link, escape(text, quote=False))


def shell(*commands: str) -> str:
    return "\n".join(["```bash", *commands, "```"])


def drawing(s: Sheet) -> list[str]:
    figures = [
        f'<div class="model-{name}" data-search-exclude="">'
        f"{outputs.figure(draw(s.model, INK, PAPER, width), describe(s.model))}</div>"
        for name, width in (("wide", WIDE), ("narrow", NARROW))
    ]
    rows = [(k, whole(s.model.pattern.count(k)), parts) for k, parts in s.model.legend().items()]
    return [
        *figures,
        f"The {len(s.model.pattern)} layers in the order in which they run:",
        f'<p class="model-pattern"><code>{s.model.pattern}</code></p>',
        table("What a layer of each letter holds", ("Letter", "Layers", "Blocks"), rows),
    ]


def parameters(s: Sheet) -> list[str]:
    """The four counts, and who holds and uses the parameters."""
    report = s.costs[0]
    names = {
        "params": "stored",
        "params_active": "active: of the experts, those that a token picks",
        "params_used_per_token": "used by a token: active, a shared block at each use",
        "params_embedding": "in lookup tables",
    }
    four = [(text, whole(report[key])) for key, text in names.items()]
    stored, flops = report["params"], report["flops"]
    rows = [
        (
            row["component"],
            whole(row["params"]),
            share(row["params"], stored),
            flop(row["flops"] / report["tokens"]),
            share(row["flops"], flops),
        )
        for row in report["rows"]
    ]
    rows.append(("all", whole(stored), share(1, 1), flop(report["flops_per_token"]), share(1, 1)))
    head = ("Component", "Parameters", "Share", "FLOPs a token", "Share")
    caption = f"By component; FLOPs of a forward pass over {HELD[0]}"
    return [
        "## Parameters",
        table("Parameters, four ways", ("Which", "Parameters"), four),
        table(caption, head, rows),
        "A weight that is used again, as in a tied head or a shared block, counts where it is "
        "used first.",
        shell(s.cost_command(CONTEXTS[0])),
    ]


def tokens(s: Sheet) -> list[str]:
    """What one token costs and what a sequence keeps, at each length."""
    rows = {
        "forward pass, mean of all tokens": ("flops_per_token", flop),
        "decoding the next token": ("decode_flops", flop),
        "KV cache": ("kv_bytes", size),
        "convolution states": ("conv_state_bytes", size),
        "recurrent (SSM) states": ("ssm_state_bytes", size),
        "whole cache": ("cache_bytes", size),
    }
    return [
        "## A token and its cache",
        table(
            "One sequence, bf16",
            ("Part", *HELD),
            [(name, *(f(c[key]) for c in s.costs)) for name, (key, f) in rows.items()],
        ),
        "Attention is counted dense, as the [conventions](../conventions.md) say. What a length "
        "would cost does not say that the model was trained for it.",
        shell(*map(s.cost_command, CONTEXTS)),
    ]


def training(s: Sheet) -> list[str]:
    m, room = s.memory, s.memory["chip_bytes"]
    rows = [(part, giga(m[part]), share(m[part], room)) for part in (*PARTS, "total")]
    if m["fits"]:
        answer = f"It fits: {gb(room - m['total'])} GB of {gb(room)} GB are left."
    else:
        answer = (
            f"It does not fit: {gb(m['total'] - room)} GB more than the {gb(room)} GB there are."
        )
    if m["change"]:
        answer += (
            f" The cheapest change of those that `cookbook memory` tries: `{m['change']}`, "
            f"which takes {gb(m['change_total'])} GB of each."
        )
    commands = [c for c in (s.memory_command(), s.changed_command()) if c]
    return [
        f"## Training on {TRAIN['gpus']} GPUs",
        f"{settings(m)}. {answer}",
        table("Memory of the fullest GPU", ("Part", "GB", "Share of the chip"), rows),
        "The [conventions](../conventions.md#training-memory) say what each part holds.",
        shell(*commands),
    ]


def settings(m: dict) -> str:
    """How a training runs whose memory was counted."""
    return (
        f"{m['gpus']} x {m['chip']}, ZeRO-{m['zero']}, {m['micro_batch']} x {m['tokens']:,} tokens "
        f"on each, {m['dtype']}, {m['optimizer_name']}, {m['kernels']} kernels, "
        f"recomputation: {m['recompute']}"
    )


def serving(s: Sheet) -> list[str]:
    """Bounds of prefill and decoding on one chip, where the model fits it."""
    on = s.serving
    title = f"## Serving on one {on.chip.name}"
    if not (reports := [r for r in s.served if r]):
        weights = f"its bf16 weights take {gb(on.weights)} GB, and {gb(on.room)} GB may be used"
        return [title, f"It does not fit: {weights}. Several chips are not modelled."]
    rows = {
        "first token": lambda r: span(r, "ttft"),
        "each further token": lambda r: span(r, "tpot"),
        "memory": lambda r: size(r["memory_bytes"]),
        "sequences that fit": lambda r: whole(r["largest_batch"]),
    }
    head = ("What", *(f"prompt of {n}" for n in HELD))
    body = [
        (name, *(f(r) if r else Cell("does not fit") for r in s.served)) for name, f in rows.items()
    ]
    fitting = [n for n, r in zip(CONTEXTS, s.served, strict=True) if r]
    longest = reports[0]["longest_context"]
    limit = "Memory sets no limit to the context of one sequence."
    if longest:
        limit = (
            f"In the {gb(on.room)} GB that may be used, one sequence has up to {longest:,} tokens."
        )
    return [
        title,
        table(f"One sequence, bf16, {SERVE['output']} tokens of output", head, body),
        "Both times are [lower bounds](../conventions.md#bytes-and-time): with the ops of each "
        f"block fused, and with each op alone. {limit}",
        shell(*map(s.serve_command, fitting)),
    ]
