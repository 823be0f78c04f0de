"""The KV cache of one attention layer: preallocated keys and values, written in place.

The cache is a ring: the token at position p lies in slot p % c. Full attention has a slot for
every token and never wraps; a window layer has window - 1 slots, and the oldest token gives way.
Axes: b batch, l new tokens, s keys at hand, c slots, g key heads, k head_dim, w that of
values.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

Start = int | Int[Tensor, ""] | Int[Tensor, " b"]  # tokens that the cache holds already


def held(start: Start, slots: int, device=None) -> Int[Tensor, "b c"]:
    """The position of the token in each slot of a ring; negative where there is none yet."""
    last = torch.as_tensor(start, device=device).reshape(-1, 1) - 1
    return last - (last - torch.arange(slots, device=device)) % max(slots, 1)


def write(
    cache: Float[Tensor, "b g c k"],
    new: Float[Tensor, "b g l k"],
    positions: Int[Tensor, "#b l"],
    start: Start,
    ring: bool,
) -> None:
    """Put each token in its slot; of more tokens than slots only the last remain."""
    if not (slots := cache.shape[2]):
        return
    if isinstance(start, int) and not ring:
        cache[:, :, start : start + new.shape[2]] = new
        return
    at, new = positions[:, -slots:], new[:, :, -slots:].to(cache.dtype)
    at = at % slots if ring else at  # past the end of a cache that is no ring: an index error
    if len(at) == 1:
        cache.index_copy_(2, at[0], new)
    else:
        rows = torch.arange(len(at), device=at.device)[:, None]
        cache[rows, :, at] = new.transpose(1, 2)


def extend(
    state: dict[str, Tensor],
    k: Float[Tensor, "b g l k"],
    v: Float[Tensor, "b g l w"],
    positions: Int[Tensor, "#b l"],
    start: Start,
    window: int | None = None,
) -> tuple[Float[Tensor, "b g s k"], Float[Tensor, "b g s w"], Int[Tensor, "#b s"]]:
    """Write the new tokens to the cache; return all keys and values at hand and their positions.

    start: a number while all sequences are equally long; a tensor, one for each sequence, looks at
    every slot and leaves it to the mask to hide those that are empty.
    """
    (slots, new), counted = (state["k"].shape[2], k.shape[2]), isinstance(start, int)
    ring = window is not None and slots >= window - 1
    if not ring and counted and start + new > slots:
        raise ValueError(
            f"the cache has {slots} slots, expected {start + new}: allocate it with "
            "spec.states(b, s) for the longest context s"
        )
    if ring:  # a new token may take the place of one that another still sees: read first
        n = min(start, slots) if counted else slots
        at = held(start, slots, k.device)[:, :n].expand(len(positions), -1)
        at = torch.cat([at, positions], 1)
        keys = torch.cat([state["k"][:, :, :n].to(k.dtype), k], 2)
        values = torch.cat([state["v"][:, :, :n].to(v.dtype), v], 2)
    write(state["k"], k, positions, start, ring)
    write(state["v"], v, positions, start, ring)
    if ring:
        return keys, values, at
    n = start + new if counted else slots
    at = torch.arange(n, device=k.device)[None]
    return state["k"][:, :, :n].to(k.dtype), state["v"][:, :, :n].to(v.dtype), at
