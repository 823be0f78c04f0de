"""A run that was stopped, however it was, goes on as if it had not been.

Its losses are the same to the last bit. A killed process loses no good checkpoint, a damaged one is
found and the one before it is used, and what cannot be written or is no number stops the run.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from looped import Drawn, losses, one_thread, run, shared  # noqa: F401

from cookbook_lib import results
from cookbook_lib.training import checkpoints
from cookbook_lib.training.metrics import Lines
from cookbook_lib.training.ranks import Ranks
from cookbook_lib.training.session import Session, train

pytestmark = pytest.mark.usefixtures("one_thread")
HERE = Path(__file__).parent


def session(folder: Path, **more) -> Session:
    return Session(**{"folder": folder, "every": 2, "bar": False} | more)


def told(folder: Path) -> list[tuple[int, float]]:
    """Step and loss of each row of metrics."""
    return [(row["step"], row["loss"]) for row in results.read(folder / "metrics.jsonl")]


def steps(folder: Path) -> list[str]:
    return [path.name for path in checkpoints.saved(folder / "checkpoints")]


class Stopped(Exception):
    pass


def until(step: int):
    """A measurement that breaks the run off, before what is due after that step is done."""

    def measure(r) -> dict:
        if r.step == step:
            raise Stopped
        return {}

    return measure


@pytest.mark.parametrize("options", [{}, {"optimizer": "muon", "make": shared, "bf16": True}])
@pytest.mark.parametrize("stop", range(2, 7))
def test_a_run_that_was_stopped_at_any_step_has_the_same_losses_to_the_last_bit(
    tmp_path, stop, options
):
    whole = losses(run(6, **options))
    with pytest.raises(Stopped):
        train(run(6, **options), session(tmp_path, every=1), until(stop))
    torch.rand(3)  # whatever else happens in between
    report = train(run(6, **options), session(tmp_path, every=1, resume=True))
    assert told(tmp_path) == list(enumerate(whole, 1))
    assert report["done"] and report["steps"] == 6


def test_steps_after_the_checkpoint_are_done_again_and_told_once(tmp_path):
    with pytest.raises(Stopped):
        train(run(6), session(tmp_path, every=2), until(6))
    assert [step for step, _ in told(tmp_path)] == [1, 2, 3, 4, 5]
    assert steps(tmp_path) == ["step-2", "step-4"]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # killed while it wrote
    train(run(6), session(tmp_path, resume=True))
    assert told(tmp_path) == list(enumerate(losses(run(6)), 1))


def test_random_numbers_go_on_too(tmp_path):
    def drawing(r) -> dict:
        return {"drawn": torch.rand(()).item()}

    def broken(r) -> dict:
        if r.step == 5:
            raise Stopped
        return drawing(r)

    train(run(6), session(tmp_path / "whole"), drawing)
    with pytest.raises(Stopped):
        train(run(6), session(tmp_path / "parts"), broken)
    train(run(6), session(tmp_path / "parts", resume=True), drawing)
    a, b = (results.read(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts"))
    assert [row["drawn"] for row in a] == [row["drawn"] for row in b]


@pytest.mark.parametrize("how", ["at", "after"])
def test_a_run_that_is_killed_at_any_moment_loses_no_good_checkpoint(tmp_path, how):
    done = subprocess.run(
        [sys.executable, str(HERE / "killed_runs.py"), str(tmp_path), how],
        env=os.environ | {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["deaths"] >= 12
    assert found["losses"] == losses(run(len(found["losses"])))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a bit of the tensors": lambda p: flip(p / "__0_0.distcp"),
    "a bit of the index": lambda p: flip(p / ".metadata"),
    "a bit of the manifest": lambda p: flip(p / "manifest.json"),
    "an end cut off": lambda p: os.truncate(p / "__0_0.distcp", 5000),
    "a file gone": lambda p: (p / ".metadata").unlink(),
    "no manifest": lambda p: (p / "manifest.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_said_and_the_one_before_it_used(tmp_path, capsys, damage):
    train(run(4), session(tmp_path))
    whole = told(tmp_path)
    DAMAGE[damage](tmp_path / "checkpoints/step-4")
    train(run(4), session(tmp_path, resume=True))
    said = capsys.readouterr().err
    assert "step-4 is damaged, the one before it is used: " in said
    assert "goes on after step 2" in said
    assert told(tmp_path) == whole
    assert steps(tmp_path) == ["step-2", "step-4"]
    assert (tmp_path / "checkpoints/damaged-step-4").is_dir(), "what is damaged is not thrown away"


def test_where_all_are_damaged_the_run_begins_anew(tmp_path, capsys):
    train(run(4), session(tmp_path))
    for path in checkpoints.saved(tmp_path / "checkpoints"):
        flip(path / "__0_0.distcp")
    train(run(4), session(tmp_path, resume=True))
    assert capsys.readouterr().err.count("is damaged") == 2
    assert told(tmp_path) == list(enumerate(losses(run(4)), 1))


def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(tmp_path):
    """A limit on the size of a file stands for a disk that takes no more."""
    train(run(2), session(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(ValueError, match="checkpoint at step 4 cannot be written") as error:
            train(run(4), session(tmp_path, resume=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    line = str(error.value)
    assert "\n" not in line and "step-2 is intact" in line
    assert os.listdir(tmp_path / "checkpoints") == ["step-2"]
    assert checkpoints.manifest(tmp_path / "checkpoints/step-2")["step"] == 2
    train(run(4), session(tmp_path, resume=True))
    assert told(tmp_path) == list(enumerate(losses(run(4)), 1))


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_last_checkpoint(tmp_path):
    def poison(r) -> dict:
        if r.step == 3:
            with torch.no_grad():
                next(r.model.parameters()).fill_(float("nan"))
        return {}

    with pytest.raises(ValueError, match="loss is nan.* step 4; the last good .*: step 2"):
        train(run(6), session(tmp_path), poison)
    assert steps(tmp_path) == ["step-2"]
    train(run(6), session(tmp_path, resume=True))
    assert told(tmp_path) == list(enumerate(losses(run(6)), 1))


def test_sigterm_saves_and_ends(tmp_path, capsys):
    def ask(r) -> dict:
        if r.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    before = signal.getsignal(signal.SIGTERM)
    report = train(run(6), session(tmp_path, every=100), ask)
    assert (report["step"], report["done"]) == (3, False)
    assert steps(tmp_path) == ["step-3"]
    assert "asked to stop: saved after step 3 of 6" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before
    train(run(6), session(tmp_path, resume=True))
    assert told(tmp_path) == list(enumerate(losses(run(6)), 1))


def test_only_the_last_so_many_are_kept(tmp_path):
    train(run(6), session(tmp_path, every=1, keep=2))
    assert steps(tmp_path) == ["step-5", "step-6"]
    assert len(os.listdir(tmp_path / "checkpoints")) == 2


def test_a_folder_is_for_one_run_at_a_time(tmp_path):
    with (
        checkpoints.alone(tmp_path),
        pytest.raises(ValueError, match="is in use by another run"),
    ):
        train(run(2), session(tmp_path))
    train(run(2), session(tmp_path))
    with pytest.raises(ValueError, match="holds a run: resume it, or name another"):
        train(run(2), session(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be used"):
        train(run(2), session(tmp_path / "file"))


def test_a_checkpoint_of_another_kind_of_run_is_refused(tmp_path):
    train(run(2), session(tmp_path))
    for other, line in (
        ({"make": shared}, "model is tiny zamba2, expected tiny m-a-"),
        ({"batch": 2}, "batch is 2, expected 4"),
        ({"optimizer": "muon"}, "optimizer is muon, expected adamw"),
    ):
        with pytest.raises(ValueError, match=line):
            train(run(4, **other), session(tmp_path, resume=True))
    assert checkpoints.newest(tmp_path / "checkpoints", Ranks(), print).name == "step-2"


def test_rows_say_how_fast_it_was_and_tensorboard_the_same(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(run(2), session(tmp_path, tensorboard=True))
    train(run(4), session(tmp_path, tensorboard=True, resume=True))
    rows = results.read(tmp_path / "metrics.jsonl")
    for row in rows:
        assert row["tokens_per_second"] == pytest.approx(4 * Drawn.length / row["seconds"])
        assert 0 < row["mfu"] < 1
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    seen = board.Scalars("loss")
    assert [event.step for event in seen] == [1, 2, 3, 4]
    assert [event.value for event in seen] == pytest.approx([row["loss"] for row in rows])


def test_rows_behind_a_step_are_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": i}) + "\n" for i in range(1, 6)))
    Lines(path, 3)
    assert [row["step"] for row in results.read(path)] == [1, 2, 3]
    assert np.array_equal(os.listdir(tmp_path), ["metrics.jsonl"])


def test_settings_that_cannot_be_are_named(tmp_path):
    with pytest.raises(ValueError, match="every is 0"):
        session(tmp_path, every=0)
    with pytest.raises(ValueError, match="keep is 0"):
        session(tmp_path, keep=0)
