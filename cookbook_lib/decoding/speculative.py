"""Speculative decoding: a small model proposes tokens, a large one checks them all in one pass.

arXiv:2211.17192, algorithm 1: what comes out has the distribution of the large model alone. A token
that is refused has to leave both caches again. Keys and values leave by their length. States go
back to a snapshot from before the proposals, and read the accepted tokens once more: together with
the next proposals while they are few, else in a pass of their own. Axes: k proposals, v vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cookbook_lib.blocks.cache import Cache
from cookbook_lib.blocks.models import LanguageModel
from cookbook_lib.decoding.sampling import Sampling, probabilities
from cookbook_lib.decoding.snapshots import only_grows, restore, rewind, snapshot


@dataclass
class Counts:
    """What a run did. passes: of the large model. read, again: tokens that it read, and those of
    them that it had read before. snapshot_bytes: copied by both models in all."""

    proposed: int = 0
    accepted: int = 0
    passes: int = 0
    read: int = 0
    again: int = 0
    snapshot_bytes: int = 0

    @property
    def acceptance(self) -> float:
        return self.accepted / self.proposed if self.proposed else 0.0


class Reader:
    """A model with its cache and the tokens that it has yet to read."""

    def __init__(self, model: LanguageModel, prompt: Int[Tensor, "1 l"], size: int, counts: Counts):
        self.model, self.counts = model, counts
        self.cache: Cache = model.new_cache(1, size)
        self.pending, self.device = prompt[0].tolist(), prompt.device

    def read(self, ids: list[int]) -> Float[Tensor, "k v"]:
        return self.model(torch.tensor([ids], device=self.device), self.cache)[0]

    def settle(self, most: int) -> bool:
        """Read what is sure, but for the last token, in a pass of its own if it is too much."""
        if long := len(self.pending) > most:
            self.read(self.pending[:-1])
            self.pending = self.pending[-1:]
        return long

    def mark(self) -> None:
        if not only_grows(self.cache):
            self.cache.marks.clear()
            self.counts.snapshot_bytes += snapshot(self.cache).nbytes

    def back(self, read: list[int], sure: int) -> None:
        """Of the tokens `read` since the mark only the first `sure` stay."""
        if sure == len(read):
            self.pending = []
        elif only_grows(self.cache):
            rewind(self.cache, len(read) - sure)
            self.pending = []
        else:
            restore(self.cache, self.cache.marks[-1])
            self.pending = read[:sure]


@torch.inference_mode()
def speculate(
    model: LanguageModel,
    draft: LanguageModel,
    prompt: Int[Tensor, "1 l"],
    max_tokens: int,
    how: Sampling | None = None,
    *,
    k: int = 4,
    seed: int = 0,
    counts: Counts | None = None,
) -> Iterator[int]:
    """The next `max_tokens` tokens after one prompt, as `model` alone would choose them.

    k: tokens that `draft` proposes at a time. counts: filled with what was done.
    """
    if k < 1 or max_tokens < 1:
        raise ValueError(f"k is {k} and max_tokens {max_tokens}, expected both at least 1")
    if len(prompt) != 1 or not prompt.shape[1]:
        raise ValueError(f"the prompt is {tuple(prompt.shape)}, expected one of at least one token")
    how, counts = how or Sampling(), counts or Counts()
    random = torch.Generator(prompt.device).manual_seed(seed)
    size = prompt.shape[1] + max_tokens + 2 * k + 2
    large, small = (Reader(m, prompt, size, c) for m, c in ((model, counts), (draft, counts)))
    for reader in (large, small):
        reader.settle(1)
    done = 0
    while done < max_tokens:
        small.settle(2 * k)
        sure = list(small.pending)
        drafts, q = propose(small, k, how, random)
        waiting = len(large.pending)
        counts.again += waiting - 1
        if large.settle(2 * k):
            counts.passes, counts.read = counts.passes + 1, counts.read + waiting - 1
        large.mark()
        start = len(large.pending)
        p = probabilities(large.read(large.pending + drafts)[start - 1 :], how)
        new = verify(p, q, drafts, random)
        counts.proposed, counts.accepted = counts.proposed + k, counts.accepted + len(new) - 1
        counts.passes, counts.read = counts.passes + 1, counts.read + start + k
        large.back(large.pending + drafts, start + len(new) - 1)
        small.back(sure + drafts[:-1], len(sure) + min(len(new), k) - 1)
        large.pending.append(new[-1])
        small.pending += new[-2:] if len(new) > k else new[-1:]  # its last proposal it never read
        yield from new[: max_tokens - done]
        done += len(new)


def propose(
    small: Reader, k: int, how: Sampling, random: torch.Generator
) -> tuple[list[int], Float[Tensor, "k v"]]:
    """k tokens of the draft, and the distributions that they were drawn from."""
    small.mark()
    drafts, rows = [], []
    for _ in range(k):
        rows.append(probabilities(small.read(small.pending)[-1:], how))
        small.pending = [torch.multinomial(rows[-1][0], 1, generator=random).item()]
        drafts += small.pending
    return drafts, torch.cat(rows)


def verify(
    p: Float[Tensor, "k1 v"], q: Float[Tensor, "k v"], drafts: list[int], random: torch.Generator
) -> list[int]:
    """The proposals that are kept, and one token more, of the large model itself.

    Proposal x is kept with probability min(1, p(x) / q(x)); in place of the first that is not comes
    a token from the part of p that q does not cover.
    """
    chances = torch.rand(len(drafts), generator=random, device=p.device)
    for i, x in enumerate(drafts):
        if chances[i] * q[i, x] >= p[i, x]:
            rest = (p[i] - q[i]).clamp(min=0)
            return [*drafts[:i], torch.multinomial(rest, 1, generator=random).item()]
    return [*drafts, torch.multinomial(p[-1], 1, generator=random).item()]
