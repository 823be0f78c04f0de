"""Each task can be solved from what is shown, by a rule that reads only the tokens so far."""

import pytest
import torch

from cookbook_lib.training.tasks import IGNORE, Copying, Induction, Phonebook, Recall

TASKS = [
    Recall(pairs=5, keys=9, values=7),
    Copying(letters=4, span=9, alphabet=5),
    Induction(span=12, alphabet=6),
    Phonebook(entries=6, names=4, digits=3),
]


def solve(task, seen: list[int]) -> int:
    """The answer after the tokens seen, by the task's definition."""
    if isinstance(task, Recall):
        book = seen[: 2 * task.pairs]
        return dict(zip(book[::2], book[1::2], strict=True))[seen[-1]]
    if isinstance(task, Copying):
        letters = [t for t in seen if t < task.alphabet]
        return letters[seen.count(task.alphabet + 1) - 1]
    if isinstance(task, Induction):
        return seen[seen.index(task.alphabet) + 1]
    size = 2 + task.digits
    rest = seen[task.entries * size :]
    book = {
        tuple(seen[i : i + 2]): seen[i + 2 : i + size] for i in range(0, task.entries * size, size)
    }
    return book[tuple(rest[:2])][len(rest) - 2]


@pytest.mark.parametrize("task", TASKS, ids=lambda t: type(t).__name__)
def test_every_question_has_one_answer(task):
    tokens, targets = task.sample(50, torch.Generator().manual_seed(0))
    assert tokens.shape == targets.shape == (50, task.length)
    assert tokens.min() >= 0 and tokens.max() < task.vocab
    asked = (targets != IGNORE).nonzero().tolist()
    assert asked
    for row, i in asked:
        assert solve(task, tokens[row, : i + 1].tolist()) == targets[row, i]


@pytest.mark.parametrize("task", TASKS, ids=lambda t: type(t).__name__)
def test_a_seed_fixes_the_draw(task):
    first, again, other = (task.sample(4, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_sizes_that_do_not_fit_are_refused():
    for make, words in [
        (lambda: Recall(pairs=9, keys=8), "pairs is 9, expected at most keys"),
        (lambda: Copying(letters=9, span=8), "letters is 9, expected at most span"),
        (lambda: Phonebook(entries=9, names=2), "entries is 9, expected at most 4"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()
