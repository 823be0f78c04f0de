"""What every language model shares: an embedding, layers that add to a stream, a norm and a head.

The modules are made from the layout of a `Model` spec under its names, which are those of the
published checkpoints; a shared block is made once and used often. A family adds how the blocks of
one layer are wired: `layer`. Axes: b sequences, l new tokens, n tokens so far, d d_model.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cookbook_lib.blocks.cache import Cache, role, use_name
from cookbook_lib.blocks.kv_cache import Start
from cookbook_lib.blocks.linear import linear
from cookbook_lib.blocks.models.modules import make
from cookbook_lib.blocks.models.options import Options
from cookbook_lib.calculators import specs
from cookbook_lib.calculators.costs import Block
from cookbook_lib.calculators.model import Model


class Use(NamedTuple):
    """One use of a block by a layer; `name` is its own, `module` may be shared."""

    name: str
    spec: Block
    module: nn.Module


Layer = dict[str, Use]  # what each block is in its layer -> the block: "mamba", "self_attn", …


@dataclass
class Pass:
    """One forward pass: its place in the sequence, what is padding, the states it goes on with.

    shared: what the first layer of RWKV-7 tells the others.
    """

    start: Start = 0
    cache: Cache | None = None
    mask: Bool[Tensor, "b l"] | None = None
    seq_idx: Int[Tensor, "b l"] | None = None
    shared: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, use: Use, x: Float[Tensor, "b l d"], **extra) -> Float[Tensor, "b l e"]:
        """Run one block; one that mixes tokens gets its state and is told what to leave out."""
        if not use.spec.state:
            return use.module(x, **extra)
        state = None if self.cache is None else self.cache.of_use(use.name)
        if isinstance(use.spec, specs.Attention | specs.MLA):
            extra |= {"start": self.start, "mask": self.seen()}
        else:
            extra["mask"] = self.mask
        if isinstance(use.spec, specs.RWKV7):
            extra["shared"] = self.shared
        return use.module(x, state, seq_idx=self.seq_idx, **extra)

    def seen(self) -> Bool[Tensor, "b n"] | None:
        """Which of all tokens so far, the new ones included, are real."""
        if self.cache is None or self.cache.valid is None:
            return self.mask
        return self.cache.valid[:, : self.cache.length]


class LanguageModel(nn.Module):
    """A model from its spec and its options; `layer` is a family's own.

    Raises ValueError for a layout that the family's `layer` does not know how to wire.
    """

    def __init__(self, spec: Model, options: Options | None = None):
        super().__init__()
        self.check(spec)
        self.spec, self.options = spec, options or Options()
        made: dict[str, nn.Module] = {}
        for name, block in spec.layout:
            if name not in made:
                made[name] = make(block, self.options)
                attach(self, name, made[name])
        self.uses = [
            {
                role(name): Use(use_name(i, name), block, made[full])
                for (name, _), (full, block) in zip(spec.letters[k], spec.layer(i), strict=True)
            }
            for i, k in enumerate(spec.pattern)
        ]

    @staticmethod
    def check(spec: Model) -> None:
        """`ValueError` if `layer` cannot wire this spec."""

    def layer(
        self, parts: Layer, x: Float[Tensor, "b l d"], x0: Float[Tensor, "b l d"], run: Pass
    ) -> Float[Tensor, "b l d"]:
        """The stream after one layer. x0: the embeddings, which some layers read again."""
        raise NotImplementedError(f"{type(self).__name__} does not say how a layer is wired")

    def forward(
        self,
        tokens: Int[Tensor, "b l"],
        cache: Cache | None = None,
        *,
        mask: Bool[Tensor, "b l"] | None = None,
        seq_idx: Int[Tensor, "b l"] | None = None,
        logits: str = "all",
    ) -> Float[Tensor, "b p vocab"]:
        """Logits of the next token after each of `tokens` ("all"), or after the last ("last").

        cache: the states to go on from, updated in place; None for a sequence that starts here.
        mask: False for padding, which belongs on the left; the cache remembers it.
        seq_idx: the document of each token, where several are packed in a sequence.
        """
        if logits not in ("all", "last"):
            raise ValueError(f"logits is {logits!r}, expected one of all, last")
        run = Pass(cache.start() if cache else 0, cache, mask, seq_idx)
        if cache is not None:
            cache.advance(tokens.shape[1], mask)
        x = x0 = self.get_submodule(self.spec.before[0][0])(tokens)
        if self.options.fp32_residual:
            x = x.to(torch.promote_types(x.dtype, torch.float32))
        for parts in self.uses:
            x = self.layer(parts, x, x0, run)
        return self.head(x if logits == "all" else x[:, -1:])

    def head(self, x: Float[Tensor, "b p d"]) -> Float[Tensor, "b p vocab"]:
        """The final norm, then the product with the head's weight, which may be the embedding's."""
        norm, head = (self.get_submodule(name) for name, _ in self.spec.after)
        return linear(norm(x), head.weight, getattr(head, "bias", None))

    def new_cache(self, b: int, size: int) -> Cache:
        """An empty cache for `b` sequences of at most `size` tokens, beside the weights."""
        weight = self.get_submodule(self.spec.before[0][0]).weight
        return Cache.of(self.spec, b, size, weight.dtype, weight.device)


def attach(root: nn.Module, name: str, module: nn.Module) -> None:
    """Register `module` under a dotted name, with empty modules on the way and a list of layers."""
    *path, last = name.split(".")
    for part in path:
        if not isinstance(getattr(root, part, None), nn.Module):
            root.add_module(part, nn.ModuleList() if part == "layers" else nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)
