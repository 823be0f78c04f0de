"""Prose of recipes, written as Jupyter reads it, as Python-Markdown reads it."""

import re
from collections.abc import Iterator

FENCE = re.compile(r"(`{3,}|~{3,})")
LIST_ITEM = re.compile(r"(?:[-*+]|\d+\.) ")
ONE_LINE_FORMULA = re.compile(r"\$\$.+\$\$[.,]?\s*")
RECIPE = re.compile(r"\]\((?:\.\./recipes/)?(\d{3}_\w+)\.py([#)])")  # as GitHub and editors read it
DOCS = re.compile(r"\]\((?:\.\./)+docs/")


def linked(markdown: str) -> str:
    """Links to scripts and to `../docs/` become links to pages."""
    return DOCS.sub("](../", RECIPE.sub(r"](\1.md\2", markdown))


def from_root(markdown: str) -> str:
    """A recipe's links to scripts and to `../docs/`, for a page beside the first one."""
    return DOCS.sub("](", RECIPE.sub(r"](recipes/\1.md\2", markdown))


def spaced(markdown: str) -> str:
    """A blank line before each list and around each displayed formula, outside of code."""
    return "\n".join(lines(markdown))


def lines(markdown: str) -> Iterator[str]:
    fence, formula, before = "", False, ""
    for line in markdown.split("\n"):
        mark = FENCE.match(line)
        if fence:
            if line.strip() == fence:
                fence = ""
        elif mark:
            fence = mark[1]
        elif line.startswith("$$"):
            opens = not formula
            formula = opens and not ONE_LINE_FORMULA.fullmatch(line)
            if opens and before.strip():
                yield ""
            if not formula:  # the formula ends here
                yield from (line, "")
                before = ""
                continue
        elif not formula and starts_list(line, before):
            yield ""
        yield line
        before = line


def starts_list(line: str, before: str) -> bool:
    inside = LIST_ITEM.match(before) or before.startswith(" ")
    return bool(LIST_ITEM.match(line) and before.strip() and not inside)
