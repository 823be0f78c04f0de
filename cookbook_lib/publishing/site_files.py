"""Files of the site that lie in no folder of `docs`: they are made from what the repository holds.

Each recipe is the page `recipes/NNN_name.md`, made by mkdocs-jupyter from its executed notebook; a
recipe without one of its present fingerprint stops the build. Each preset is the page
`models/NAME.md`, made by `gallery`. The map, the problems and the references are collected from the
sources.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from cookbook_lib.publishing import (
    boxes,
    chapter_map,
    chapters,
    downloads,
    feed,
    gallery,
    measured,
    problem_list,
    references,
)
from cookbook_lib.publishing.planner import bundle, runtime
from cookbook_lib.publishing.recipes import Recipe, recipes

log = logging.getLogger("mkdocs.hooks.recipes")
PLANNER = "planner"
PRESETS = "cookbook_lib/calculators/presets"


def root(config: MkDocsConfig) -> Path:
    """The checkout that is published."""
    return Path(config.config_file_path).parent


def repository(config: MkDocsConfig) -> str:
    """Its address on the web."""
    return config.repo_url.rstrip("/")


def made(config: MkDocsConfig, serving: bool) -> Iterator[File]:
    """All of them. serving: show a recipe as it was executed last, and warn that it has changed."""
    for recipe in recipes(root(config)):
        yield from of_recipe(recipe, config, serving)
    for page, markdown in gallery.pages().items():
        file = File.generated(config, page, content=markdown)
        if (name := Path(page).stem) != "index":
            file.edit_uri = f"../{PRESETS}/{name}.json"
        yield file
    for page, markdown in collected(config).items():
        yield File.generated(config, page, content=markdown)
    yield File.generated(config, "assets/results.json", content=measured.as_json())
    yield from planner(config)
    robots = f"User-agent: *\nAllow: /\nSitemap: {config.site_url}sitemap.xml\n"
    yield File.generated(config, "robots.txt", content=robots)
    yield File.generated(config, feed.FEED, content="")  # written when its page is there


def of_recipe(recipe: Recipe, config: MkDocsConfig, serving: bool) -> Iterator[File]:
    """Its page, and beside it its notebook and its script to download."""
    if recipe.executed() is None:
        line = f"recipes/{recipe.name}.py was not executed as it is now: run `make recipes`"
        if not (serving and recipe.notebook.exists()):
            raise PluginError(line)
        log.warning(line)
    page = f"recipes/{recipe.name}.md"
    file = File.generated(config, page, abs_src_path=str(recipe.notebook))
    file.edit_uri = f"../recipes/{recipe.name}.py"
    yield file
    beside = f"recipes/{recipe.name}/{recipe.name}"
    notebook = downloads.notebook(json.loads(recipe.notebook.read_text()), repository(config))
    yield File.generated(config, f"{beside}.ipynb", content=notebook)
    yield File.generated(config, f"{beside}.py", abs_src_path=str(recipe.source))


def collected(config: MkDocsConfig) -> dict[str, str]:
    """Address -> Markdown of the pages that tell of all chapters."""
    known = chapters.chapters(root(config))
    ran = {recipe.name: boxes.kept(recipe) for recipe in recipes(root(config))}
    book = chapter_map.parts(config.nav, known)
    return {
        "map.md": chapter_map.page(book, ran),
        "problems.md": problem_list.page(book),
        "references.md": references.page(root(config), repository(config)),
    }


def planner(config: MkDocsConfig) -> Iterator[File]:
    """Python for browsers and the calculators, beside the scripts that load them."""
    python = runtime.folder(root(config) / "build")
    for name in runtime.FILES:
        if not (python / name).exists():
            raise PluginError(f"{python / name} is missing: `make site` fetches it")
        path = str(python / name)
        yield File.generated(config, f"{PLANNER}/{name}", abs_src_path=path)
    library = bundle.library(root(config))
    yield File.generated(config, f"{PLANNER}/cookbook.zip", content=library)
