"""The mean of checkpoints, taken one after the other: one sum is held, beside the last of them."""

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
        self.sums: dict[str, Tensor] = {}
        self.last: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, state: Mapping[str, Tensor]) -> None:
        """Take one more. `ValueError` if it has other names or shapes than those before."""
        shapes = {name: tensor.shape for name, tensor in state.items()}
        if self.count and shapes != {name: tensor.shape for name, tensor in self.last.items()}:
            names = {n for n in shapes.keys() | self.last.keys() if not self.alike(n, state)}
            raise ValueError(
                f"checkpoint {self.count + 1} differs from those before in {min(names)}: "
                "expected the same names and shapes"
            )
        for name, tensor in state.items():
            if not tensor.is_floating_point():
                continue
            wide = torch.promote_types(tensor.dtype, torch.float32)
            if name not in self.sums:
                self.sums[name] = torch.zeros_like(tensor, dtype=wide)
            self.sums[name] += tensor.to(wide)
        self.last = {name: tensor.detach() for name, tensor in state.items()}
        self.count += 1

    def alike(self, name: str, state: Mapping[str, Tensor]) -> bool:
        return name in state and name in self.last and state[name].shape == self.last[name].shape

    @torch.no_grad()
    def state_dict(self) -> dict[str, Tensor]:
        """The mean of all that were added."""
        if not self.count:
            raise ValueError("no checkpoint was added, expected at least one to average")
        return {
            name: (self.sums[name] / self.count).to(tensor.dtype)
            if name in self.sums
            else tensor.clone()
            for name, tensor in self.last.items()
        }
