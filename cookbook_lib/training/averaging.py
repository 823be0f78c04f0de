"""The mean of checkpoints, taken one after the other: nothing is held but their sum."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Average:
    """A running mean of state dicts.

    Sums are float32, or float64 where the weights are, so that bf16 weights are not rounded at each
    step; `state_dict()` gives them back in their own dtype. What is not floating point, such as a
    count of steps, is that of the last checkpoint.
    """

    def __init__(self):
        self.count = 0
        self.kinds: dict[str, tuple[torch.Size, torch.dtype]] = {}
        self.kept: dict[str, Tensor] = {}  # sums, or the last value

    @torch.no_grad()
    def add(self, state: Mapping[str, Tensor]) -> None:
        """Take one more. `ValueError` if it has other names, shapes or dtypes than the first."""
        kinds = {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}
        if self.count and kinds != self.kinds:
            other = {n for n in kinds.keys() | self.kinds if kinds.get(n) != self.kinds.get(n)}
            raise ValueError(
                f"checkpoint {self.count + 1} differs from those before in {min(other)}: "
                "expected the same names, shapes and dtypes"
            )
        self.kinds = kinds
        for name, tensor in state.items():
            if not tensor.is_floating_point():
                self.kept[name] = tensor.clone()
            elif name in self.kept:
                self.kept[name] += tensor
            else:
                wide = torch.promote_types(tensor.dtype, torch.float32)
                self.kept[name] = tensor.to(wide, copy=True)
        self.count += 1

    @torch.no_grad()
    def state_dict(self) -> dict[str, Tensor]:
        """The mean of all that were added."""
        if not self.count:
            raise ValueError("no checkpoint was added, expected at least one to average")
        return {
            name: (self.kept[name] / self.count).to(dtype)
            if dtype.is_floating_point
            else self.kept[name].clone()
            for name, (_, dtype) in self.kinds.items()
        }
