"""`pytest --nbmake recipes/` executes each script as a notebook and keeps what it printed.

A script whose source, library and environment have not changed since is not executed again; the
executed notebooks lie in `build/recipes/`, and the site shows those. `--fresh` executes all.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbmake.nb_run import NotebookRun
from nbmake.pytest_items import NbMakeFailureRepr, NotebookFailedException, NotebookItem

from cookbook_lib.publishing.recipes import KEY, Recipe, recipes

HERE = Path(__file__).parent
BUILD = HERE.parent / "build"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fresh", action="store_true", help="execute recipes that did not change too")


def pytest_configure(config: pytest.Config) -> None:
    """This Python runs the cells, whatever kernels and start-up files the user has."""
    own = os.path.join(sys.prefix, "share", "jupyter")
    path = filter(None, [own, os.environ.get("JUPYTER_PATH")])
    os.environ["JUPYTER_PATH"] = os.pathsep.join(path)
    os.environ["IPYTHONDIR"] = str(BUILD / "ipython")
    (BUILD / "ipython").mkdir(parents=True, exist_ok=True)


def is_recipe(path: Path) -> bool:
    return path.parent == HERE and path.suffix == ".py" and path.stem != "conftest"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if is_recipe(file_path) and parent.config.option.nbmake:
        return RecipeFile.from_parent(parent, path=file_path)
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector):
    """A script that is named on the command line is not imported as a module of tests as well."""
    return NoTests.from_parent(parent, path=module_path) if is_recipe(module_path) else None


class NoTests(pytest.File):
    def collect(self) -> list[pytest.Item]:
        return []


class RecipeFile(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        known = {recipe.name: recipe for recipe in recipes(HERE.parent)}
        yield RecipeItem.from_parent(self, recipe=known[self.path.stem])


class RecipeItem(NotebookItem):
    """nbmake's item, with a notebook that is made from the script."""

    outcome = "executed"

    def __init__(self, parent: RecipeFile, recipe: Recipe):
        super().__init__(parent, str(recipe.source))
        self.recipe = recipe

    def runtest(self) -> None:
        if not self.config.option.fresh and self.recipe.executed():
            self.outcome = "unchanged"
            return
        fingerprint = self.recipe.fingerprint  # of the source as it is now, before it runs
        self.recipe.notebook.unlink(missing_ok=True)
        started = time.perf_counter()
        result = NotebookRun(self.as_notebook(), self.config.option.nbmake_timeout).execute()
        if result.error is not None:
            raise NotebookFailedException(result)
        seconds = time.perf_counter() - started
        result.nb.metadata[KEY] = {
            "fingerprint": fingerprint,
            "seconds": round(seconds, 1),
            "where": where(),
        }
        write(result.nb, self.recipe.notebook)

    def as_notebook(self) -> Path:
        """The script as a notebook; cells run in its folder, as they would in Jupyter."""
        notebook = jupytext.read(self.recipe.source, fmt="py:percent")
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        notebook.metadata["execution"] = {}
        path = HERE / f".{self.recipe.name}.running"
        write(notebook, path)
        return path

    def repr_failure(self, excinfo, style=None):
        failure = super().repr_failure(excinfo, style)
        if not isinstance(excinfo.value, NotebookFailedException):
            return failure
        result = excinfo.value.args[0]
        index = result.error.failing_cell_index
        source = self.recipe.source.read_text()
        cells = result.nb.cells
        line = source[: source.find(cells[index].source)].count("\n") + 1
        where = f"recipes/{self.recipe.source.name}:{line}: cell {index + 1} of {len(cells)}"
        return NbMakeFailureRepr(
            f"{where}\n{result.error.trace}", f"{where}: {result.error.summary}"
        )

    def reportinfo(self):
        return self.path, 0, self.recipe.name

    def teardown(self) -> None:
        (HERE / f".{self.recipe.name}.running").unlink(missing_ok=True)


def where() -> dict:
    """Device, versions, commit and date of this execution, as rows of results tell them."""
    import torch  # here: a run that executes nothing need not wait for it

    from cookbook_lib import provenance

    return provenance.where("cuda" if torch.cuda.is_available() else "cpu")


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """All of the file or nothing of it: a killed run leaves no half notebook."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    nbformat.write(notebook, part)
    part.replace(path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    if isinstance(item, RecipeItem):
        report.recipe = item.outcome
    return report


def pytest_report_teststatus(report: pytest.TestReport):
    """`PASSED (executed in 12.3 s)` instead of `PASSED`, and `executed in 12.3 s` for a dot."""
    if report.when == "call" and report.passed and (outcome := getattr(report, "recipe", None)):
        took = f" in {report.duration:.1f} s" if outcome == "executed" else ""
        return "passed", f"{outcome}{took}", f"PASSED ({outcome}{took})"
    return None
