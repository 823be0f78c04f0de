"""The bytes of all tensors that are alive while PyTorch runs, on any device, and their peak.

What an operation allocates for itself and frees before it returns is not seen.
"""

from weakref import finalize

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tracked(TorchDispatchMode):
    """Counts storages from the first operation that returns them until they are freed.

    live: bytes alive now. peak: the most there were. Use it as a context.
    """

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves((args, kwargs)):  # what was there before is no news
            if isinstance(t, Tensor):
                self.see(t, new=False)
        for t in tree_leaves(out):
            if isinstance(t, Tensor):
                self.see(t, new=True)
        return out

    def see(self, t: Tensor, new: bool) -> None:
        storage = t.untyped_storage()
        if (key := storage._cdata) in self.known:
            return
        size = storage.nbytes() if new else 0
        self.known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        finalize(storage, self.forget, key, size)

    def forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


def tracked_peak(run) -> int:
    """Bytes that a call holds at most in tensors that it makes."""
    with torch.enable_grad(), Tracked() as tracked:
        run()
    return tracked.peak


def peak_bytes(run, device: str) -> int:
    """The same by PyTorch's allocator on a GPU, where it knows better."""
    if device != "cuda":
        return tracked_peak(run)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
