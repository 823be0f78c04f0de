"""Where and when something was measured: without it, a number of seconds means nothing."""

import subprocess
from typing import Any

import torch

from cookbook_lib.measuring import cpu_name
from cookbook_lib.results import origin

PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "mamba-ssm",
    "causal-conv1d",
    "flash-linear-attention",
)
FIELDS = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")  # MHz, MHz, W, degrees C


def device_name(device: str) -> str:
    """The GPU's or the CPU's name, as its maker prints it."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return cpu_name()


def machine(device: str) -> dict[str, Any]:
    """Device and threads: what two rows must have in common to be compared."""
    return {"device": device_name(device), "threads": torch.get_num_threads()}


def where(device: str) -> dict[str, Any]:
    """Device, threads, versions, commit and date; of a GPU also its clocks and power just now."""
    found = origin(PACKAGES)
    if device == "cuda":
        found["versions"]["cuda"] = str(torch.version.cuda)
        found["gpu"] = gpu_state()
    return machine(device) | found


def gpu_state() -> dict[str, float]:
    """Clocks (MHz), power (W) and temperature (degrees C) now; empty without nvidia-smi."""
    card = f"GPU-{torch.cuda.get_device_properties('cuda').uuid}"
    ask = ["nvidia-smi", f"--id={card}", f"--query-gpu={','.join(FIELDS)}"]
    try:
        done = subprocess.run(
            [*ask, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return parsed(done.stdout) if done.returncode == 0 else {}


def parsed(line: str) -> dict[str, float]:
    """nvidia-smi's line of numbers; a field that the card does not tell is left out."""
    found = {}
    for field, value in zip(FIELDS, line.strip().split(","), strict=False):
        try:
            found[field] = float(value)
        except ValueError:  # "[N/A]"
            continue
    return found
