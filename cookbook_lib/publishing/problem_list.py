"""The page of all problems: each question with the place of its answer, chapter by chapter."""

from collections.abc import Iterator

from cookbook_lib.publishing.boxes import many
from cookbook_lib.publishing.chapter_map import Parts
from cookbook_lib.publishing.chapters import Chapter, Problem
from cookbook_lib.publishing.prose import from_root


def page(book: Parts) -> str:
    """The page as Markdown."""
    of = [c for part in book.values() for c in part]
    every = [p for c in of for p in c.problems]
    top = [
        "---\ndescription: All exercises of the book, with folded answers that are executed\n---",
        "# Problems",
        f"{many(len(every), 'problem')} with folded answers. The answers are cells like any other: "
        "they are executed, and they assert what they claim. In "
        f"{sum(p.bug for p in every)} there is a bug to find; where it is from a public program, "
        "repository and commit are named. Answer first, then unfold.",
    ]
    return "\n\n".join([*top, *(line for part in book for line in listed(part, book[part]))])


def listed(title: str, of: list[Chapter]) -> Iterator[str]:
    yield f"## {title}"
    for c in of:
        if c.problems:
            yield f"### [{c.number} {c.title}](recipes/{c.name}.md) {{: #{c.name} }}"
            yield "\n".join(f"1. {line(c, p)}" for p in c.problems)


def line(c: Chapter, p: Problem) -> str:
    """The first paragraph of a question, and the way to the rest and the answer."""
    first, _, rest = p.question.partition("\n\n")
    text = from_root(" ".join(first.split()))
    kind = "**Find the bug.** " if p.bug else ""
    more = "the whole question and its answer" if rest else "answer"
    return f"{kind}{text} [{more}](recipes/{c.name}.md#{p.anchor})"
