"""Where this process stands among the ranks, whoever started it: torchrun, srun, mpirun, `launch`.

Each launcher tells its processes in environment variables. `place` reads them; nothing else does.
"""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

# launcher -> variables of rank, size, rank on this host and ranks on this host. The first whose
# rank and size are set is taken: torchrun may run inside srun, and mpirun inside a Slurm job.
LAUNCHERS = {
    "launch": ("COOKBOOK_RANK", "COOKBOOK_SIZE", "COOKBOOK_LOCAL_RANK", "COOKBOOK_LOCAL_SIZE"),
    # https://docs.pytorch.org/docs/stable/elastic/run.html
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    # https://docs.open-mpi.org/en/v5.0.x/tuning-apps/environment-var.html
    "mpirun": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    # MPICH and Intel MPI
    "mpiexec": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    # https://slurm.schedmd.com/srun.html: a batch script has SLURM_PROCID too, a step its tasks
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", ""),
}
PORTS = 65536 - 4096  # a Slurm job's port is one of the last 4096, by its id, as JAX chooses it


@dataclass(frozen=True, kw_only=True)
class Place:
    """One process among `size`; `local_rank` counts those on the same host."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    host: str
    launcher: str = "alone"


def place(env: Mapping[str, str] = os.environ) -> Place:
    """The place that the launcher gave this process; rank 0 of 1 if nobody launched it."""
    host = socket.gethostname()
    for launcher, names in LAUNCHERS.items():
        rank, size, local, beside = (env.get(name, "") for name in names)
        if rank and size:
            found = [number(names[0], rank), number(names[1], size)]
            if not found[0] < found[1]:
                raise ValueError(f"{names[0]} is {rank}, expected less than {names[1]}, {size}")
            if launcher == "srun" and not beside:  # "4(x2),3": of the first node, taken for all
                beside = re.split(r"\D", env.get("SLURM_STEP_TASKS_PER_NODE", ""))[0]
            return Place(
                rank=found[0],
                size=found[1],
                local_rank=number(names[2], local or "0"),
                local_size=number(names[3] or "SLURM_STEP_TASKS_PER_NODE", beside or "1"),
                host=host,
                launcher=launcher,
            )
    return Place(host=host)


def hosts(where: Place) -> int:
    """How many hosts the ranks are on, if each holds as many as this one."""
    return -(-where.size // where.local_size)


def number(name: str, text: str) -> int:
    if not text.isdigit():
        raise ValueError(f"{name} is {text!r}, expected a whole number, 0 or more")
    return int(text)


def master(env: Mapping[str, str] = os.environ) -> tuple[str, int] | None:
    """Host and port of rank 0 where the ranks can meet, if the environment tells them.

    MASTER_ADDR and MASTER_PORT, which torchrun sets and a user may; a Slurm step's first host.
    """
    if "MASTER_ADDR" in env and "MASTER_PORT" in env:
        return env["MASTER_ADDR"], number("MASTER_PORT", env["MASTER_PORT"])
    if "SLURM_STEP_NODELIST" in env and "SLURM_JOB_ID" in env:
        port = PORTS + number("SLURM_JOB_ID", env["SLURM_JOB_ID"]) % 4096
        return first_host(env["SLURM_STEP_NODELIST"]), port
    return None


def first_host(nodes: str) -> str:
    """The first of Slurm's list: "gpu[07-09,12],login" begins with gpu07."""
    name = re.match(r"([^\[,]+)(?:\[(\w+))?", nodes)
    if not name:
        raise ValueError(f"SLURM_STEP_NODELIST is {nodes!r}, expected names of hosts")
    return name[1] + (name[2] or "")
