"""Generation: read the prompt at once, then write one token at a time. Axes: b, l prompt."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from cookbook_lib.blocks.models import LanguageModel
from cookbook_lib.decoding.sampling import Sampling, sample


@torch.inference_mode()
def generate(
    model: LanguageModel,
    tokens: Int[Tensor, "b l"],
    max_tokens: int,
    how: Sampling | None = None,
    *,
    seed: int = 0,
    stop: tuple[int, ...] = (),
    mask: Bool[Tensor, "b l"] | None = None,
) -> Iterator[Int[Tensor, " b"]]:
    """The next token of each sequence, as soon as it is known, at most `max_tokens` times.

    stop: tokens that end a sequence; it goes on with that token until all have ended.
    mask: False for padding on the left of shorter prompts. The last token yielded is never read.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}, expected at least 1")
    if not tokens.shape[1]:
        raise ValueError("the prompt has no tokens, expected at least 1 to go on from")
    how = how or Sampling()
    random = torch.Generator(tokens.device).manual_seed(seed)
    ends = torch.tensor(stop, dtype=tokens.dtype, device=tokens.device)
    cache = model.new_cache(len(tokens), tokens.shape[1] + max_tokens - 1)
    logits = model(tokens, cache, mask=mask, logits="last")
    done = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    last = tokens[:, -1]
    for i in range(max_tokens):
        last = torch.where(done, last, sample(logits[:, -1], how, random))
        yield last
        done = done | torch.isin(last, ends)
        if i + 1 == max_tokens or done.all():
            return
        logits = model(last[:, None], cache)
