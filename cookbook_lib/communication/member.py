"""One rank's side of a run: it says what it is doing, and where the ranks meet.

A rank that `launch` started writes its news as JSON lines to a file of its own, which the parent
reads. One that torchrun, srun or mpirun started has no such parent: it keeps the time limit itself.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
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
        watch = None if self.parent else threading.Timer(limit, self.give_up, [limit])
        if watch:
            watch.daemon = True
            watch.start()
        try:
            yield
        except Exception as error:
            self.failed_at = time.monotonic()  # what it breaks in other ranks comes later
            if isinstance(error, ValueError | RankError) or self.parent:
                raise
            raise RankError(self.line(said(error)), self.place.rank, operation) from error
        finally:
            if watch:
                watch.cancel()
        self.tell(done=operation)
        self.operation = "between operations"

    def line(self, what: str) -> str:
        return f"rank {self.place.rank} of {self.place.size}, {self.operation}: {what}"

    def give_up(self, limit: float) -> None:
        """End this process in the middle of an operation that nothing else can end."""
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


def end_with(parent: int) -> None:
    """End this process with its parent, however that ends: by the kernel's word on Linux.

    Elsewhere by the end of standard input, which the parent holds open; a stopped process does not
    see that.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, prctl(2)
        if os.getppid() != parent:  # it was gone before the line above
            os._exit(1)
        return

    def watch() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run(task: str, parent: int) -> None:
    """The program of a rank that `launch` started: one function, whose result is told."""
    end_with(parent)
    me = member(float(os.environ["COOKBOOK_LIMIT"]))
    assert me.folder
    try:
        module, _, name = task.partition(":")
        function: Callable = getattr(import_module(module), name)
        result = function(me, **json.loads((me.folder / "arguments").read_text()))
        me.tell(result=result)
    except Exception as error:
        when = me.failed_at or time.monotonic()
        wrong = isinstance(error, ValueError)
        me.tell(error=said(error), operation=me.operation, wrong=wrong, failed_at=when)
        raise


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
