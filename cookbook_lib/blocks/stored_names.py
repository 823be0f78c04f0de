"""Where a stored tensor goes: checkpoints carry the model's names, with a few exceptions.

- transformers keeps the experts of a layer in one tensor and stores them one by one; Mixtral's are
  called w1 (gate), w3 (up) and w2 (down).
- A shared block or a tied head may be stored at each of its uses: copies of one original.
- Zyphra's code stores a LoRA for every use in every shared block, also in those that it never uses.
"""

import re
from typing import NamedTuple

import torch

from cookbook_lib.calculators.model import Model

RENAMED = (
    (".block_sparse_moe.", ".mlp."),  # Mixtral
    ("embedding.word_embeddings.", "embedding."),  # BlackMamba
    ("backbone.embedding.", "backbone.embeddings."),  # Mamba, before it was in transformers
)
EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj|w1|w3|w2)\.weight")
PARTS = {
    **{"gate_proj": ("gate_up_proj", 0), "up_proj": ("gate_up_proj", 1)},
    **{"w1": ("gate_up_proj", 0), "w3": ("gate_up_proj", 1)},
    **{"down_proj": ("down_proj", None), "w2": ("down_proj", None)},
}
UNUSED = re.compile(r"(.*_adapter_list)\.\d+\.[01]\.weight")
NOT_WEIGHTS = ".rotary_emb.inv_freq"  # old Llamas store the speeds of their positions

Shapes = dict[str, tuple[int, ...]]  # parameter -> its shape


class Place(NamedTuple):
    """A parameter, or a part of one: expert `expert`, and of gate and up the half `half`."""

    name: str
    expert: int | None = None
    half: int | None = None

    def of(self, whole: torch.Tensor) -> torch.Tensor:
        """The view of the parameter that the stored tensor fills."""
        part = whole if self.expert is None else whole[self.expert]
        return part if self.half is None else part.chunk(2, 0)[self.half]


def place(name: str, shapes: Shapes) -> Place | None:
    """Where the tensor of this name goes; None if the model has no use for it."""
    for old, new in (("", ""), *RENAMED):
        renamed = name.replace(old, new, 1)
        if renamed in shapes:
            return Place(renamed)
        if found := EXPERT.fullmatch(renamed):
            experts, number, kind = found.groups()
            weight, half = PARTS[kind]
            whole = f"{experts}.{weight}"
            if whole in shapes and int(number) < shapes[whole][0]:
                return Place(whole, int(number), half)
    return None


def original(name: str, spec: Model) -> str:
    """The name under which the model keeps what is stored here as a copy; else the name itself."""
    for copy, kept in copies(spec).items():
        if name.startswith(copy):
            return kept + name.removeprefix(copy)
    return name


def copies(spec: Model) -> dict[str, str]:
    """Where a checkpoint may hold a copy: the later uses of shared blocks, and a tied head."""
    found = {}
    for i, letter in enumerate(spec.pattern):
        first = spec.pattern.index(letter)
        for name, _ in spec.letters[letter]:
            if "{first}" in name and i != first:
                shared = name.partition("{use}")[0]
                found[shared.format(first=i) + "."] = shared.format(first=first) + "."
    (embedding, _), (head, _) = spec.before[0], spec.after[-1]
    if head == embedding:
        found |= {"lm_head.": f"{embedding}.", "output_layer.": f"{embedding}."}
    return found


def ignored(name: str, shapes: Shapes) -> bool:
    """Whether a tensor without a place is known to be of no use."""
    if name.endswith(NOT_WEIGHTS):
        return True
    found = UNUSED.fullmatch(name)
    return bool(found) and any(kept.startswith(f"{found[1]}.") for kept in shapes)
