"""`make gpu` needs little beside PyTorch, begins with what is not measured, and loses nothing."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import distribution, files, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cookbook_lib import results
from cookbook_lib.benchmarks import gpu, gpu_plan, gpu_work
from cookbook_lib.benchmarks.gpu_decoding import split
from cookbook_lib.benchmarks.gpu_work import matmuls, run_tests, steps, swiglu
from cookbook_lib.benchmarks.sweep import NO_MEMORY
from cookbook_lib.benchmarks.wanted import NOTHING, Here, Wanted

ROOT = Path(__file__).parents[1]
HERE = Here(device="cpu", name="a device", tiny=True)
RAN: list[tuple[str, int]] = []


def make(name, outcome="measured"):
    def run(case):
        RAN.append((name, case["n"]))
        if outcome == "raises":
            raise RuntimeError("broken")
        if outcome == NO_MEMORY:
            raise MemoryError
        return {"outcome": outcome, "date": f"2026-01-0{case['n'] + 1}", "device": HERE.name}

    return lambda here: Wanted(cases=[{"part": name, "n": n} for n in range(3)], run=run)


def first(here):
    return make("first")(here)


def second(here):
    return make("second")(here)


def absent(here):
    raise ModuleNotFoundError("No module named 'einops'", name="einops")


def broken(here):
    return make("broken", "raises")(here)


def large(here):
    return make("large", NO_MEMORY)(here)


def quiet(here):
    return make("quiet", NOTHING)(here)


@pytest.fixture
def plan(monkeypatch):
    """A plan of these parts, in a module of its own."""
    monkeypatch.setitem(sys.modules, "plan_of_a_test", sys.modules[__name__])
    monkeypatch.setattr(gpu, "device_name", lambda device: HERE.name)
    RAN.clear()

    def of(*names, seconds=0.0):
        parts = [
            gpu_plan.Part(name, f"rows_{name}", f"plan_of_a_test:{name}", seconds, ())
            for name in names
        ]
        monkeypatch.setattr(gpu, "PLAN", tuple(parts))

    return of


def test_parts_take_turns_and_nothing_is_measured_twice(plan, tmp_path):
    plan("first", "second")
    gpu.gpu(device="cpu", out=tmp_path)
    assert [(name, n) for n in range(3) for name in ("first", "second")] == RAN
    rows = results.read(tmp_path / "rows_first.jsonl")
    assert [row["n"] for row in rows] == [0, 1, 2] and len({row["code"] for row in rows}) == 1
    gpu.gpu(device="cpu", out=tmp_path)
    assert len(RAN) == 6 and results.read(tmp_path / "rows_first.jsonl") == rows


def test_what_was_never_measured_comes_before_what_older_code_measured(plan, tmp_path, monkeypatch):
    plan("first")
    gpu.gpu(device="cpu", out=tmp_path)
    monkeypatch.setattr(gpu_plan, "code", lambda part: "newer")
    plan("first", "second")
    RAN.clear()
    gpu.gpu(device="cpu", out=tmp_path)
    assert [("second", 0), ("second", 1), ("second", 2)] + [("first", n) for n in range(3)] == RAN
    assert len(results.read(tmp_path / "rows_first.jsonl")) == 6
    monkeypatch.setattr(gpu, "device_name", lambda device: "another device")
    gpu.gpu(device="cpu", out=tmp_path)
    assert len(RAN) == 12  # the rows of one device are none of the other's


def test_no_case_begins_that_may_not_end_in_time(plan, tmp_path, capsys):
    plan("first", seconds=30.0)
    gpu.gpu(device="cpu", out=tmp_path, budget=20.0)
    assert not RAN and "0 rows measured, 0 cases failed, 3 left" in capsys.readouterr().out
    gpu.gpu(device="cpu", out=tmp_path, budget=60.0)
    assert len(RAN) == 3


def test_what_cannot_run_is_said_and_does_not_cost_the_others(plan, tmp_path, capsys):
    plan("absent", "broken", "large", "quiet", "first")
    with pytest.raises(SystemExit, match="1"):
        gpu.gpu(device="cpu", out=tmp_path)
    said = capsys.readouterr().out
    assert "absent: left out, this Python has no einops" in said
    assert "RuntimeError: broken" in said and "6 rows measured, 3 cases failed" in said
    assert {row["outcome"] for row in results.read(tmp_path / "rows_large.jsonl")} == {NO_MEMORY}
    assert not (tmp_path / "rows_broken.jsonl").read_text()
    assert not (tmp_path / "rows_quiet.jsonl").read_text()


def test_what_is_missing_can_be_shown(plan, tmp_path, capsys):
    plan("first", "second")
    gpu.main(["--device", "cpu", "--out", str(tmp_path), "--show", "--only", "second"])
    assert not RAN and capsys.readouterr().out.splitlines()[1:] == [
        f"second: second {n}" for n in range(3)
    ]


def test_half_a_line_of_a_run_that_was_killed_is_measured_again(plan, tmp_path):
    plan("first")
    gpu.gpu(device="cpu", out=tmp_path)
    file = tmp_path / "rows_first.jsonl"
    whole = file.read_text()
    file.write_text(whole[: len(whole) - 20])
    RAN.clear()
    gpu.gpu(device="cpu", out=tmp_path)
    assert RAN == [("first", 2)] and file.read_text() == whole


SMALL = """
import sys
from cookbook_lib.benchmarks import ceilings, gpu
ceilings.SIDES, ceilings.COPIED = {"cpu": (64,)}, {"cpu": 2**16}
gpu.main(sys.argv[1:])
"""
CARRIED = re.search("^GPU_IMPORTS := (.+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]


def linked(folder: Path, *names: str) -> Path:
    """A folder of installed packages that holds only these."""
    folder.mkdir()
    places = {file.parts[0]: distribution(name) for name in names for file in files(name) or []}
    for top in places.keys() - {"..", "__pycache__"}:
        (folder / top).symlink_to(places[top].locate_file(top))
    return folder


def with_needs(*names: str) -> set[str]:
    """These packages and all that they need."""
    found, todo = set(), [Requirement(name) for name in names]
    while todo:
        asked = todo.pop()
        if asked.name not in found and (not asked.marker or asked.marker.evaluate({"extra": ""})):
            found.add(asked.name)
            todo += [Requirement(line) for line in requires(asked.name) or []]
    return found


@pytest.fixture
def bare(tmp_path):
    """A Python that holds PyTorch and what it needs, measures small ceilings and rehearses."""
    small, python = tmp_path / "small.py", tmp_path / "python"
    small.write_text(SMALL)
    torch = linked(tmp_path / "torch", *with_needs("torch"))
    python.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "-m cookbook_lib.benchmarks.gpu" ] && shift 2 || exit 9\n'
        f'export PYTHONPATH="$PYTHONPATH:{torch}:{ROOT}"\nexec {sys.executable} -S {small} "$@"\n'
    )
    python.chmod(0o755)
    return python


def make_gpu(python: Path, packages: Path, rows: Path, more: str = "") -> dict:
    """How to start it."""
    args = ["make", "gpu", f"GPU_PYTHON={python}", f"GPU_PACKAGES={packages}"]
    args += [f"ARGS=--device cpu --budget 240 --out {rows} {more}"]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "PYTHON"))}
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    return {"args": args, "cwd": ROOT, "env": env, "text": True, **pipes}


def test_it_runs_with_pytorch_alone_and_goes_on_after_a_kill(bare, tmp_path):
    """Killed once a row is there; the second run measures the rest."""
    rows = tmp_path / "rows"
    asked = make_gpu(bare, tmp_path / "nothing", rows)
    started = subprocess.Popen(**asked, start_new_session=True)
    try:
        end = time.monotonic() + 300
        while not list(rows.glob("*.jsonl")):
            assert started.poll() is None and time.monotonic() < end, started.stderr.read()
            time.sleep(0.05)
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.communicate()
    again = subprocess.run(**asked, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "memory: left out, this Python has no " in again.stdout
    assert "tests: left out, this Python has no pytest" in again.stdout
    assert len(results.read(rows / "ceilings.jsonl")) == 1
    found = results.read(rows / "gemms.jsonl")
    assert len(found) == 3 and all(row["device"] and row["date"] and row["code"] for row in found)


def test_with_the_packages_that_it_carries_only_the_tests_are_left_out(bare, tmp_path):
    carried = linked(tmp_path / "carried", *CARRIED.split())
    shown = subprocess.run(**make_gpu(bare, carried, tmp_path, "--show"), timeout=300)
    left_out = re.findall(".*left out.*", shown.stdout)
    assert left_out == ["tests: left out, this Python has no pytest"], shown.stderr
    cases = {line.partition(":")[0] for line in shown.stdout.splitlines()}
    assert cases >= {part.name for part in gpu.PLAN}
    some = make_gpu(bare, carried, tmp_path, "--only crossovers,split-k")
    done = subprocess.run(**some, timeout=300)
    assert "5 rows measured, 0 cases failed, 0 left" in done.stdout, done.stdout + done.stderr
    for file, count in ("crossovers", 4), ("split_k", 1):
        assert len(results.read(tmp_path / f"{file}.jsonl")) == count


def test_the_plan_holds_both_widths_in_all_three_products_and_names_its_sources():
    shapes = {tuple(case[k] for k in ("count", "m", "n", "k")) for case in swiglu()}
    for d in (10922, 10944):
        assert {(4, 4096, 4096, d), (1, 4096, d, 4096), (1, 4096, 4096, d)} <= shapes
    there = Here(device="cuda", name="a GPU", tiny=False)
    cases = matmuls(there).cases
    assert len(cases) == len({str(case) for case in cases}) > 100
    assert all(isinstance(case["layers"], int) for case in steps(there).cases)
    for part in gpu_plan.PLAN:
        assert all((gpu_plan.PACKAGE / source).exists() for source in part.sources)
        assert len(gpu_plan.code(part)) == 12
    tested = {case["file"] for case in gpu_work.tests(there).cases}
    assert "test_states.py" in tested and "test_gpu.py" not in tested  # which writes such tests


def test_the_plan_holds_split_k_over_long_caches_and_it_runs():
    there = Here(device="cuda", name="a GPU", tiny=False)
    cases = split(there).cases
    assert {(131072, 1), (4096, 8)} <= {(case["context"], case["batch"]) for case in cases}
    assert "split-k" in [part.name for part in gpu_plan.PLAN]
    (case,) = split(HERE).cases
    row = split(HERE).run(case)
    assert set(row["seconds"]) == {"sdpa", "1", "4"} and row["outcome"] == "measured"


def test_a_step_of_the_plan_is_found_again(tmp_path, monkeypatch):
    """What runs must not change what the case says, or it would be measured for ever."""
    case = steps(HERE).cases[0]
    row = steps(HERE).run(case)
    assert {k: row[k] for k in case} == case and row["outcome"] == "measured"


def test_the_gpu_tests_of_a_file_are_run_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("cookbook_lib.benchmarks.gpu_work.TESTS", tmp_path)
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    lines = "import pytest\nimport {}\n\n\n@pytest.mark.gpu\ndef test_it():\n    assert {}\n"
    for name, fill in {"good": ("os", 1), "bad": ("os", 0), "lacks": ("no_such", 1)}.items():
        (tmp_path / f"test_{name}.py").write_text(lines.format(*fill))
    fake = "import sys, types\nsays = types.SimpleNamespace(is_available=lambda: {})\n"
    fake += "sys.modules['torch'] = types.SimpleNamespace(cuda=says)\n"
    conftest = tmp_path / "conftest.py"
    real = conftest.read_text()
    conftest.write_text(fake.format(False) + real)
    good = run_tests({"file": "test_good.py"})
    assert good["outcome"] == NOTHING and good["skipped"] == 1  # without a GPU
    conftest.write_text(fake.format(True) + real)
    assert run_tests({"file": "test_good.py"})["passed"] == 1
    with pytest.raises(RuntimeError, match="pytest ended with 1"):
        run_tests({"file": "test_bad.py"})
    with pytest.raises(ModuleNotFoundError) as error:
        run_tests({"file": "test_lacks.py"})
    assert error.value.name == "no_such"


def test_without_a_gpu_it_says_so_in_one_line(capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit) as end:
        gpu.main([])
    assert str(end.value).startswith("make gpu: device is 'cuda', but PyTorch finds no GPU")
    with pytest.raises(SystemExit) as end:
        gpu.main(["--device", "cpu", "--only", "gem"])
    assert "only is 'gem', expected some of ceilings, tests" in str(end.value)


def test_help_has_a_line_for_each_flag(capsys):
    with pytest.raises(SystemExit) as end:
        gpu.main(["--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and "Args" not in shown
    for flag, words in (("--budget", "seconds; no case begins"), ("--show", "print what is")):
        assert words in shown.rpartition(flag)[2]
