"""The most memory that a call holds, on a GPU or in a process of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch


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
