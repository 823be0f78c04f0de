"""What autograd really keeps of a forward pass: the storages that its saved tensors lie in."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class Saved(NamedTuple):
    """What one forward pass keeps: a tensor for each distinct storage, and its result."""

    tensors: list[Tensor]
    result: object

    @property
    def nbytes(self) -> int:
        """Bytes of the storages, each counted once, however many views of it are saved."""
        return sum(t.untyped_storage().nbytes() for t in self.tensors)


def saved(run: Callable[[], object], but: Iterable[Tensor] = ()) -> Saved:
    """The tensors that a call saves for its backward pass, without those that lie in `but`'s.

    Give the weights as `but`: they are held anyway. Works on any device, `meta` too.
    """
    known = {key(t) for t in but}
    found: dict[int, Tensor] = {}

    def pack(t: Tensor) -> Tensor:
        if key(t) not in known:
            found.setdefault(key(t), t.detach())  # holds the storage, so that its key stays its own
        return t

    with saved_tensors_hooks(pack, lambda t: t):
        result = run()
    return Saved(list(found.values()), result)


def key(t: Tensor) -> int:
    return t.untyped_storage()._cdata
