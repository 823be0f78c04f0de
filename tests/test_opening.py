"""A chapter opens where its page says: the notebook installs itself on Colab and nowhere else, the
branch for Colab holds what the links name, and Codespaces and Binder find what they need."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cookbook_lib.publishing import downloads
from cookbook_lib.publishing.recipes import KEY, recipes

ROOT = Path(__file__).parent.parent
REPOSITORY = "https://github.com/hybrid-cookbook/cookbook"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEVCONTAINER = {  # keys of https://containers.dev/implementors/json_reference/ and their types
    "name": str,
    "image": str,
    "hostRequirements": dict,
    "onCreateCommand": str,
    "forwardPorts": list,
    "portsAttributes": dict,
    "customizations": dict,
}


def executed(commit: str | None) -> dict:
    cell = {"cell_type": "markdown", "metadata": {}, "source": "# One"}
    where = {"commit": commit}
    return {"cells": [cell], "metadata": {KEY: {"where": where}}, "nbformat": 4}


def first_cell(commit: str | None = "0123456789ab") -> str:
    made = json.loads(downloads.notebook(executed(commit), REPOSITORY))
    assert [cell["cell_type"] for cell in made["cells"]] == ["code", "markdown"]
    return made["cells"][0]["source"]


def run(source: str) -> list[str]:
    """Execute a cell as IPython does, and what it asked the shell and the magics for."""
    asked = []

    class Shell:
        def system(self, line):
            asked.append(f"!{line}")

        def run_line_magic(self, name, line):
            asked.append(f"%{name} {line}")

    exec(TransformerManager().transform_cell(source), {"get_ipython": Shell})
    return asked


def test_elsewhere_the_first_cell_does_nothing():
    before = list(sys.path)
    assert run(first_cell()) == [] and sys.path == before


def test_on_colab_it_installs_what_was_executed(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    clone, checkout, install, folder = run(first_cell("0123456789ab-dirty"))
    assert clone == f"!git clone --quiet {REPOSITORY} /content/cookbook"
    assert checkout.endswith(" checkout --quiet 0123456789ab")
    assert install == "%pip install --quiet '/content/cookbook[recipes]'"
    assert folder == "%cd /content/cookbook/recipes" and sys.path[0] == "/content/cookbook"
    assert run(first_cell(None))[1].endswith(" checkout --quiet main")
    assert "recipes" in PROJECT["optional-dependencies"]


def test_the_workflow_pushes_what_the_links_to_colab_name(tmp_path):
    jobs = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())["jobs"]
    (step,) = jobs["notebooks"]["steps"]
    names = [recipe.name for recipe in recipes(ROOT)][:3]
    site = tmp_path / "site"
    for name in names:
        (site / "recipes" / name).mkdir(parents=True)
        for suffix in ("ipynb", "py"):
            (site / f"recipes/{name}/{name}.{suffix}").write_text("{}")
    with tarfile.open(tmp_path / "artifact.tar", "w") as archive:
        archive.add(site, arcname=".")
    remote, fake = tmp_path / "remote.git", tmp_path / "gh"
    subprocess.run(["git", "init", "--quiet", "--bare", remote], check=True)
    fake.write_text('#!/bin/sh\n[ "$*" = "run download 7 --repo o/r --name github-pages" ]\n')
    fake.chmod(0o755)
    config = (
        ("protocol.file.allow", "always"),
        (
            f"url.{remote.as_uri()}.insteadOf",
            "https://x-access-token:T@github.com/o/r",
        ),
    )
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "GH_TOKEN": "T"}
    env |= {"GITHUB_RUN_ID": "7", "GITHUB_REPOSITORY": "o/r", "GITHUB_SHA": "abc"}
    env["GIT_CONFIG_COUNT"] = str(len(config))
    for i, (key, value) in enumerate(config):
        env |= {f"GIT_CONFIG_KEY_{i}": key, f"GIT_CONFIG_VALUE_{i}": value}
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    list_them = ["git", "-C", remote, "ls-tree", "--name-only", downloads.BRANCH]
    pushed = subprocess.run(list_them, capture_output=True, text=True, check=True).stdout.split()
    assert pushed == [f"{name}.ipynb" for name in names]
    for name in names:
        link = downloads.places(name, REPOSITORY)["Colab"]
        assert link.endswith(f"/hybrid-cookbook/cookbook/blob/{downloads.BRANCH}/{name}.ipynb")


def test_codespaces_has_a_container_whose_commands_and_ports_are_real():
    found = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert {key: type(value) for key, value in found.items()} == DEVCONTAINER
    assert re.fullmatch(r"mcr\.microsoft\.com/devcontainers/python:\d+-3\.\d+-\w+", found["image"])
    python = re.search(r"-(3\.\d+)-", found["image"])[1]
    assert f"{python}.0" in SpecifierSet(PROJECT["requires-python"])
    target = found["onCreateCommand"].removeprefix("make ")
    makefile = (ROOT / "Makefile").read_text()
    assert target == ".venv/installed" and "READY := $(VENV)/installed" in makefile
    assert all(str(port) in found["portsAttributes"] for port in found["forwardPorts"])
    settings = found["customizations"]["vscode"]["settings"]
    assert settings["python.defaultInterpreterPath"].endswith("/.venv/bin/python")


def test_binder_installs_the_checkout_within_the_constraints():
    folder = ROOT / ".binder"
    lines = dict(line.split() for line in (folder / "requirements.txt").read_text().splitlines())
    assert (folder / lines["--constraint"]).resolve() == ROOT / "constraints.txt"
    extra = Requirement(lines["--editable"].replace(".[", "cookbook-lib[")).extras
    assert extra == {"recipes"} <= set(PROJECT["optional-dependencies"])
    python = (folder / "runtime.txt").read_text().strip().removeprefix("python-")
    assert f"{python}.0" in SpecifierSet(PROJECT["requires-python"])


@pytest.mark.filterwarnings("default")
def test_binder_makes_the_notebooks_that_the_links_open(tmp_path):
    script = ROOT / ".binder/postBuild"
    assert os.access(script, os.X_OK), "repo2docker runs it only if it is executable"
    name = recipes(ROOT)[0].name
    (tmp_path / "recipes").mkdir()
    (tmp_path / f"recipes/{name}.py").write_text((ROOT / f"recipes/{name}.py").read_text())
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run([script], cwd=tmp_path, env=os.environ | {"PATH": path}, check=True)
    opened = downloads.places(name, REPOSITORY)["Binder"].partition("urlpath=lab/tree/")[2]
    assert json.loads((tmp_path / opened).read_text())["cells"]
