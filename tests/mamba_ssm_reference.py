"""mamba_ssm's own references in plain PyTorch, read without a GPU, Triton or its compiled parts.

They come with the package (`pip install` builds it without CUDA, see the Makefile), in files whose
first lines import what only a GPU machine has: stand-ins take its place while they are read.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import pytest

ON_A_GPU_ONLY = ("triton", "triton.language", "triton.testing", "selective_scan_cuda")


def missing(name: str) -> bool:
    return name not in sys.modules and find_spec(name.partition(".")[0]) is None


def stand_in() -> MagicMock:
    """Triton, as far as declaring kernels goes: some are chosen by what they can be tuned to."""
    return MagicMock(
        __version__="3.5.0",
        Config=lambda kwargs, **more: SimpleNamespace(kwargs=kwargs, **more),
        autotune=lambda configs, **_: lambda kernel: SimpleNamespace(configs=configs),
    )


def reference(module: str, name: str) -> Callable:
    """`mamba_ssm.{module}.{name}`; the test that asks is skipped if mamba_ssm is not installed."""
    if (spec := find_spec("mamba_ssm")) is None:
        pytest.skip("mamba_ssm is not installed (make test installs it): its references are unread")
    stands_in = {part: stand_in() for part in ON_A_GPU_ONLY if missing(part)}
    if not stands_in:
        return getattr(import_module(f"mamba_ssm.{module}"), name)
    package = ModuleType("mamba_ssm")  # its __init__ would import every model
    package.__path__ = list(spec.submodule_search_locations)
    try:
        sys.modules.update(stands_in | {"mamba_ssm": package})
        return getattr(import_module(f"mamba_ssm.{module}"), name)
    finally:
        for loaded in [*stands_in, *(m for m in sys.modules if m.split(".")[0] == "mamba_ssm")]:
            del sys.modules[loaded]
