"""What stands around a chapter on its page: what it takes and how to get it, and where it ran."""

import json
from datetime import datetime
from html import escape

from cookbook_lib.publishing.chapters import Chapter
from cookbook_lib.publishing.downloads import places
from cookbook_lib.publishing.recipes import KEY, Recipe

DIRTY = "-dirty"


def kept(recipe: Recipe) -> dict:
    """What the executed notebook says of its run."""
    return json.loads(recipe.notebook.read_text())["metadata"][KEY]


def header(chapter: Chapter, ran: dict) -> str:
    """Below the title: device, time to run and to read, and what the chapter builds on."""
    took = f"runs in {whole(ran['seconds'])} on {device(ran['where'])}"
    facts = [f"needs a {chapter.needs}", took, f"{chapter.minutes} min to read"]
    if chapter.problems:
        facts.append(f'<a href="#problem-1">{many(len(chapter.problems), "problem")}</a>')
    links = [f'<a href="../{name}/">{name[:3]}</a>' for name in chapter.builds_on]
    if links:
        facts.append(f"builds on {', '.join(links)}")
    return f'<p class="nb-facts">{" · ".join(facts)}</p>'


def footer(chapter: Chapter, ran: dict, repository: str) -> str:
    """Below the text: the files, where else they open, and the run that made the outputs."""
    name, on = chapter.name, ran["where"]
    files = [
        f'<a href="{name}.ipynb" download>Notebook with outputs</a>',
        f'<a href="{name}.py" download>Script</a>',
        f'<a href="{repository}/edit/main/recipes/{name}.py">Edit</a>',
    ]
    opens = [f'<a href="{url}">{where}</a>' for where, url in places(name, repository).items()]
    versions = " and ".join(
        f"{shown} {on['versions'][package]}"
        for package, shown in (("python", "Python"), ("torch", "PyTorch"))
        if package in on["versions"]
    )
    day = datetime.fromisoformat(on["date"])
    rows = {
        "Take it": " · ".join(files),
        "Open it in": " · ".join(opens),
        "Run it": f"<code>pytest --nbmake recipes/{name}.py</code>",
        "Last executed": f'<time datetime="{escape(on["date"])}">{day:%d %B %Y}</time>, on '
        f"{escape(on['device'])} with {escape(versions)}{source(on['commit'], repository)}",
    }
    lines = "".join(f"<div><dt>{key}</dt><dd>{text}</dd></div>" for key, text in rows.items())
    return f'<dl class="nb-box" data-search-exclude="">{lines}</dl>'


def device(where: dict) -> str:
    return "a GPU" if "gpu" in where else "a CPU"


def source(commit: str | None, repository: str) -> str:
    """Which state of the repository ran."""
    if not commit:
        return ""
    found = commit.removesuffix(DIRTY)
    changed = " with changes" if commit.endswith(DIRTY) else ""
    return f', from <a href="{repository}/commit/{found}"><code>{found}</code></a>{changed}'


def whole(seconds: float) -> str:
    """A time as a reader plans with it."""
    return f"{max(seconds, 1):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def many(count: int, of: str) -> str:
    return f"{count} {of}{'s' * (count != 1)}"
