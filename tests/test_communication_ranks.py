"""A process knows its rank under torchrun, mpirun, MPICH and Slurm, from what each of them sets."""

import os
import subprocess
import sys

import pytest

from cookbook_lib.communication.ranks import first_host, master, place

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "6",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "3",
}
BATCH = {"SLURM_JOB_ID": "70001", "SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}
SRUN = BATCH | {
    "SLURM_PROCID": "6",
    "SLURM_LOCALID": "2",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
}
HYDRA = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, (0, 1, 0, 1, "alone")),
        (TORCHRUN, (5, 8, 1, 4, "torchrun")),
        (MPIRUN, (3, 6, 0, 3, "mpirun")),
        (HYDRA, (1, 2, 1, 2, "mpiexec")),
        (SRUN, (6, 8, 2, 4, "srun")),
        (BATCH, (0, 1, 0, 1, "alone")),  # a batch script is no step: it launches them
        (SRUN | TORCHRUN, (5, 8, 1, 4, "torchrun")),
        (SRUN | MPIRUN, (3, 6, 0, 3, "mpirun")),
    ],
)
def test_the_place_is_what_the_launcher_says(env, expected):
    found = place(env)
    got = (found.rank, found.size, found.local_rank, found.local_size, found.launcher)
    assert got == expected


def test_the_ranks_meet_at_the_masters_port_or_at_the_first_host_of_a_step():
    assert master({}) is None
    assert master(TORCHRUN | {"MASTER_ADDR": "a", "MASTER_PORT": "29500"}) == ("a", 29500)
    assert master(SRUN) == ("gpu007", 61440 + 70001 % 4096)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("a,b", "a"), ("gpu[07-09,12],x", "gpu07"), ("n-1-[3,5]", "n-1-3")],
)
def test_the_first_host_of_a_list_of_slurm(nodes, first):
    assert first_host(nodes) == first


def test_a_variable_that_is_no_rank_is_refused():
    with pytest.raises(ValueError, match="RANK is 'x', expected a whole number"):
        place({"RANK": "x", "WORLD_SIZE": "2"})
    with pytest.raises(ValueError, match="RANK is 2, expected less than WORLD_SIZE, 2"):
        place({"RANK": "2", "WORLD_SIZE": "2"})


def test_a_rank_without_a_parent_ends_itself_and_says_in_which_operation():
    """As under torchrun, srun or mpirun: a rank that never comes must not keep the others."""
    program = """
import time
from cookbook_lib.communication.member import member
with member(limit=0.5).doing("all_reduce of 4 KiB"):
    time.sleep(100)
"""
    env = {**os.environ, **TORCHRUN, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "cookbook: rank 5 of 8, all_reduce of 4 KiB: not done after 0.5 s: a rank is slow or dead\n"
    )
