"""Cutting a sequence into chunks, and which tokens of a chunk belong together.

Axes: b batch, l tokens, c chunks, q and k positions in a chunk.
"""

from collections.abc import Callable
from functools import wraps
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor


def unrounded(scan: Callable) -> Callable:
    """Keep autocast outside a scan, whose products are as exact as the tensors that it is given."""

    @wraps(scan)
    def run(*args, **kwargs):
        device = args[0].device.type
        if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
            return scan(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return scan(*args, **kwargs)

    return run


def in_chunks(x: Tensor, size: int) -> Tensor:
    """(b l ...) to (b c size ...), the last chunk filled with zeros."""
    x = F.pad(x, (0, 0) * (x.ndim - 2) + (0, -x.shape[1] % size))
    return x.unflatten(1, (-1, size))


class Documents(NamedTuple):
    """Which parts of a chunk see each other, when documents are packed in one sequence."""

    pairs: Bool[Tensor, "b c q k"]  # both tokens are of one document
    start: Bool[Tensor, "b c q"]  # the token's document began before this chunk
    end: Bool[Tensor, "b c k"]  # the token's document is that of the chunk's last token
    through: Bool[Tensor, "b c"]  # one document covers the whole chunk and what was before it


def documents(seq_idx: Int[Tensor, "b l"], size: int) -> Documents:
    """From each token's document; an initial state belongs to the first token's."""
    fill = seq_idx[:, -1:].expand(-1, -seq_idx.shape[1] % size)
    idx = torch.cat([seq_idx, fill], 1).unflatten(1, (-1, size))
    before = torch.cat([idx[:, :1, 0], idx[:, :-1, -1]], 1)
    last = idx[..., -1]
    return Documents(
        pairs=idx[..., :, None] == idx[..., None, :],
        start=idx == before[..., None],
        end=idx == last[..., None],
        through=last == before,
    )
