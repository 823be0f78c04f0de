"""Losses on held-out text: the same sequences for every model that is compared."""

import numpy as np
import torch

from cookbook_lib.blocks.models import LanguageModel
from cookbook_lib.data.python_corpus import Corpus
from cookbook_lib.data.streams import Stream
from cookbook_lib.training.loop import summed
from cookbook_lib.training.sampling import IGNORE, Batch, packed


class Exam:
    """`asked` sequences of each source, from all over what a corpus holds out.

    Documents are masked as in training: no token is predicted from another document.
    """

    def __init__(self, corpus: Corpus, length: int, asked: int):
        self.asked: dict[str, Batch] = {}
        for name, shards in corpus.held_out.items():
            stream = Stream(name, shards, length)
            read = [stream[n] for n in range(asked)]
            self.asked[name] = Batch(*packed(read), sources=np.zeros(asked, int))

    @torch.no_grad()
    def losses(self, model: LanguageModel, part: int | None = None) -> dict[str, float]:
        """Nats a token, by source; `part` sequences at once, all if None."""
        return {name: self.loss(model, asked, part) for name, asked in self.asked.items()}

    def loss(self, model: LanguageModel, asked: Batch, part: int | None) -> float:
        n, cpu = len(asked.tokens), torch.device("cpu")
        part = part or n
        parts = (slice(start, start + part) for start in range(0, n, part))
        total = sum(float(summed(model, asked, rows, cpu)) for rows in parts)
        return total / int((asked.targets != IGNORE).sum())
