"""One rank's side of a run: it says what it is doing, and where the ranks meet.

A rank that `launch` started writes its news as JSON lines to a file of its own, which the parent
reads. One that torchrun, srun or mpirun started has no such parent: it keeps the time limit itself.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cookbook_lib.communication.ranks import Place, master, place

LIMIT = 60.0  # seconds of one operation


class RankError(RuntimeError):
    """A rank died, failed or took too long: one line that names the rank and its operation."""

    def __init__(self, line: str, rank: int | None = None, operation: str = ""):
        super().__init__(line)
        self.rank, self.operation = rank, operation


class Member:
    """A rank of a run: its `place`, and the ways to say what it does."""

    def __init__(self, where: Place, folder: Path | None = None, limit: float = LIMIT):
        self.place, self.limit = where, limit
        self.folder = folder  # shared by all ranks, if there is one
        self.operation = "starting"
        self.failed_at: float | None = None
        self.parent = where.launcher == "launch"
        self.on_row: Callable[[dict[str, Any]], None] | None = None  # of rank 0, without a parent

    def tell(self, **news: Any) -> None:
        if self.parent and self.folder:
            with news_file(self.folder, self.place.rank).open("a") as file:
                file.write(json.dumps(news) + "\n")

    def emit(self, row: Mapping[str, Any]) -> None:
        """Hand a row to whoever waits for the result, at once: only rank 0's are taken."""
        if self.place.rank == 0:
            self.tell(row=dict(row))
            if self.on_row:
                self.on_row(dict(row))

    @contextmanager
    def doing(self, operation: str, limit: float | None = None) -> Iterator[None]:
        """Name what follows, so that an error or a standstill in it can be told by its name.

        limit: seconds that it may take, if not those of the run. Operations do not nest. Not for
        the timed part of a measurement: it writes to a file.
        """
        self.operation, limit = operation, limit or self.limit
        self.failed_at = None
        self.tell(doing=operation, limit=limit)
        done = threading.Event()
        if not self.parent:
            threading.Thread(target=self.look_on, args=[done, limit], daemon=True).start()
        try:
            yield
        except Exception as error:
            self.failed_at = time.monotonic()  # what it breaks in other ranks comes later
            if isinstance(error, ValueError | RankError) or self.parent:
                raise
            raise RankError(self.line(said(error)), self.place.rank, operation) from error
        finally:
            done.set()
        self.tell(done=operation)
        self.operation = "between operations"

    def line(self, what: str) -> str:
        return f"rank {self.place.rank} of {self.place.size}, {self.operation}: {what}"

    def look_on(self, done: threading.Event, limit: float) -> None:
        """End this process in the middle of an operation that nothing else can end.

        The time is counted in steps: one in which all processes are paused is nobody's fault.
        """
        step = min(0.5, limit / 4)
        for _ in range(int(limit / step)):
            if done.wait(step):
                return
        line = self.line(f"not done after {limit:g} s: a rank is slow or dead")
        sys.stderr.write(f"cookbook: {line}\n")
        sys.stderr.flush()
        os._exit(1)

    def publish(self, key: str, value: str) -> None:
        """Tell all ranks, once: see `lookup`."""
        if self.folder:
            draft = self.folder / f"{key}.draft"
            draft.write_text(value)
            draft.rename(self.folder / key)
        else:
            self.store().set(key, value)

    def lookup(self, key: str) -> str:
        """What one rank published; waits for it, as long as an operation may take."""
        if not self.folder:
            return self.store().get(key).decode()
        end = time.monotonic() + self.limit
        while not (path := self.folder / key).exists():
            if time.monotonic() > end:
                raise RankError(self.line(f"nobody has said {key!r}"), self.place.rank)
            time.sleep(0.01)
        return path.read_text()

    def store(self) -> Any:
        """torch's store where the ranks meet: a file in their folder, or at the master's port."""
        from datetime import timedelta

        from torch.distributed import FileStore, PrefixStore, TCPStore

        if not hasattr(self, "_store"):
            if self.folder:
                self._store = FileStore(str(self.folder / "store"), self.place.size)
            else:
                host, port = met()
                mine = self.place.rank == 0 and "TORCHELASTIC_USE_AGENT_STORE" not in os.environ
                patience = timedelta(seconds=self.limit)
                store = TCPStore(host, port, self.place.size, mine, timeout=patience)
                again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
                self._store = PrefixStore(f"cookbook/{again}", store)
        return self._store


def met() -> tuple[str, int]:
    if found := master():
        return found
    raise ValueError(
        "MASTER_ADDR and MASTER_PORT are not set, expected the host of rank 0 and a free port of "
        "it: this launcher tells neither to its processes"
    )


def member(limit: float = LIMIT) -> Member:
    """This process as a rank, whoever launched it."""
    where = place()
    folder = os.environ.get("COOKBOOK_FOLDER")
    if where.launcher == "mpirun" and where.local_size == where.size and master() is None:
        folder = os.environ.get("PMIX_SERVER_TMPDIR")  # of this mpirun alone, which removes it
    return Member(where, Path(folder) if folder else None, limit)


def news_file(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.jsonl"


def said(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
