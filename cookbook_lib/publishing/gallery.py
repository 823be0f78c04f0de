"""The gallery: a page for each preset and one that compares them, made when the site is built.

A preset's file is all that a model needs: its page, its row and its place in the menu follow.
"""

from collections.abc import Callable
from functools import cache
from html import escape
from itertools import groupby

from cookbook_lib.calculators import presets
from cookbook_lib.commands.output import gb
from cookbook_lib.publishing.sheet_pages import page, settings
from cookbook_lib.publishing.sheets import CONTEXTS, KINDS, Sheet, sheet
from cookbook_lib.publishing.tables import Cell, digits, share, table, whole

MENU = "models/*"  # stands in `nav` for the menu of the gallery
SHORT, LONG = (f"{n // 1024}k" for n in CONTEXTS)
COLUMNS: dict[str, Callable[[Sheet], Cell]] = {
    "Model": lambda s: Cell(f'<a href="{s.name}/">{escape(s.title)}</a>', s.title.lower()),
    "Kind": lambda s: Cell(s.kind, s.kind),
    "Parameters (B)": lambda s: digits(s.model.params(), 1e9),
    "Active (B)": lambda s: digits(s.model.params_active(), 1e9),
    "Layers": lambda s: whole(len(s.model.pattern)),
    "Layers that attend": lambda s: share(s.attention_layers, len(s.model.pattern), 0),
    f"Cache at {LONG} (GiB)": lambda s: digits(s.costs[1]["cache_bytes"], 2**30),
    f"GFLOPs a token at {SHORT}": lambda s: digits(s.costs[0]["flops_per_token"], 1e9),
    "Training (GB a GPU)": lambda s: digits(s.memory["total"], 1e9),
}


@cache
def sheets() -> tuple[Sheet, ...]:
    """All sheets, kind by kind, the families of each together and small models first."""
    found = map(sheet, presets.names())
    return tuple(
        sorted(found, key=lambda s: (KINDS.index(s.kind), s.model.family, s.model.params()))
    )


def menu() -> list:
    """The entries of `nav`: the comparison, then a group for each kind."""
    groups = groupby(sheets(), key=lambda s: s.kind)
    return [
        "models/index.md",
        *({kind[0].upper() + kind[1:]: [address(s) for s in group]} for kind, group in groups),
    ]


def address(s: Sheet) -> str:
    return f"models/{s.name}.md"


def pages() -> dict[str, str]:
    """Address -> Markdown of each page of the gallery."""
    return {"models/index.md": comparison()} | {address(s): page(s) for s in sheets()}


def comparison() -> str:
    """The page with one table of all models, which a script lets readers sort and filter."""
    by_name = sorted(sheets(), key=lambda s: s.title.lower())
    rows = [[cell(s) for cell in COLUMNS.values()] for s in by_name]
    all_models = table("Published models", list(COLUMNS), rows)
    return "\n\n".join(
        [
            "---\nhide: [toc]\n---",
            "# Models",
            f"{len(rows)} published models, each counted from its config by this book's "
            "calculators. A name leads to the model's page, with the commands that print its "
            "numbers.",
            f'<div class="models" data-search-exclude="">{choices(rows)}{all_models}</div>',
            notes(),
            '<script src="../assets/models.js"></script>',
        ]
    )


def choices(rows: list[list[Cell]]) -> str:
    """A button for each word of the column Kind, which shows the rows that have it."""
    kinds = (str(row[list(COLUMNS).index("Kind")].value).split() for row in rows)
    words = ["all", *dict.fromkeys(word for kind in kinds for word in kind)]
    buttons = "".join(
        f'<button type="button" aria-pressed="{str(word == "all").lower()}">{word}</button>'
        for word in words
    )
    return (
        '<div class="models-filter" role="group" aria-label="Kinds of models to show">'
        f'{buttons}<span role="status">{len(rows)} of {len(rows)}</span></div>'
    )


def notes() -> str:
    """What the columns count."""
    m = sheets()[0].memory
    before, after = CONTEXTS
    return "\n".join(
        [
            "- **Kind.** A hybrid mixes the sequence with attention and with layers whose state "
            "has a fixed size: state spaces, delta rules, linear attention, gated convolutions. "
            "Recurrent models have only the latter, dense models only attention. With MoE, some "
            "layers send each token to a few of their experts.",
            "- **Active.** The parameters that one token uses, a shared block counted once.",
            "- **Layers that attend.** The share of the layers that hold attention, alone or "
            "beside another mixer. In some models an MLP is a layer of its own.",
            f"- **Cache.** Keys, values and states of one sequence of {after:,} tokens in bf16.",
            f"- **GFLOPs.** A forward pass over {before:,} tokens, divided by them; attention is "
            "counted dense.",
            f"- **Training.** The memory of the fullest GPU, which has {gb(m['chip_bytes'])} GB: "
            f"{settings(m)}.",
            "",
            "[Counting conventions](../conventions.md) says what is counted and why; "
            "[Contributing](../contributing.md#add-a-model) how to add a model.",
        ]
    )
