"""MkDocs hooks: recipes and presets become pages, and nothing on a page asks another host.

`mkdocs.yml` names this file. What files there are is said by `nav` and `site_files`; here a page
goes from Markdown to the HTML that is delivered.
"""

import os
import shutil
from pathlib import Path

import mkdocs_jupyter.config
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from cookbook_lib.publishing import (
    boxes,
    cards,
    chapters,
    computed,
    delivery,
    feed,
    formulas,
    glossary,
    nav,
    outputs,
    prose,
    site_files,
)
from cookbook_lib.publishing.recipes import Recipe, recipes
from cookbook_lib.publishing.site_files import repository, root

state: dict = {"serving": False, "letters": set()}


def on_startup(command: str, dirty: bool) -> None:
    state["serving"] = command == "serve"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Use our notebook template, and fill the patterns of `nav`."""
    templates = Path(__file__).parent / "templates"
    mkdocs_jupyter.config.settings.templates_dir = str(templates)
    os.environ["JUPYTER_CONFIG_DIR"] = str(root(config) / "build" / "jupyter")  # not the user's
    try:
        known = [f"recipes/{recipe.name}.md" for recipe in recipes(root(config))]
    except ValueError as error:
        raise PluginError(str(error)) from error
    config.nav = nav.filled(config.nav, known)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for file in site_files.made(config, state["serving"]):
        files.append(file)
    return files


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
