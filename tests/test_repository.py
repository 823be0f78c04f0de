"""The repository holds sources only, installs little, pins all of it, and its make targets and
workflows are sound."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def committed() -> list[str]:
    listed = run("git", "ls-files", cwd=ROOT)
    if listed.returncode:
        pytest.skip("not a git checkout: what is committed is not known")
    return listed.stdout.split()


def test_no_notebook_and_nothing_built_is_committed():
    wrong = [f for f in committed() if re.search(r"\.(ipynb|html|svg|png|woff2?|pyc)$", f)]
    wrong = [f for f in wrong if not f.startswith("cookbook_lib/publishing/theme/")]  # templates
    assert not wrong
    assert not [f for f in committed() if f.startswith(("build/", "site/", ".venv/"))]


def test_recipes_have_no_committed_outputs():
    for script in [f for f in committed() if re.fullmatch(r"recipes/\d.*\.py", f)]:
        text = (ROOT / script).read_text()
        assert "# %%" in text and "image/png" not in text and '"outputs"' not in text, script


def test_the_bare_package_needs_tyro_and_rich_only():
    assert {Requirement(r).name for r in PROJECT["dependencies"]} == {"rich", "tyro"}


def test_the_calculators_import_without_any_other_package():
    script = f"""
import pkgutil, sys
from importlib import import_module
sys.path.insert(0, {str(ROOT)!r})
import cookbook_lib.calculators as package
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    import_module(module.name)
"""
    done = run(sys.executable, "-I", "-S", "-c", script)  # -S: no site-packages
    assert done.returncode == 0, done.stdout


LAYERS = {  # folder -> the others that it may import; `commands.output`, which prints, is for all
    "calculators": set(),
    "communication": set(),
    "data": set(),
    "blocks": {"calculators"},
    "decoding": {"blocks", "calculators", "communication"},
    "training": {"blocks", "calculators", "data"},
}
ABOVE = {*LAYERS, "benchmarks", "commands", "publishing"}


@pytest.mark.parametrize("folder", LAYERS)
def test_imports_point_one_way(folder):
    line = re.compile(r"^ *(?:from|import) cookbook_lib(?:\.| import )(\w+)(\.output)?", re.M)
    for file in sorted((ROOT / "cookbook_lib" / folder).rglob("*.py")):
        found = {name for name, output in line.findall(file.read_text()) if not output}
        assert not (found & ABOVE) - LAYERS[folder] - {folder}, file


def needed() -> set[str]:
    """Every package that `pip install -e .[dev]` brings to this machine, by its metadata."""
    extras = PROJECT["optional-dependencies"]
    todo = [Requirement(r) for name, group in extras.items() if name != "gpu" for r in group]
    todo += [Requirement(r) for r in PROJECT["dependencies"]]
    seen: set[tuple[str, str]] = set()
    names: set[str] = set()
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if name == "cookbook-lib" or (name, extra) in seen:
                continue
            seen.add((name, extra))
            names.add(name)
            if re.match("nvidia-|cuda-|triton", name):
                continue  # torch pins these itself
            inner = [Requirement(r) for r in requires(name) or []]
            todo += [r for r in inner if not r.marker or r.marker.evaluate({"extra": extra})]
    return {name for name in names if not re.match("nvidia-|cuda-|triton", name)}


def test_everything_that_make_installs_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().split()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    pinned = {canonicalize_name(line.partition("==")[0]): line for line in lines}
    assert pinned["torch"] == "torch==2.13.0"
    try:
        missing = needed() - set(pinned) - {"pip", "setuptools"}
    except PackageNotFoundError as error:
        pytest.fail(f"{error} is needed and not installed: is this .venv of `make`?")
    assert not missing


def test_make_help_names_every_target():
    text = run("make", "help", cwd=ROOT).stdout
    targets = "site book speed shots test lint recipes serve gpu gpu-packages clean help"
    for target in targets.split():
        assert re.search(rf"^make {target} +\w", text, re.MULTILINE), target


FAKE = """\
#!{python}
# A Python of {version} that makes a .venv whose pip does what $PIP says.
import sys, os, pathlib
log = pathlib.Path("log")
if sys.argv[1] == "-c":
    sys.version_info = {version}
    exec(sys.argv[2])
elif sys.argv[1:3] == ["-m", "venv"]:
    python = pathlib.Path(".venv/bin/python")
    python.parent.mkdir(parents=True, exist_ok=True)
    log.open("a").write("venv " if not python.exists() else "kept ")
    python.write_text('#!/bin/sh\\necho pip >> log\\n$PIP\\n')
    python.chmod(0o755)
    ruff = python.with_name("ruff")
    ruff.write_text("#!/bin/sh\\necho ruff >> log\\n")
    ruff.chmod(0o755)
"""


@pytest.fixture
def make(tmp_path):
    """Run `make lint` in a folder of its own with a Python that only pretends."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())

    def call(pip: str, version: tuple[int, ...] = (3, 12, 0)) -> tuple[int, str, str]:
        fake = tmp_path / "python"
        fake.write_text(FAKE.format(python=sys.executable, version=version))
        fake.chmod(0o755)
        (tmp_path / "log").write_text("")
        env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        done = run("make", "lint", f"PYTHON={fake}", cwd=tmp_path, env=env | {"PIP": pip})
        return done.returncode, done.stdout, (tmp_path / "log").read_text()

    return call


def test_an_interrupted_set_up_is_begun_again_and_a_finished_one_is_not(make, tmp_path):
    code, _, log = make("false")
    assert code and log == "venv pip\n"
    code, _, log = make("true")
    assert code == 0 and log == "venv pip\npip\nruff\n"  # the half made .venv was thrown away
    code, _, log = make("true")
    assert code == 0 and log == "ruff\n"
    later = (tmp_path / ".venv/installed").stat().st_mtime + 10
    os.utime(tmp_path / "constraints.txt", (later, later))
    code, _, log = make("true")
    assert code == 0 and log == "kept pip\npip\nruff\n"


def test_an_old_python_gets_one_clear_line(make):
    code, text, log = make("true", version=(3, 9, 18))
    assert code and log == ""
    assert re.search(r"^Python 3\.11 or newer is needed, \S+ is 3\.9: make PYTHON=", text, re.M)


def workflows() -> list[str]:
    return sorted(map(str, (ROOT / ".github/workflows").glob("*.yml")))


def test_workflows_follow_the_schema():
    tool = Path(sys.executable).with_name("check-jsonschema")
    done = run(str(tool), "--builtin-schema", "vendor.github-workflows", *workflows())
    assert len(workflows()) == 3 and done.returncode == 0, done.stdout


def test_workflows_are_secure():
    tool = Path(sys.executable).with_name("zizmor")
    done = run(str(tool), "--offline", "--no-progress", "--persona=pedantic", *workflows())
    assert done.returncode == 0, done.stdout
