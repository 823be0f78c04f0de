"""Modules whose parts carry the names that their spec says the checkpoint gives them."""

from torch import Tensor, nn

from cookbook_lib.calculators.costs import Block


class Named(nn.Module):
    """An `nn.Module` built from a spec; `add` and `part` speak the spec's names.

    The spec of Phi-3's attention may call `o_proj` `dense`: then the parameter is `dense.weight`,
    and `part("o_proj")` still finds it.
    """

    def __init__(self, spec: Block):
        super().__init__()
        self.spec = spec

    def add(self, name: str, part: nn.Module) -> None:
        """Register `part` under the checkpoint's name for `name`."""
        self.add_module(self.spec.renamed(name), part)

    def part(self, name: str) -> nn.Module:
        """The part that the spec calls `name`."""
        name = self.spec.renamed(name)
        return self.get_submodule(name) if "." in name else self._modules[name]

    def add_weight(self, name: str, values: Tensor) -> None:
        """Register a parameter under the checkpoint's name for `name`, dotted or not."""
        *path, last = self.spec.renamed(name).split(".")
        parent = self
        for child in path:
            if not hasattr(parent, child):
                parent.add_module(child, nn.Module())
            parent = getattr(parent, child)
        parent.register_parameter(last, nn.Parameter(values))

    def weight(self, name: str) -> nn.Parameter:
        """The parameter that the spec calls `name`."""
        return self.get_parameter(self.spec.renamed(name))
