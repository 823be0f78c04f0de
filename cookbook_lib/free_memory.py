"""How much memory can be taken, and a limit beyond which taking more fails inside the process.

Without one, Linux gives more than it has and then kills. Standard library only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_MEMORY = "out of memory"  # the outcome of a row whose size did not fit
WORDS = (  # of errors that are no MemoryError, in small letters
    "can't allocate memory",  # torch on a CPU
    "out of memory",  # torch and XLA on a GPU, XLA on a CPU
    "bad_alloc",  # C++
)
GROUPS = (  # limit and use of a control group of version 2 and of 1, what of the use can be freed
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)  # https://docs.kernel.org/admin-guide/cgroup-v2.html, and cgroup-v1/memory.html


def ran_out(error: BaseException) -> bool:
    """Whether an exception says that memory was too small, in whatever words."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in WORDS)


def available(root: Path = Path("/")) -> int | None:
    """Bytes that this process can take: of the host's, and of its control group's; None if unknown.

    A batch system or a container gives a job a control group, which /proc/meminfo does not tell of.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min([*free, *left_in_groups(root)], default=None)


def left_in_groups(root: Path) -> Iterator[int]:
    """Bytes left in each control group that holds this process, from the innermost outwards."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for kind, most, used, cached in GROUPS:
        top = root / "sys/fs/cgroup" / kind
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if kind not in controllers.split(","):
                continue
            place = top / path.lstrip("/")
            for group in (place, *(p for p in place.parents if p.is_relative_to(top))):
                try:
                    limit, use = ((group / name).read_text().strip() for name in (most, used))
                    stat = (group / "memory.stat").read_text().split()
                except OSError:  # the outermost has none
                    continue
                if limit != "max":
                    free = dict(zip(stat[::2], stat[1::2], strict=True)).get(cached, "0")
                    yield max(0, int(limit) - int(use) + int(free))


@contextmanager
def limited(nbytes: int | None = None) -> Iterator[None]:
    """Allocations beyond what is free fail inside, instead of the process being killed (Linux).

    nbytes: what may be allocated beyond what the process holds; what is free by default. A limit
    that the process already has stays.
    """
    status, free = Path("/proc/self/status"), available() if nbytes is None else nbytes
    if free is None or not status.exists():
        yield
        return
    import resource

    old = resource.getrlimit(resource.RLIMIT_AS)
    lines = status.read_text().splitlines()
    held = next(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmSize:"))
    most = min(held + free, *(x for x in (*old, 2**63 - 1) if x != resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_AS, (most, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)
