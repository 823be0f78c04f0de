"""Two ranks train as one process does: split weights (FSDP2) or copies, AdamW or Muon.

Losses and gradient norms are the same within rounding, with clipping at work, and a checkpoint that
one process wrote is read by two, and the other way round.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from looped import losses, one_thread, run, shared  # noqa: F401
from ranked_runs import CASES, RUNS

from cookbook_lib.training import checkpoints
from cookbook_lib.training.ranks import Ranks, joined, started
from cookbook_lib.training.session import Session, train

pytestmark = pytest.mark.usefixtures("one_thread")
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def two(tmp_path_factory, one_thread):  # noqa: F811
    """What two processes under torchrun found, and the folder of their checkpoints."""
    folder = tmp_path_factory.mktemp("ranks")
    train(run(3, make=shared), Session(folder=folder / "by-one", every=3, bar=False))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(HERE / "ranked_runs.py"), str(folder)],
        cwd=HERE.parent,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads((folder / "rows.json").read_text())


def environment() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": f"{HERE.parent}", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("name, how", RUNS)
def test_two_ranks_have_the_losses_and_norms_of_one(two, name, how):
    r = run(4, **CASES[name] | {"compile": False})
    one = [r.advance() for _ in range(4)]
    for row, (loss, norm) in zip(one, two[1][f"{name} {how}"], strict=True):
        assert loss == pytest.approx(row["loss"], rel=2e-4)
        assert norm == pytest.approx(row["norm"], rel=2e-3)
    assert one[0]["norm"] > CASES[name]["clip"], "clipping is at work"


def test_two_ranks_go_on_from_the_checkpoint_of_one(two):
    assert two[1]["from one"] == pytest.approx(losses(run(6, make=shared))[3:], rel=2e-4)


def test_one_goes_on_from_the_checkpoint_of_two(two):
    folder = two[0] / "by-two/checkpoints"
    assert [path.name for path in checkpoints.saved(folder)] == ["step-2", "step-3"]
    assert {f"__{rank}_0.distcp" for rank in (0, 1)} < {
        p.name for p in (folder / "step-3").iterdir()
    }
    r = run(6, make=shared)
    checkpoints.load(folder / "step-3", state := r.state(), Ranks())
    r.load(state, checkpoints.progress(folder / "step-3"))
    assert r.step == 3
    assert losses(r) == pytest.approx(losses(run(6, make=shared))[3:], rel=2e-4)


def test_ranks_that_cannot_be_are_named(monkeypatch):
    with pytest.raises(ValueError, match="shards is 2, expected a divisor of the number of ranks"):
        joined(Ranks().device, shards=2)
    with pytest.raises(ValueError, match="batch is 3, expected a multiple of 2 ranks"):
        run(batch=3, ranks=Ranks(size=2))
    with pytest.raises(ValueError, match="device is tpu"), started("tpu"):
        pass


LEAVES = """
import gc, os, sys
from pathlib import Path
from cookbook_lib.commands.train import train_run

train_run(Path(sys.argv[1]), "m", 32, vocab=300, length=32, batch=2, tokens=64, device="cpu")
gc.collect()
names = [Path(f"/proc/self/task/{task}/comm").read_text() for task in os.listdir("/proc/self/task")]
Path(sys.argv[2] + os.environ["RANK"]).write_text("".join(names))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are listed on Linux")
def test_no_thread_of_a_process_group_is_left_when_python_ends(tmp_path):
    (tmp_path / "leaves.py").write_text(LEAVES)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    places = [tmp_path / name for name in ("leaves.py", "run", "left")]
    done = subprocess.run(
        [*torchrun, *map(str, places)], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    left = [(tmp_path / f"left{rank}").read_text() for rank in (0, 1)]
    assert all("python" in names and "gloo" not in names for names in left), left
