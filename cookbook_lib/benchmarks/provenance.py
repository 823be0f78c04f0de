"""Where and when something was measured: without it, a number of seconds means nothing."""

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cookbook_lib.measuring import cpu_name

PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "mamba-ssm",
    "causal-conv1d",
    "flash-linear-attention",
)


def device_name(device: str) -> str:
    """The GPU's or the CPU's name, as its maker prints it."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return cpu_name()


def where(device: str) -> dict[str, Any]:
    """Device, threads, versions, commit and date; of a GPU also its clocks and power just now."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    more = {}
    if device == "cuda":
        from cookbook_lib.benchmarks.cuda import gpu_state

        found["cuda"] = str(torch.version.cuda)
        more["gpu"] = gpu_state()
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "versions": found,
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
    }


@cache
def commit() -> str | None:
    """The checkout's commit, "-dirty" if it was changed since; None where there is no checkout.

    Rows that were added to docs/data are no change: what is measured is not in them.
    """
    changed = ("status", "--porcelain", "--untracked-files=no", ":/", ":(exclude,top)docs/data")
    try:
        found, dirty = (git(*ask) for ask in (("rev-parse", "--short=12", "HEAD"), changed))
    except (OSError, subprocess.SubprocessError):
        return None
    return found + "-dirty" * bool(dirty)


def git(*ask: str) -> str:
    """What git answers about the checkout that holds this file."""
    here, most = Path(__file__).parent, 10  # seconds
    run = ["git", *ask]
    done = subprocess.run(run, cwd=here, capture_output=True, text=True, timeout=most, check=True)
    return done.stdout.strip()
