"""Rows of a batch: sequences that fork, and sequences of different lengths that come and go.

A batch whose rows differ keeps a length for each row, on the device. So a sequence that ends gives
its row to another while the rest go on: continuous batching. A prompt is read apart and then put
into its row: padding on the right would push a convolution's last inputs out of its state.
"""

import torch

from cookbook_lib.blocks.cache import Cache
from cookbook_lib.decoding.snapshots import uniform


def fork(cache: Cache, n: int) -> Cache:
    """A new cache in which each sequence goes on `n` times, side by side."""
    if n < 1:
        raise ValueError(f"n is {n}, expected at least 1")
    uniform(cache, "a fork")
    states: dict[str, dict[str, torch.Tensor]] = {use: {} for use in cache.states}
    for (use, name), t in cache.tensors():
        states[use][name] = t.repeat_interleave(n, 0)
    valid = None if cache.valid is None else cache.valid.repeat_interleave(n, 0)
    return Cache(states, cache.size, cache.slots, cache.length, valid)


def ragged(cache: Cache) -> Cache:
    """The same cache, from now on with a length for each row. Its snapshots are void."""
    if cache.valid is not None:
        raise ValueError("the cache has padding, expected none where each row has a length")
    b, device = next((len(t), t.device) for _, t in cache.tensors())
    cache.lengths = torch.full((b,), cache.length, device=device)
    cache.marks.clear()
    return cache


def put(cache: Cache, row: int, other: Cache, other_row: int = 0) -> None:
    """Replace a row of a ragged cache by a sequence of another cache of the same model."""
    if cache.lengths is None or other.lengths is not None or other.valid is not None:
        raise ValueError("put takes a ragged cache, and one without lengths and padding to read")
    if other.size != cache.size:  # a window's ring has as many slots as tokens may come
        raise ValueError(f"the row has room for {cache.size} tokens, expected {other.size}")
    for (use, name), t in cache.tensors():
        source, axis = other.states[use][name][other_row], cache.slots.get((use, name))
        into = t[row]
        if axis is not None:
            into, source = (x.narrow(axis - 1, 0, other.length) for x in (into, source))
        into.copy_(source)
    cache.lengths[row] = other.length
    cache.length = max(cache.length, other.length)


def clear(cache: Cache) -> None:
    """Forget everything and keep the memory, for the next prompt."""
    for key, t in cache.tensors():
        if key not in cache.slots:
            t.zero_()
    cache.length, cache.valid, cache.lengths = 0, None, None
    cache.marks.clear()


def longest(cache: Cache) -> None:
    """Look at no more slots than rows need, after a long one has left; waits for the device."""
    cache.length = int(cache.lengths.max())
