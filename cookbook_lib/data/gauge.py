"""What a step takes: processor time, and the most memory that a process holds while it runs."""

import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Gauge:
    """Seconds of each step, added up over processes, and bytes of the process that held most."""

    seconds: Counter = field(default_factory=Counter)
    peaks: Counter = field(default_factory=Counter)

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        lower_mark()
        started = time.perf_counter()
        yield
        self.seconds[step] += time.perf_counter() - started
        self.peaks[step] = max(self.peaks[step], high_mark())

    def add(self, found: dict[str, Any]) -> None:
        """Join what `to_json` gave for another process."""
        self.seconds.update(found["seconds"])
        for step, nbytes in found["peaks"].items():
            self.peaks[step] = max(self.peaks[step], nbytes)

    def to_json(self) -> dict[str, Any]:
        return {"seconds": dict(self.seconds), "peaks": dict(self.peaks)}


def lower_mark() -> None:
    """Let the high mark of this process start again from what it holds now, where Linux can.

    Elsewhere the mark only rises, and a step's peak is that of all before it as well.
    """
    with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # proc(5): resets the peak resident set size


def high_mark() -> int:
    """The most bytes of memory that this process has held since the mark was lowered."""
    with suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
