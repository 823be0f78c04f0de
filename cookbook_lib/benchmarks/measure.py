"""Seconds of two things side by side, their peak memory, and where they were measured."""

import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

import torch


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(run: Callable[[], object]) -> float:
    """How long one call takes, until the device is done."""
    synchronise()
    start = perf_counter()
    run()
    synchronise()
    return perf_counter() - start


def interleaved(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, in turn, so that what slows the machine slows all; once before it counts."""
    rounds = [{name: seconds(run) for name, run in runs.items()} for _ in range(repeats + 1)]
    return {name: [r[name] for r in rounds[1:]] for name in runs}


def peak_of(run: Callable[[], object]) -> int:
    """Bytes that a call holds at most, beyond what was held before it.

    On a CPU of the process as a whole: call it in a fresh one. Where Linux does not let a process
    forget its peak, a call that stays below what importing took counts as 0.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        before = most_resident()
    else:
        before = status("VmRSS")
    run()
    return most_resident() - before


def most_resident() -> int:
    """The most bytes of memory that this process has held, since its peak was last forgotten."""
    if Path("/proc/self/status").exists():
        return status("VmHWM")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def status(field: str) -> int:
    """Bytes in a line of Linux's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith(field + ":")) * 1024


def in_a_fresh_process(program: str, *arguments: str) -> str:
    """What a Python program prints; what it says on standard error is raised if it fails."""
    run = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(run, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return done.stdout.strip()


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


def where(device: str) -> dict[str, str | int]:
    """Device, threads, versions and date: what a measurement means nothing without."""
    packages = ("torch", "transformers", "mamba-ssm", "causal-conv1d")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "versions": found,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
