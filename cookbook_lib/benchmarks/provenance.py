"""Where and when something was measured: without it, a number of seconds means nothing."""

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

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
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


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
    """The checkout's commit, "-dirty" if it was changed since; None where there is no checkout."""
    ask = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            ask, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
