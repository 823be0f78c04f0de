"""One decoding step after the other, on a GPU as a CUDA graph: recorded once, then replayed.

A graph repeats the same kernels on the same memory. So the cache has a length for each row on the
device (`rows.ragged`), attention looks at a fixed number of slots and masks the rest, and the token
lies in a fixed place. When rows outgrow that number of slots, the step is recorded again.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cookbook_lib.blocks.cache import STRIDE, Cache
from cookbook_lib.blocks.models import LanguageModel


class Steps:
    """Logits after one more token for each row; `cache` is ragged, and on the model's device."""

    def __init__(self, model: LanguageModel, cache: Cache):
        if cache.lengths is None:
            raise ValueError("the cache has one length, expected one for each row: rows.ragged")
        self.model, self.cache = model, cache
        self.tokens = torch.zeros(len(cache.lengths), 1, dtype=torch.long, device=self.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.reach, self.logits = 0, torch.empty(0)

    @property
    def device(self) -> torch.device:
        return self.cache.lengths.device

    @torch.inference_mode()
    def __call__(self, tokens: Int[Tensor, " b"]) -> Float[Tensor, "b vocab"]:
        """The result's memory is used again by the next call."""
        if self.device.type != "cuda":
            return self.model(tokens[:, None], self.cache)[:, -1]
        self.tokens.copy_(tokens[:, None])
        reach = -(-(self.cache.length + 1) // STRIDE)
        if self.graph is None or reach != self.reach:
            self.record(reach)
        length = self.cache.length + 1
        if length > self.cache.size:
            self.cache.advance(1, None)  # says that there is no room
        self.graph.replay()
        self.cache.length = length
        return self.logits[:, -1]

    def record(self, reach: int) -> None:
        """Run once to warm up, put back what that changed, and record: which runs nothing."""
        cache, length = self.cache, self.cache.length
        changed = [t for key, t in cache.tensors() if key not in cache.slots] + [cache.lengths]
        before = [t.clone() for t in changed]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.model(self.tokens, cache)
        torch.cuda.current_stream().wait_stream(stream)
        for t, old in zip(changed, before, strict=True):
            t.copy_(old)
        cache.length = length
        self.graph, self.reach = torch.cuda.CUDAGraph(), reach
        with torch.cuda.graph(self.graph):
            self.logits = self.model(self.tokens, cache)
        cache.length = length
