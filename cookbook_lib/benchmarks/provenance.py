"""Where and when something was measured: without it, a number of seconds means nothing."""

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


def device_name(device: str) -> str:
    """The GPU's or the CPU's name, as its maker prints it."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return cpu_name()


def where(device: str) -> dict[str, Any]:
    """Device, threads, versions, commit and date; of a GPU also its clocks and power just now."""
    found = origin(PACKAGES)
    if device == "cuda":
        from cookbook_lib.benchmarks.cuda import gpu_state

        found["versions"]["cuda"] = str(torch.version.cuda)
        found["gpu"] = gpu_state()
    return {"device": device_name(device), "threads": torch.get_num_threads(), **found}
