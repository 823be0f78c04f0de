"""What is committed as measured is whole and possible; a wrong unit is caught."""

import json

import pytest

from cookbook_lib import results
from cookbook_lib.benchmarks.check import faults, missing
from cookbook_lib.calculators.chips import CHIPS, NAMED, named
from cookbook_lib.calculators.gemms import SMS
from cookbook_lib.cli import main

FILES = sorted(results.FOLDER.glob("*.jsonl"))
H100, DAY = "NVIDIA H100 80GB HBM3", {"date": "2026-11-24", "versions": {"torch": "2.13.0"}}
SECONDS = {"low": 0.9e-3, "median": 1e-3, "high": 1.1e-3, "count": 9}
GOOD = {"device": H100, "dtype": "bf16", "flops": 6e11, "nbytes": 1e9, "seconds": SECONDS, **DAY}


def test_every_committed_row_is_whole_and_possible(capsys):
    main(["bench", "check", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "files": len(FILES),
        "rows": sum(len(results.read(file)) for file in FILES),
        "wrong": [],
    }


@pytest.mark.parametrize(
    "change, words",
    [
        ({"device": ""}, "device is missing"),
        ({"date": "yesterday"}, "date is 'yesterday', expected as in 2026-01-31"),
        ({"versions": {}}, "versions is missing"),
        ({"seconds": SECONDS | {"p10": 0}}, "seconds.p10 is 0, expected above 0"),
        ({"seconds": SECONDS | {"low": 2e-3}}, "seconds.median is 0.001, expected between"),
        ({"seconds": SECONDS | {"p90": float("nan")}}, "seconds.p90 is nan, expected a number"),
        ({"flops": 6e14}, "6e+17 FLOP/s, expected at most 9.89e+14"),  # a millisecond as seconds
        ({"dtype": "fp32"}, "6e+14 FLOP/s, expected at most 4.95e+14"),
        ({"nbytes": 4e9}, "4e+12 bytes/s, expected at most 3.35e+12"),
        ({"flops_per_second": 1e16}, "1e+16 FLOP/s, expected at most"),
        ({"measured": {"total": 90e9}}, "measured.total is 9e+10 bytes, expected at most 8.59e+10"),
    ],
)
def test_a_fault_is_found_and_named(change, words, tmp_path):
    file = tmp_path / "rows.jsonl"
    assert not list(faults({file: [GOOD]}))
    (fault,) = faults({file: [GOOD, GOOD | change]})
    assert fault.startswith("rows.jsonl:2: ") and words in fault


def test_a_new_row_of_a_changed_checkout_is_refused_and_an_old_one_is_kept():
    row = {"device": "x", "versions": {"torch": "2"}, "commit": "0123456789ab-dirty"}
    old, new = (row | {"date": f"{date}T23:59:59+00:00"} for date in ("2026-11-24", "2026-11-25"))
    assert not list(missing(old))
    assert [fault[:6] for fault in missing(new)] == ["commit"]
    assert not list(missing(new | {"commit": "0123456789ab"}))


def test_what_fits_a_cache_may_beat_the_memory(tmp_path):
    small = {"nbytes": 1e8, "seconds": {k: v / 50 for k, v in SECONDS.items()}, "flops": 1e9}
    assert not list(faults({tmp_path / "x": [GOOD | small]}))


def test_a_device_in_no_table_is_held_to_its_own_ceiling(tmp_path):
    top = {"benchmark": "ceilings", "dtype": "bf16", "device": "a CPU", **DAY}
    top["flops_per_second"] = 1e12
    slow = GOOD | {"device": "a CPU", "flops": 1.5e9}
    assert not list(faults({tmp_path / "x": [top, slow]}))
    (fault,) = faults({tmp_path / "x": [top, slow | {"flops": 3e9}]})
    assert "3e+12 FLOP/s, where a large product reached 1e+12" in fault


def test_a_row_may_not_be_there_twice(tmp_path):
    (fault,) = faults({tmp_path / "rows.jsonl": [GOOD, dict(reversed(GOOD.items()))]})
    assert fault == "rows.jsonl:2: the same row as in line 1"


def test_the_command_ends_with_2_and_names_what_is_wrong(tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    results.append(file, GOOD | {"flops": 6e14})
    with pytest.raises(SystemExit) as end:
        main(["bench", "check", str(file)])
    assert end.value.code == 2 and "rows.jsonl:1: 6e+17 FLOP/s" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bench", "check", str(tmp_path / "none.jsonl")])
    assert "none.jsonl: no such file" in capsys.readouterr().err


def test_chips_are_known_by_the_names_of_their_drivers():
    assert {chip for chip in NAMED.values()} <= set(CHIPS)
    assert {name for name in SMS} <= set(NAMED.values())
    assert named("NVIDIA H200") == "h200" and named("Intel(R) Xeon(R) Processor") is None
