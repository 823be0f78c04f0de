"""A model drawn from its own layout: the layer string as cells, and what each letter holds.

One function for every model, so that a new model needs no new drawing. The picture is an SVG with
text that can be selected, in the page's own text colour, with its meaning in colour and in words.
"""

from html import escape

from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.model import Layout, Model
from cookbook_lib.calculators.specs import (
    KDA,
    MLA,
    MLP,
    MLSTM,
    RGLRU,
    RWKV7,
    Attention,
    GatedConv,
    GatedDeltaNet,
    Lightning,
    Linear,
    LoRA,
    Mamba1,
    Mamba2,
    Mamba3,
    MoE,
    RWKV7ChannelMix,
)

WIDTH, CELL, LINE, CARD, GAP = 680, 26, 25, 216, 16  # pixels; a card is at least so wide
RECURRENT = (  # mixers with a state of fixed size: one colour for all
    ("deltanet", "gated conv", "kda", "lightning", "mamba", "mamba2", "mamba3")
    + ("mlstm", "rg-lru", "rwkv7")
)
COLORS = dict.fromkeys(RECURRENT, "#2f7fd0") | {  # a contrast of 3:1 with white and dark grey
    "attention": "#d4691e",
    "mla": "#d4691e",
    "mlp": "#1b9a77",
    "rwkv7 channel mix": "#1b9a77",
    "moe": "#b85bb5",
    "lora": "#8f7a35",
}
PLAIN = "#7a7f87"
CAPTIONS = {
    Attention: "{n_heads} heads x {head_dim}, {n_kv_heads} KV",
    Mamba1: "width {d_inner}, state {d_state}",
    Mamba2: "{nheads} heads x {headdim}, state {d_state}",
    Mamba3: "{nheads} heads x {headdim}, state {d_state}",
    GatedDeltaNet: "{n_v_heads} heads x {head_v_dim}, keys {head_k_dim}",
    KDA: "{n_heads} heads x {head_dim}",
    Lightning: "{n_heads} heads x {head_dim}",
    MLSTM: "{n_heads} heads x {headdim}, keys {d_state}",
    RGLRU: "width {d_inner}, {n_heads} heads",
    RWKV7: "{nheads} heads x {headdim}",
    GatedConv: "{d_conv} taps, width {d_model}",
    MLA: "{n_heads} heads x {v_head_dim}, latent {kv_lora_rank}",
    RWKV7ChannelMix: "{d_model} - {d_ff}",
    MLP: "{d_model} - {d_ff}",
    MoE: "{topk} of {n_experts}, {d_ff} wide",
    LoRA: "rank {rank}",
    Linear: "{d_in} - {d_out}",
}


def draw(model: Model, ink: str = "currentColor", paper: str = "none", width: int = WIDTH) -> str:
    """The model as an SVG; `ink` and `paper` are its two plain colours, `width` is in pixels."""
    strip, y = cells(model, 0, width)
    cards, bottom = legend(model, y + GAP, width)
    points = f'width="{width * 0.75:g}pt" height="{bottom * 0.75:g}pt"'  # 4 px are 3 pt
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom}" {points} '
        f'role="img" font-family="sans-serif" font-size="12" fill="{ink}">'
        f"<title>{escape(describe(model))}</title>"
        f'<rect width="{width}" height="{bottom}" fill="{paper}"/>{strip}{cards}</svg>'
    )


def describe(model: Model) -> str:
    """The drawing in words, for those who cannot see it."""
    letters = "; ".join(f"{k}: {parts}" for k, parts in model.legend().items())
    return f"{model.name}, {len(model.pattern)} layers {model.pattern} where {letters}"


def color(layout: Layout) -> str:
    """A letter's colour is that of its rarest ingredient: attention, experts, then the mixer."""
    held = [block.component for _, block in layout]
    order = ("attention", "mla", "moe", *RECURRENT, "mlp")
    return next((COLORS[c] for c in order if c in held), PLAIN)


def shared(name: str) -> bool:
    """Whether several layers hold the very same block of this name."""
    return "{i}" not in name and "{use}" not in name


def cells(model: Model, y: int, width: int) -> tuple[str, int]:
    """The layers in the order they run, one cell each, in rows that read like text."""
    per_row = (width - 2) // CELL
    parts = []
    for i, letter in enumerate(model.pattern):
        x, row = 1 + i % per_row * CELL, y + i // per_row * (CELL + 4)
        tint = color(model.letters[letter])
        parts.append(
            f'<rect x="{x + 1}" y="{row + 1}" width="{CELL - 3}" height="{CELL - 3}" rx="4" '
            f'fill="{tint}" fill-opacity=".22" stroke="{tint}"/>'
            f'<text x="{x + CELL / 2 - 0.5}" y="{row + 17}" text-anchor="middle">{letter}</text>'
        )
    rows = -(-len(model.pattern) // per_row)
    return "".join(parts), y + rows * (CELL + 4)


def legend(model: Model, y: int, width: int) -> tuple[str, int]:
    """A card for each letter, side by side: its blocks from top to bottom, as they run."""
    columns = max(1, (width + GAP) // (CARD + GAP))
    card_width = (width - (columns - 1) * GAP) // columns
    parts, tallest = [], 0
    used = [(k, layout) for k, layout in model.layers if k in model.pattern]
    for n, (letter, layout) in enumerate(used):
        if n and n % columns == 0:
            y, tallest = y + tallest + GAP, 0
        x = n % columns * (card_width + GAP)
        card, height = letter_card(model, letter, layout, x, y, card_width)
        parts.append(card)
        tallest = max(tallest, height)
    return "".join(parts), y + tallest + 4


def letter_card(
    model: Model, letter: str, layout: Layout, x: int, y: int, width: int
) -> tuple[str, int]:
    uses = model.pattern.count(letter)
    head = f'<text x="{x}" y="{y + 13}" font-weight="bold">{letter}</text>'
    text = f"{uses} layer{'s' * (uses > 1)}"
    if any(map(shared, dict(layout))):
        text += "; dashed: stored once"
    head += f'<text x="{x + 18}" y="{y + 13}">{text}</text>'
    lines = "".join(
        line(name, b, x, y + 20 + i * LINE, width) for i, (name, b) in enumerate(layout)
    )
    return head + lines, 20 + len(layout) * LINE


def line(name: str, block: Block, x: int, y: int, width: int) -> str:
    """One block: its kind and size; one that several layers share has a dashed border."""
    tint = COLORS.get(block.component, PLAIN)
    dashes = ' stroke-dasharray="5 3"' if shared(name) else ""
    caption = CAPTIONS.get(type(block), "").format_map(Attributes(block))
    return (
        f'<rect x="{x + 0.5}" y="{y + 1.5}" width="{width - 1}" height="{LINE - 4}" rx="4" '
        f'fill="{tint}" fill-opacity=".14" stroke="{tint}"{dashes}/>'
        f'<text x="{x + 7}" y="{y + 16}">{block.component}</text>'
        f'<text x="{x + width - 7}" y="{y + 16}" text-anchor="end" font-size="10">{caption}</text>'
    )


class Attributes(dict):
    """A block's attributes as a mapping, for `str.format_map`."""

    def __init__(self, block: Block):
        self.block = block

    def __missing__(self, name: str):
        return getattr(self.block, name)
