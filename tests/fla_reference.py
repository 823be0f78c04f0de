"""flash-linear-attention's references, and its kernels' declarations, without a GPU or Triton."""

import ast
import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch


def reference(module: str, name: str) -> Callable:
    """`fla.{module}.{name}`, of a file that needs PyTorch only: no package above it is imported."""
    parts = f"fla.{module}".split(".")
    above = [".".join(parts[: i + 1]) for i in range(len(parts) - 1)]
    folder = Path(*find_spec("fla").submodule_search_locations)
    try:
        for package in above:
            sys.modules[package] = ModuleType(package)
            sys.modules[package].__path__ = [str(folder.joinpath(*package.split(".")[1:]))]
        return getattr(import_module(f"fla.{module}"), name)
    finally:
        for loaded in [m for m in sys.modules if m.split(".")[0] == "fla"]:
            del sys.modules[loaded]


def declared(module: str, name: str) -> Callable:
    """A function that takes what `fla.{module}.{name}` takes, read from its source."""
    folder = Path(*find_spec("fla").submodule_search_locations)
    tree = ast.parse(folder.joinpath(*module.split(".")).with_suffix(".py").read_text())
    found = next(d for d in tree.body if isinstance(d, ast.FunctionDef) and d.name == name)
    found.body, found.decorator_list = [ast.Pass()], []
    lines = "from __future__ import annotations\n" + ast.unparse(found)
    scope: dict = {"torch": torch}
    exec(lines, scope)
    assert inspect.signature(scope[name]).parameters
    return scope[name]
