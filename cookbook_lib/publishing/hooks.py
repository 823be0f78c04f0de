"""MkDocs hooks: recipes and presets become pages, and nothing on a page asks another host.

`mkdocs.yml` names this file. Each recipe is the page `recipes/NNN_name.md`, made by mkdocs-jupyter
from its executed notebook; a recipe without one of its present fingerprint stops the build. Each
preset is the page `models/NAME.md`, made by `gallery`. The map, the problems and the references are
collected from the sources.
"""

import json
import logging
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path

import mkdocs_jupyter.config
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from cookbook_lib.publishing import (
    boxes,
    cards,
    chapter_map,
    chapters,
    computed,
    delivery,
    downloads,
    feed,
    formulas,
    gallery,
    glossary,
    measured,
    outputs,
    problem_list,
    prose,
    references,
)
from cookbook_lib.publishing.planner import bundle, runtime
from cookbook_lib.publishing.recipes import Recipe, recipes

log = logging.getLogger("mkdocs.hooks.recipes")
PLANNER = "planner"
PRESETS = "cookbook_lib/calculators/presets"
state: dict = {"serving": False, "letters": set()}


def on_startup(command: str, dirty: bool) -> None:
    state["serving"] = command == "serve"


def root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent


def repository(config: MkDocsConfig) -> str:
    return config.repo_url.rstrip("/")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Use our notebook template, and fill the patterns of `nav`: recipes in order, and models."""
    templates = Path(__file__).parent / "templates"
    mkdocs_jupyter.config.settings.templates_dir = str(templates)
    os.environ["JUPYTER_CONFIG_DIR"] = str(root(config) / "build" / "jupyter")  # not the user's
    try:
        known = [f"recipes/{recipe.name}.md" for recipe in recipes(root(config))]
    except ValueError as error:
        raise PluginError(str(error)) from error
    placed: set[str] = set()
    config.nav = fill(config.nav, known, placed)
    if rest := [page for page in known if page not in placed]:
        config.nav.append({"More recipes": rest})
    return config


def fill(entry, known: list[str], placed: set[str]):
    """An entry of `nav` with its patterns replaced by the pages they match; None if by none."""
    if isinstance(entry, dict):
        filled = {title: fill(inner, known, placed) for title, inner in entry.items()}
        return {title: inner for title, inner in filled.items() if inner} or None
    if isinstance(entry, list):
        return [page for e in entry for page in as_list(fill(e, known, placed))]
    if entry == gallery.MENU:
        return gallery.menu()
    if "*" not in entry:
        return entry
    pages = [page for page in known if fnmatch(page, entry)]
    placed.update(pages)
    return pages


def as_list(entry) -> list:
    return entry if isinstance(entry, list) else [entry] if entry else []


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for recipe in recipes(root(config)):
        if recipe.executed() is None:
            line = f"recipes/{recipe.name}.py was not executed as it is now: run `make recipes`"
            if not (state["serving"] and recipe.notebook.exists()):
                raise PluginError(line)
            log.warning(line)
        page = f"recipes/{recipe.name}.md"
        file = File.generated(config, page, abs_src_path=str(recipe.notebook))
        file.edit_uri = f"../recipes/{recipe.name}.py"
        files.append(file)
        beside = f"recipes/{recipe.name}/{recipe.name}"
        made = downloads.notebook(json.loads(recipe.notebook.read_text()), repository(config))
        files.append(File.generated(config, f"{beside}.ipynb", content=made))
        files.append(File.generated(config, f"{beside}.py", abs_src_path=str(recipe.source)))
    for page, markdown in gallery.pages().items():
        file = File.generated(config, page, content=markdown)
        if (name := Path(page).stem) != "index":
            file.edit_uri = f"../{PRESETS}/{name}.json"
        files.append(file)
    for page, markdown in collected(config).items():
        files.append(File.generated(config, page, content=markdown))
    files.append(File.generated(config, "assets/results.json", content=measured.as_json()))
    planner(files, config)
    robots = f"User-agent: *\nAllow: /\nSitemap: {config.site_url}sitemap.xml\n"
    files.append(File.generated(config, "robots.txt", content=robots))
    files.append(File.generated(config, feed.FEED, content=""))  # written when its page is there
    return files


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


def planner(files: Files, config: MkDocsConfig) -> None:
    """Python for browsers and the calculators, beside the scripts that load them."""
    python = runtime.folder(root(config) / "build")
    for name in runtime.FILES:
        if not (python / name).exists():
            raise PluginError(f"{python / name} is missing: `make site` fetches it")
        path = str(python / name)
        files.append(File.generated(config, f"{PLANNER}/{name}", abs_src_path=path))
    library = bundle.library(root(config))
    files.append(File.generated(config, f"{PLANNER}/cookbook.zip", content=library))


def on_pre_page(page: Page, config: MkDocsConfig, files: Files) -> Page:
    if page.file.abs_src_path and page.file.abs_src_path.endswith(".ipynb"):
        convert = page.render  # mkdocs-jupyter's, set for this page just before
        del page.render
        page.render = lambda config, files: render(page, convert, config, files)
    return page


def render(page: Page, convert, config: MkDocsConfig, files: Files) -> None:
    """Notebook -> Markdown (mkdocs-jupyter, our template) -> HTML (MkDocs, as any other page)."""
    convert(config, files)
    markdown, shown = outputs.take_out(page.content)
    page.markdown = glossary.with_hovers(prose.spaced(prose.linked(markdown)))
    Page.render(page, config, files)
    try:
        page.content = outputs.put_back(page.content, shown)
    except ValueError as error:
        raise PluginError(f"recipes/{Path(page.file.src_uri).stem}.py: {error}") from error
    recipe = Recipe(root(config) / "recipes" / f"{Path(page.file.src_uri).stem}.py")
    of, ran = chapters.chapter(recipe), boxes.kept(recipe)
    page.content = page.content.replace("</h1>", "</h1>" + boxes.header(of, ran), 1)
    page.content += boxes.footer(of, ran, repository(config))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    try:
        return glossary.with_hovers(computed.fill(markdown))
    except ValueError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from error


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    text = "" if page.is_homepage else cards.summary(html)
    page.meta.setdefault("description", text or config.site_description)
    try:
        if page.file.src_uri == feed.PAGE:
            state["feed"] = feed.feed(html, config.site_name, config.site_url)
        return formulas.with_mathml(html)
    except ValueError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from error


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    if state["serving"]:
        return finished(output)
    title = config.site_name if page.is_homepage else page.title
    text = page.meta["description"]
    name = f"{cards.FOLDER}/{page.file.src_uri.removesuffix('.md').replace('/', '-')}.png"
    picture = Path(config.site_dir) / name
    picture.parent.mkdir(parents=True, exist_ok=True)
    kept = root(config) / "build" / cards.FOLDER
    shutil.copyfile(cards.card(kept, config.site_name, title, text), picture)
    tags = cards.tags(title, text, page.canonical_url, config.site_url + name)
    return finished(output.replace("</head>", f"{tags}</head>", 1))


def on_post_template(output: str, template_name: str, config: MkDocsConfig) -> str:
    return finished(output) if template_name.endswith(".html") else output  # 404.html is no page


def on_post_build(config: MkDocsConfig) -> None:
    font = formulas.font(state["letters"], root(config) / "build" / "assets")
    shutil.copyfile(font, Path(config.site_dir) / delivery.FONT)
    (Path(config.site_dir) / feed.FEED).write_text(state["feed"])


def finished(html: str) -> str:
    state["letters"] |= formulas.letters(html)
    return delivery.delivered(html, strict=not state["serving"])  # serving adds its own script
