"""What every family has around its layers: an embedding, a last norm, and a head."""

from cookbook_lib.calculators.configs.fields import Fields
from cookbook_lib.calculators.model import Layout, Model
from cookbook_lib.calculators.specs import Embedding, Head, Norm

MOST_LAYERS = 10_000  # a depth above this is a slip of the keyboard, not a model


def depth(f: Fields, *names: str, default: int) -> int:
    """The number of layers."""
    return f.count(*(names or ("num_hidden_layers",)), default=default, null=None, high=MOST_LAYERS)


def around(
    f: Fields,
    pattern: str,
    layers: tuple[tuple[str, Layout], ...],
    *,
    d_model: int,
    vocab: int,
    tied: bool,
    embedding: str = "model.embed_tokens",
    norm: str = "model.norm",
    head: str = "lm_head",
    norm_bias: bool = False,
    positions: Layout = (),
    family: str = "",
) -> Model:
    """The model whose layers are given; `embedding`, `norm` and `head` are names of modules.

    `positions` is the layout of a learned table of positions. A tied head has the embedding's name.
    """
    return Model(
        name=f.where,
        family=family or f.data["model_type"],
        pattern=pattern,
        before=((embedding, Embedding(vocab=vocab, d_model=d_model)), *positions),
        layers=layers,
        after=(
            (norm, Norm(d_model=d_model, bias=norm_bias)),
            (embedding if tied else head, Head(d_model=d_model, vocab=vocab)),
        ),
    )
