"""What a recipe says of itself, read from its script: title, goal, length, links and problems."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import jupytext
from nbformat import NotebookNode

from cookbook_lib.publishing.prose import RECIPE
from cookbook_lib.publishing.recipes import Recipe, recipes

WORDS_A_MINUTE = 230
GOAL = re.compile(r"\*\*Goal\.\*\*\s+(.*?)\s+\*\*Needs\*\*\s+an?\s+(\w+)", re.DOTALL)
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
HEADING = re.compile(r"^#+ (.*)\n*", re.MULTILINE)
NUMBER = re.compile(r"^\*\*\d+\.\*\* ", re.MULTILINE)
BUG = re.compile(r"^## Find the ", re.MULTILINE)
ANSWER = "answer"
NO_CELL = NotebookNode(cell_type="raw", metadata={})


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A question with a folded answer. code: what the answer runs; anchor: where it is."""

    anchor: str
    question: str
    bug: bool
    code: str


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """A recipe as a reader meets it. needs: a CPU or a GPU; builds_on: earlier ones it links to."""

    name: str
    title: str
    goal: str
    needs: str
    words: int
    builds_on: tuple[str, ...]
    problems: tuple[Problem, ...]

    number = property(lambda self: self.name[:3])
    minutes = property(lambda self: max(1, round(self.words / WORDS_A_MINUTE)))


@cache
def chapters(root: Path) -> tuple[Chapter, ...]:
    """All chapters in reading order. `ValueError` for one without a title or a goal."""
    return tuple(map(chapter, recipes(root)))


def chapter(recipe: Recipe) -> Chapter:
    cells = jupytext.read(recipe.source, fmt="py:percent").cells
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    title, goal = TITLE.search(prose), GOAL.search(prose)
    if not (title and goal):
        raise ValueError(
            f"recipes/{recipe.name}.py: expected a title, **Goal.** and **Needs** a CPU (or a GPU)"
        )
    linked = dict.fromkeys(name for name, _ in RECIPE.findall(prose))
    return Chapter(
        name=recipe.name,
        title=title[1].strip(),
        goal=" ".join(goal[1].split()),
        needs=goal[2],
        words=sum(len(cell.source.split()) for cell in cells),
        builds_on=tuple(sorted(name for name in linked if name < recipe.name)),
        problems=tuple(problems(cells)),
    )


def problems(cells: list[NotebookNode]) -> Iterator[Problem]:
    """Each fold of answers with the text before it; the template numbers the folds likewise."""
    asked, folds = None, []
    for before, cell in pairwise([NO_CELL, *cells]):
        if ANSWER not in tags(cell):
            asked = cell if cell.cell_type == "markdown" else asked
        elif ANSWER not in tags(before) or cell.metadata.get("title"):
            folds.append((asked, [cell]))
        else:
            folds[-1][1].append(cell)
    for number, (asked, fold) in enumerate(folds, 1):
        yield Problem(
            anchor=f"problem-{number}",
            question=question(asked.source),
            bug="bug" in tags(asked) or bool(BUG.search(asked.source)),
            code="\n".join(cell.source for cell in fold if cell.cell_type == "code"),
        )


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def question(markdown: str) -> str:
    """The text of a problem without its heading, its number and what the cell says before it."""
    parts = NUMBER.split(markdown)
    if len(parts) == 1:
        parts = HEADING.split(markdown)
    return parts[-1].strip()
