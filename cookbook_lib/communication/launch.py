"""Start ranks as processes of this machine, and bring back what they return, or the first error.

No port is fixed: the ranks meet in a folder. No rank outlives the run, nor a parent that is killed.
`perform` does the same where torchrun, srun or mpirun has started the ranks: then this is one.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cookbook_lib
from cookbook_lib.commands.output import progress
from cookbook_lib.communication.member import LIMIT, member, news_file
from cookbook_lib.communication.ranks import Place
from cookbook_lib.communication.watch import Rank, watch


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Where a rank runs: a command in front of its own, as `ip netns exec NAME`, and variables.

    address: of this rank for the others, where it is not that of this machine.
    """

    prefix: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    address: str = ""


def perform(
    task: Callable[..., Any],
    todo: Sequence[Sequence[Any]],
    titles: Sequence[str],
    arguments: Mapping[str, Any],
    *,
    processes: int,
    where: Place,
    seats: Sequence[Seat] = (),
    limit: float = LIMIT,
    on_row: Callable[[dict[str, Any]], None],
) -> None:
    """Call `task(member, todo, **arguments)` on all ranks: started here, or by who started this.

    todo: the cases that are to be run, as JSON. Where there is a launcher it is rank 0's that
    counts, as only rank 0 reads the file of results; and `on_row` is called on rank 0. titles: what
    a bar on its terminal says of each case.
    """
    names = iter(titles)
    with progress(len(todo) if where.rank == 0 else 0) as begins:

        def came(row: dict[str, Any]) -> None:
            on_row(row)
            begins(next(names, ""))

        begins(next(names, ""))
        if where.size == 1:
            if todo:
                given = {"todo": todo, **arguments}
                launch(task, processes, given, seats=seats, limit=limit, on_row=came)
            return
        me = member(limit)
        me.on_row = came
        if where.rank == 0:
            me.publish("todo", json.dumps(todo))
        with stdout_to_stderr():
            task(me, todo=json.loads(me.lookup("todo")), **arguments)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Keep what gloo prints when it connects out of the result."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def launch(
    task: Callable[..., Any],
    ranks: int,
    arguments: Mapping[str, Any] | None = None,
    *,
    seats: Sequence[Seat] = (),
    limit: float = LIMIT,
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> list[Any]:
    """Call `task(member, **arguments)` in each of `ranks` processes; what they return, by rank.

    task: a function of a module that can be imported. Arguments and results are JSON.
    seats: where each rank runs, by default here.
    limit: seconds that an operation, one `with member.doing(…)`, may take.
    on_row: is called with each row that rank 0 emits, as it comes.
    `RankError` names the rank and the operation; a `ValueError` in a rank is raised here as one.
    """
    if ranks < 1:
        raise ValueError(f"ranks is {ranks}, expected 1 or more")
    if limit <= 0:
        raise ValueError(f"limit is {limit:g}, expected seconds, above 0")
    if seats and len(seats) != ranks:
        raise ValueError(f"seats are {len(seats)}, expected one for each of {ranks} ranks")
    if task.__module__ == "__main__":
        raise ValueError(f"task is {task.__qualname__} of __main__, expected one of a module")
    with tempfile.TemporaryDirectory(prefix="cookbook-") as name:
        folder = Path(name)
        (folder / "arguments").write_text(json.dumps(dict(arguments or {})))
        started: list[Rank] = []
        try:
            for number in range(ranks):
                seat = seats[number] if seats else Seat()
                started.append(start(task, number, ranks, seat, folder, limit))
            return watch(started, on_row)
        finally:
            for rank in started:
                with suppress(ProcessLookupError):
                    os.killpg(rank.process.pid, signal.SIGKILL)
                rank.process.wait()
                rank.process.stdin.close()


def start(task: Callable, number: int, ranks: int, seat: Seat, folder: Path, limit: float) -> Rank:
    where = {"RANK": number, "SIZE": ranks, "LOCAL_RANK": number, "LOCAL_SIZE": ranks}
    threads = max(1, (os.cpu_count() or 1) // ranks)
    env = {
        "OMP_NUM_THREADS": str(threads),
        **os.environ,
        **{f"COOKBOOK_{name}": str(value) for name, value in where.items()},
        "COOKBOOK_FOLDER": str(folder),
        "COOKBOOK_LIMIT": str(limit),
        "COOKBOOK_ADDRESS": seat.address,
        # the same cookbook_lib, and the caller's modules
        "PYTHONPATH": os.pathsep.join([str(Path(cookbook_lib.__file__).parents[1]), *sys.path]),
        **seat.env,
    }
    program = [sys.executable, "-m", "cookbook_lib.communication.started"]
    log = folder / f"rank-{number}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*seat.prefix, *program, f"{task.__module__}:{task.__qualname__}", str(os.getpid())],
            env=env,
            stdin=subprocess.PIPE,  # its end tells a rank that this process is gone
            stdout=file,
            stderr=file,
            start_new_session=True,  # Ctrl-C is the parent's to pass on
        )
    return Rank(number, process, news_file(folder, number), log)
