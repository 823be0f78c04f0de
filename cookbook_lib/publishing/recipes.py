"""The recipes of a folder, and whether an executed notebook is still true.

A recipe is `recipes/NNN_name.py`; its executed notebook is `build/recipes/NNN_name.ipynb`, written
only when every cell has run. The notebook carries a fingerprint of what it was made from, how long
it ran, and where.
"""

import hashlib
import json
import platform
import re
import sys
from functools import cache, cached_property
from importlib.metadata import distributions
from itertools import pairwise
from pathlib import Path

NAME = re.compile(r"\d{3}_[a-z0-9_]+\.py")
KEY = "cookbook"  # where a notebook's metadata keep what is ours


class Recipe:
    """One recipe in a checkout: its source, its executed notebook, and whether they agree."""

    def __init__(self, source: Path):
        self.source = source.resolve()
        self.root = self.source.parent.parent
        self.name = self.source.stem
        self.notebook = self.root / "build" / "recipes" / f"{self.name}.ipynb"

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides what the recipe prints: source, library, data, environment."""
        files = [self.source, *inputs(self.root)]
        parts = {str(path.relative_to(self.root)): digest(path) for path in files}
        return hashlib.sha256(json.dumps([parts, environment()]).encode()).hexdigest()

    def executed(self) -> dict | None:
        """The executed notebook as JSON, or None if there is none of the present fingerprint."""
        try:
            notebook = json.loads(self.notebook.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        kept = notebook["metadata"].get(KEY, {})
        fresh = kept.get("fingerprint") == self.fingerprint
        return notebook if fresh and "where" in kept else None


def recipes(root: Path) -> list[Recipe]:
    """The recipes of a checkout in reading order.

    Raises ValueError if a script in `recipes/` has no number, or shares one with another.
    """
    found = [Recipe(path) for path in sorted((root / "recipes").glob("*.py"))]
    found = [recipe for recipe in found if recipe.name != "conftest"]
    for recipe in found:
        if not NAME.fullmatch(recipe.source.name):
            raise ValueError(f"recipes/{recipe.source.name}: expected a name like 310_cost.py")
    for one, other in pairwise(found):
        if one.name[:3] == other.name[:3]:
            raise ValueError(f"recipes/{other.name}.py: has the number of recipes/{one.name}.py")
    return found


def inputs(root: Path) -> list[Path]:
    """What every recipe may read: the library without this folder, and committed data."""
    library = root / "cookbook_lib"
    files = [p for p in library.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    files = [p for p in files if not p.is_relative_to(library / "publishing")]
    data = [p for p in (root / "docs").rglob("*") if p.suffix in {".json", ".jsonl", ".csv"}]
    return sorted(files + data)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def environment() -> list[str]:
    """Python, every installed package with its version, the kind of machine and its GPUs."""
    packages = {f"{d.name}=={d.version}" for d in distributions() if d.name != "cookbook-lib"}
    gpus = [p.read_text() for p in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]
    models = [line for gpu in gpus for line in gpu.splitlines() if line.startswith("Model")]
    return [sys.version, platform.machine(), platform.system(), *models, *sorted(packages)]
