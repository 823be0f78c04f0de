"""A recipe is executed once; what is kept is true, whole and made by this Python; errors show."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import jupytext
import pytest
import torch

from cookbook_lib.measuring import cpu_name
from cookbook_lib.publishing.recipes import KEY, Recipe, recipes

ROOT = Path(__file__).parent.parent
SAMPLE = """\
# %% [markdown]
# # Sample

# %%
import sys
from cookbook_lib.number import NUMBER
print("the number is", NUMBER, "in", sys.executable)

# %%
assert NUMBER < 100, "the number is too large"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one recipe and a library of one number."""
    library, here = tmp_path / "cookbook_lib", tmp_path / "recipes"
    shutil.copytree(ROOT / "cookbook_lib/publishing", library / "publishing")
    for part in ("__init__.py", "measuring.py", "provenance.py", "results.py"):
        shutil.copy(ROOT / "cookbook_lib" / part, library / part)
    (library / "number.py").write_text("NUMBER = 7\n")
    here.mkdir()
    shutil.copy(ROOT / "recipes/conftest.py", here)
    (here / "110_sample.py").write_text(SAMPLE)
    return tmp_path


def command(checkout: Path, *options: str, of: str = "recipes") -> dict:
    args = [sys.executable, "-m", "pytest", "--nbmake", "-v", "-p", "no:cacheprovider", *options]
    env = {"PYTHONPATH": str(checkout), "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1"}
    return {"args": [*args, of], "cwd": checkout, "env": os.environ | env}


def execute(checkout: Path, *options: str, of: str = "recipes", **env: str) -> tuple[int, str]:
    run = command(checkout, *options, of=of)
    run["env"] |= env
    done = subprocess.run(**run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def printed(checkout: Path, name: str = "110_sample") -> str:
    notebook = json.loads((checkout / f"build/recipes/{name}.ipynb").read_text())
    outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", [])]
    return "".join("".join(out.get("text", [])) for out in outputs)


def test_a_recipe_is_executed_once_and_again_when_anything_it_is_made_of_changes(checkout):
    code, log = execute(checkout)
    assert code == 0 and "PASSED (executed in" in log and "the number is 7" in printed(checkout)

    code, log = execute(checkout, of="recipes/110_sample.py")
    assert code == 0 and "PASSED (unchanged)" in log and "1 passed" in log

    (checkout / "cookbook_lib/number.py").write_text("NUMBER = 8\n")
    code, log = execute(checkout)
    assert code == 0 and "PASSED (executed in" in log and "the number is 8" in printed(checkout)


def test_a_notebook_says_how_long_it_ran_where_and_with_what(checkout):
    recipe = Recipe(checkout / "recipes/110_sample.py")
    execute(checkout)
    notebook = recipe.executed()
    kept = notebook["metadata"][KEY]
    assert kept["seconds"] > 0 and kept["where"]["device"] == cpu_name()
    assert kept["where"]["versions"]["python"] == platform.python_version()
    assert kept["where"]["versions"]["torch"] == torch.__version__
    assert abs(datetime.fromisoformat(kept["where"]["date"]).timestamp() - time.time()) < 600
    assert kept["where"]["commit"] is None  # no checkout of git
    del kept["where"]
    recipe.notebook.write_text(json.dumps(notebook))
    assert recipe.executed() is None, "a notebook that does not say where counts as executed"


def test_the_fingerprint_covers_source_library_data_and_packages(checkout, monkeypatch):
    def now() -> str:
        return Recipe(checkout / "recipes/110_sample.py").fingerprint

    seen = [now(), now()]
    assert seen[0] == seen[1]
    for name in ("recipes/110_sample.py", "cookbook_lib/model.json", "docs/data/h100.jsonl"):
        path = checkout / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.read_text() + " " if path.exists() else "{}")
        seen.append(now())
    monkeypatch.setattr("cookbook_lib.publishing.recipes.environment", lambda: ["torch==9.9"])
    seen.append(now())
    assert len(set(seen)) == 5
    (checkout / "cookbook_lib/publishing/hooks.py").write_text("")  # shapes pages, not results
    (checkout / "recipes/120_other.py").write_text("")
    assert now() == seen[-1]


def test_a_failed_cell_names_recipe_line_cell_and_error_and_keeps_nothing(checkout):
    execute(checkout)
    (checkout / "cookbook_lib/number.py").write_text("NUMBER = 700\n")
    code, log = execute(checkout, "--color=no")
    assert code == 1 and "1 failed" in log
    assert "recipes/110_sample.py:10: cell 3 of 3" in log
    assert 'assert NUMBER < 100, "the number is too large"' in log
    assert "AssertionError" in log and "the number is too large" in log
    assert not list(checkout.rglob("*.ipynb")) and not list(checkout.rglob("*.running"))


def test_a_cell_that_takes_too_long_fails(checkout):
    (checkout / "recipes/110_sample.py").write_text("# %%\nimport time\ntime.sleep(600)\n")
    code, log = execute(checkout, "--nbmake-timeout=1")
    assert code == 1 and "recipes/110_sample.py:2: cell 1 of 1" in log and "timed out" in log
    assert not list(checkout.rglob("*.ipynb"))


def test_a_killed_run_leaves_nothing_that_counts_as_done(checkout):
    script = checkout / "recipes/110_sample.py"
    script.write_text(
        "# %%\nfrom pathlib import Path\nimport time\n"
        "print('half')\nif not Path('second').exists():\n"
        "    Path('first').touch()\n    time.sleep(600)\n"
    )
    run = subprocess.Popen(
        **command(checkout),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not (checkout / "recipes/first").exists():
        assert run.poll() is None, "the run ended before its cell began"
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert not list(checkout.rglob("*.ipynb"))

    (checkout / "recipes/second").touch()
    code, log = execute(checkout)
    assert code == 0 and "PASSED (executed in" in log and "1 passed" in log
    assert printed(checkout) == "half\n"


def test_the_kernel_is_this_python_whatever_the_user_has_installed(checkout):
    kernel = checkout / "home/kernels/python3/kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = ["/nonexistent/python", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "mine", "language": "python"}))
    code, log = execute(checkout, JUPYTER_DATA_DIR=str(kernel.parent.parent.parent))
    assert code == 0, log
    assert f"in {sys.executable}\n" in printed(checkout)


def test_each_recipe_has_a_number_of_its_own(checkout):
    assert [recipe.name for recipe in recipes(checkout)] == ["110_sample"]
    (checkout / "recipes/110_other.py").touch()
    with pytest.raises(ValueError, match=r"recipes/110_sample\.py: has the number of"):
        recipes(checkout)
    (checkout / "recipes/110_other.py").rename(checkout / "recipes/other.py")
    with pytest.raises(ValueError, match=r"recipes/other\.py: expected a name like"):
        recipes(checkout)


@pytest.mark.parametrize("name", ["510_training_loop", "560_on_a_cluster"])
def test_a_job_file_keeps_its_first_line(name):
    cells = jupytext.read(ROOT / f"recipes/{name}.py").cells
    assert any("```bash\n#!/bin/bash\n#SBATCH" in cell.source for cell in cells)
