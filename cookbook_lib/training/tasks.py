"""Small tasks that need memory, of kinds that attention and state-space layers solve unequally.

A task draws `(tokens, targets)`, both (b, l) whole numbers. `targets[:, i]` is what a model should
say after it has read `tokens[:, : i + 1]`, and IGNORE where it is not asked. All draws come from
the generator, so a seed fixes them.

    recall       k v k v … | k k k …        the value of each key, arXiv:2312.04927
    copying      . x . . y . | ? ? ?        the letters among the noise, in order, arXiv:2312.00752
    induction    a b S x c d … S            what followed S the last time, arXiv:2209.11895
    phonebook    name number … | name       the digits of one name's number, arXiv:2402.01032
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

IGNORE = -100  # torch's cross_entropy leaves these out
Batch = tuple[Tensor, Tensor]


def shuffled(b: int, n: int, g: Generator) -> Tensor:
    """(b, n): a permutation of 0 … n - 1 in each row."""
    return torch.rand(b, n, generator=g).argsort(-1)


def draw(b: int, n: int, below: int, g: Generator) -> Tensor:
    """(b, n): whole numbers from 0 to `below` - 1."""
    return torch.randint(below, (b, n), generator=g)


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Associative recall: `pairs` of a key and a value, then every key in another order."""

    pairs: int = 16
    keys: int = 64
    values: int = 64

    def __post_init__(self):
        if self.pairs > self.keys:
            raise ValueError(f"pairs is {self.pairs}, expected at most keys ({self.keys})")

    vocab = property(lambda self: self.keys + self.values)
    length = property(lambda self: 3 * self.pairs)

    def sample(self, b: int, g: Generator) -> Batch:
        keys = shuffled(b, self.keys, g)[:, : self.pairs]
        values = self.keys + draw(b, self.pairs, self.values, g)
        order = shuffled(b, self.pairs, g)
        book = torch.stack([keys, values], -1).flatten(1)
        tokens = torch.cat([book, keys.gather(1, order)], 1)
        targets = torch.full_like(tokens, IGNORE)
        targets[:, 2 * self.pairs :] = values.gather(1, order)
        return tokens, targets


@dataclass(frozen=True, kw_only=True)
class Copying:
    """Selective copying: `letters` scattered among noise, to be said in order at the end."""

    letters: int = 8
    span: int = 48
    alphabet: int = 16

    def __post_init__(self):
        if self.letters > self.span:
            raise ValueError(f"letters is {self.letters}, expected at most span ({self.span})")

    vocab = property(lambda self: self.alphabet + 2)  # and noise, and the question
    length = property(lambda self: self.span + self.letters)

    def sample(self, b: int, g: Generator) -> Batch:
        letters = draw(b, self.letters, self.alphabet, g)
        places = shuffled(b, self.span, g)[:, : self.letters].sort(-1).values
        tokens = torch.full((b, self.length), self.alphabet)
        tokens[:, self.span :] = self.alphabet + 1
        tokens.scatter_(1, places, letters)
        targets = torch.full_like(tokens, IGNORE)
        targets[:, self.span :] = letters
        return tokens, targets


@dataclass(frozen=True, kw_only=True)
class Induction:
    """Induction: a mark stands once in the sequence and again at its end; say what followed it."""

    span: int = 62
    alphabet: int = 32

    vocab = property(lambda self: self.alphabet + 1)
    length = property(lambda self: self.span + 1)

    def sample(self, b: int, g: Generator) -> Batch:
        mark = self.alphabet
        tokens = torch.cat([draw(b, self.span, self.alphabet, g), torch.full((b, 1), mark)], 1)
        place = draw(b, 1, self.span - 1, g)
        tokens.scatter_(1, place, mark)
        targets = torch.full_like(tokens, IGNORE)
        targets[:, -1:] = tokens.gather(1, place + 1)
        return tokens, targets


@dataclass(frozen=True, kw_only=True)
class Phonebook:
    """A phone book: names of two tokens with numbers; then one name, and its number to say."""

    entries: int = 8
    names: int = 16  # tokens that first and last names are made of
    digits: int = 3

    def __post_init__(self):
        if self.entries > self.names**2:
            raise ValueError(f"entries is {self.entries}, expected at most {self.names**2} names")

    vocab = property(lambda self: self.names + 10)
    length = property(lambda self: self.entries * (2 + self.digits) + 2 + self.digits - 1)

    def sample(self, b: int, g: Generator) -> Batch:
        code = shuffled(b, self.names**2, g)[:, : self.entries]
        name = torch.stack([code // self.names, code % self.names], -1)
        number = self.names + draw(b, self.entries * self.digits, 10, g).unflatten(
            1, (-1, self.digits)
        )
        book = torch.cat([name, number], -1)
        asked = draw(b, 1, self.entries, g)[..., None].expand(-1, -1, 2 + self.digits)
        entry = book.gather(1, asked)[:, 0]
        tokens = torch.cat([book.flatten(1), entry[:, :-1]], 1)
        targets = torch.full_like(tokens, IGNORE)
        targets[:, -self.digits :] = entry[:, 2:]
        return tokens, targets


Task = Recall | Copying | Induction | Phonebook
TASKS: dict[str, Callable[[], Task]] = {
    "recall": Recall,
    "copying": Copying,
    "induction": Induction,
    "phonebook": Phonebook,
}
