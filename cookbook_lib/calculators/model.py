"""A model is a string, one letter per layer, and what each letter stands for.

The name of a block is that of its module in the checkpoint. In a layer's names `{i}` is the
layer's number, `{first}` the first layer with the same letter and `{use}` how many layers that
use a shared block came before. A name without `{i}` is shared by every layer that uses it.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from cookbook_lib.calculators.costs import Block, State
from cookbook_lib.calculators.einsums import Row
from cookbook_lib.calculators.runs import Run

Layout = tuple[tuple[str, Block], ...]  # (name, block), in the order they run


@dataclass(frozen=True, kw_only=True)
class Model(Block):
    """A block whose rows are the rows of its blocks, so it answers the same questions.

    `before` and `after` are the layouts around the layers: embedding, final norm and head. A tied
    head has the embedding's name. `source` says where the sizes come from.
    """

    name: str
    family: str
    pattern: str
    before: Layout
    layers: tuple[tuple[str, Layout], ...]  # letter -> what such a layer holds
    after: Layout
    source: str = ""

    component = "model"

    def __post_init__(self):
        super().__post_init__()
        if unknown := set(self.pattern) - set(self.letters):
            raise ValueError(
                f"pattern has {min(unknown)!r}, expected only {', '.join(sorted(self.letters))}"
            )
        if not self.pattern:
            raise ValueError("pattern is empty, expected a letter for each layer")

    @cached_property
    def letters(self) -> dict[str, Layout]:
        return dict(self.layers)

    def layer(self, i: int) -> Layout:
        """The blocks of layer `i`, with their full names."""
        letter = self.pattern[i]
        sharing = {k for k, layout in self.layers if any("{first}" in name for name, _ in layout)}
        place = {
            "i": i,
            "first": self.pattern.index(letter),
            "use": sum(x in sharing for x in self.pattern[:i]),
        }
        return tuple((name.format(**place), block) for name, block in self.letters[letter])

    @cached_property
    def layout(self) -> Layout:
        """Every block in the order it runs, a shared one at each of its uses."""
        middle = (pair for i in range(len(self.pattern)) for pair in self.layer(i))
        return (*self.before, *middle, *self.after)

    @cached_property
    def distinct(self) -> tuple[tuple[Block, int], ...]:
        return tuple(Counter(block for _, block in self.layout).items())

    def legend(self) -> dict[str, str]:
        """What each letter of the pattern holds, in its order: {"m": "norm, mamba2"}."""
        used = {k: self.letters[k] for k in dict.fromkeys(self.pattern)}
        return {
            k: ", ".join(dict.fromkeys(block.component for _, block in layout))
            for k, layout in used.items()
        }

    def rows(self, run: Run) -> tuple[Row, ...]:
        return tuple(
            row._replace(block=name) for name, block in self.layout for row in block.rows(run)
        )

    def states(self, b: int = 1, s: int = 1, dtype: str = "bf16") -> tuple[State, ...]:
        """A list: each use of a shared block keeps a state of its own."""
        return tuple(
            state._replace(name=f"{name}.{state.name}")
            for name, block in self.layout
            for state in block.states(b, s, dtype)
        )

    def params_embedding(self) -> int:
        """Parameters of the lookup tables; a tied head is one of them, an untied head is not."""
        weights = {r.name: r.params for r in self.costs() if r.component == "embedding"}
        return sum(weights.values())

    def step_flops(self, recompute: bool = False, **run) -> int:
        """As for a block; recomputation repeats the layers, not the head."""
        head = sum(r.flops for _, block in self.after for r in block.rows(Run(**run)))
        again = self.flops(**run) - head if recompute else 0
        return 3 * self.flops(**run) + again
