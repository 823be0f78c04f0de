"""What nccl-tests, OSU and plain MPI print becomes rows in SI units that agree with themselves."""

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookbook_lib.communication.micro import taken
from cookbook_lib.communication.nccl_tests import nccl_tests
from cookbook_lib.communication.osu import osu
from cookbook_lib.communication.plain_mpi import TITLES, plain_mpi

DATA = Path(__file__).parent / "data/micro"


def test_a_published_all_reduce_of_72_gpus_has_two_rows_a_size_and_its_mean():
    rows = nccl_tests(DATA / "coreweave-gb200.txt", op="all_reduce")
    assert len(rows) == 10 and {row["ranks"] for row in rows} == {72}
    first = rows[0]
    assert (first["nbytes"], taken(first), first["dtype"]) == (536_870_912, 1806.7e-6, "fp32")
    assert first["algbw"] == pytest.approx(297.16e9, rel=1e-4)
    assert first["busbw"] == pytest.approx(586.06e9, rel=1e-4)
    assert [row["in_place"] for row in rows] == [False, True] * 5
    assert all(row["checked"] for row in rows)
    assert sum(row["busbw"] for row in rows) / 10 == pytest.approx(745.53e9, rel=1e-4)


def test_an_older_table_names_its_program_counts_its_ranks_and_was_not_checked():
    out, into = nccl_tests(DATA / "v100-broadcast.txt")
    assert (out["op"], out["ranks"], taken(out), taken(into)) == (
        "broadcast",
        2,
        45.82e-6,
        38.17e-6,
    )
    assert out["wrong"] is None and not out["checked"]


def test_tags_of_mpirun_are_no_part_of_a_line_and_what_a_file_does_not_say_is_asked_for():
    path = DATA / "p5-mpirun.txt"
    assert [row["nbytes"] for row in nccl_tests(path, op="all_reduce", ranks=16)][::2] == [
        8,
        16,
        32,
    ]
    with pytest.raises(ValueError, match=r"p5-mpirun.txt:5: the collective is not in the file"):
        nccl_tests(path)
    with pytest.raises(
        ValueError, match=r"p5-mpirun.txt:5: the number of ranks is not in the file"
    ):
        nccl_tests(path, op="all_reduce")


def test_processes_that_were_alone_are_no_collective():
    with pytest.raises(ValueError, match=r":10: rank 0 is there twice.*MPI=1"):
        nccl_tests(DATA / "v100-without-mpi.txt")


def nccl_json(rows):
    """As src/util.cu of nccl-tests at 0fdb00a writes it: version 2."""
    results = []
    for out, into in zip(rows[::2], rows[1::2], strict=True):
        bodies = {
            name: {
                "time": 1e6 * taken(row),
                "alg_bw": row["algbw"] / 1e9,
                "bus_bw": row["busbw"] / 1e9,
                "nwrong": row["wrong"],
            }
            for name, row in (("out_of_place", out), ("in_place", into))
        }
        size = {"size": out["nbytes"], "count": out["nbytes"] // 4, "type": "float"}
        results.append(size | {"redop": "sum", "root": "    -1"} | bodies)
    devices = [{"rank": r} for r in range(rows[0]["ranks"])]
    args = ["./build/all_reduce_perf", "-J", "out.json"]
    return {"version": 2, "args": args, "config": {"devices": devices}, "results": results}


def test_the_json_gives_the_same_rows_as_the_table(tmp_path):
    rows = nccl_tests(DATA / "coreweave-gb200.txt", op="all_reduce")
    path = tmp_path / "out.json"
    path.write_text(json.dumps(nccl_json(rows)))
    found = nccl_tests(path)
    for a, b in zip(found, rows, strict=True):
        assert taken(a) == pytest.approx(taken(b)) and a["busbw"] == pytest.approx(b["busbw"])
        assert {k: v for k, v in a.items() if k not in ("seconds", "algbw", "busbw")} == {
            k: v for k, v in b.items() if k not in ("seconds", "algbw", "busbw")
        }


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  297.16", "  29.716", r":7: algbw is 29.716, expected 297.2 GB/s"),
        ("  586.06", "  297.16", r":7: busbw is 297.16, expected 586.1 GB/s"),
        ("1806.7  297.16  586.06      0", "1806.7", r":7: 10 columns, expected 13"),
        ("3108.8", "soon", r":8: cannot be read as a row of nccl-tests"),
        ("    time   algbw", " cputime   algbw", r":5: CPU times, expected times"),
        ("745.53", "700.00", r":13: the mean bus bandwidth is 700, expected 745.53 GB/s"),
    ],
)
def test_a_table_that_does_not_agree_with_itself_is_refused_with_its_line(tmp_path, old, new, said):
    text = (DATA / "coreweave-gb200.txt").read_text()
    assert old in text
    path = tmp_path / "out.txt"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"^\S*out.txt" + said) as error:
        nccl_tests(path, op="all_reduce")
    assert "\n" not in str(error.value)


def test_what_is_no_table_is_refused(tmp_path):
    path = tmp_path / "out"
    for text, said in (
        ("", "no row of numbers"),
        ("{", ":1: not JSON"),
        ('{"args": ["all_reduce_perf"]}', "'config' is missing"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            nccl_tests(path)
    with pytest.raises(ValueError, match="cannot be read"):
        nccl_tests(tmp_path / "none")
    with pytest.raises(ValueError, match="no row of numbers"):
        osu(DATA / "v100-without-mpi.txt")


def printed(value, width):
    """`getFloatStr` of src/util.cu: fewer decimals for larger numbers."""
    power = len(str(int(value))) if value >= 1 else 0
    return f"{value:{width}.{2 if power < width - 2 else 1 if power < width - 1 else 0}f}"


@given(
    st.lists(
        st.tuples(st.integers(1, 2**26).map(lambda n: 4 * n), st.floats(1.0, 99999.0)),
        min_size=1,
        max_size=8,
    ),
    st.integers(2, 1000),
)
def test_whatever_nccl_tests_can_print_is_read_back(tmp_path_factory, sizes, ranks):
    lines, means = [f"# Rank {r} Pid {r + 1}" for r in range(ranks)], []
    lines += ["# starting: all_reduce_perf", "# size count type redop root time algbw busbw #wrong"]
    for nbytes, us in sizes:
        bandwidth = nbytes / us / 1e3
        means.append(bandwidth * 2 * (ranks - 1) / ranks)
        numbers = f"{printed(us, 7)} {printed(bandwidth, 6)} {printed(means[-1], 6)}"
        lines.append(f"{nbytes} {nbytes // 4} float sum -1 {numbers} 0")
    lines.append(f"# Avg bus bandwidth : {sum(means) / len(means):g}")
    path = tmp_path_factory.mktemp("nccl") / "out.txt"
    path.write_text("\n".join(lines))
    for row, (nbytes, us) in zip(nccl_tests(path), sizes, strict=True):
        assert (row["nbytes"], row["ranks"]) == (nbytes, ranks)
        assert taken(row) == pytest.approx(us * 1e-6, abs=0.51e-6 if us > 9999 else 0.051e-6)


def test_osu_counts_microseconds_and_megabytes_of_a_million():
    rows = osu(DATA / "osu-reduce-full.txt", ranks=192)
    assert rows[-1]["seconds"] == pytest.approx(
        {"mean": 55.48e-6, "least": 24.05e-6, "most": 134.61e-6}
    )
    assert rows[-1]["algbw"] == pytest.approx(1024 / 55.48e-6) and not rows[-1]["checked"]
    with pytest.raises(ValueError, match=r":6: OSU does not print the number of ranks"):
        osu(DATA / "osu-reduce-full.txt")
    link = osu(DATA / "osu-bw-nvlink.txt")[-1]
    assert (link["op"], link["ranks"], link["nbytes"], link["windowed"]) == ("send", 2, 2**25, True)
    assert link["algbw"] == pytest.approx(93_130.52e6)
    pairs = osu(DATA / "osu-mbw-mr.txt")[-1]
    assert pairs["ranks"] == 96 and 48 * pairs["algbw"] == pytest.approx(99_357.09e6)
    assert 1 / taken(pairs) == pytest.approx(48514205.09 / 48, rel=1e-6)  # messages/s, as printed


def osu_text(title, head, *lines):
    return "\n".join([f"# OSU MPI{title} v7.4", "# Size  " + head, *lines])


@pytest.mark.parametrize(
    ("title", "op", "nbytes"),
    [
        (" Latency Test", "send", 1024),
        (" Allreduce Latency Test", "all_reduce", 1024),
        (" Allgather Latency Test", "all_gather", 4096),
        ("-CUDA All-to-All Personalized Exchange Latency Test", "all_to_all", 4096),
        (" Broadcast Latency Test", "broadcast", 1024),
        (" Gather Latency Test", "gather", 4096),
        (" Reduce_scatter Latency Test", "reduce_scatter", 1024),
    ],
)
def test_a_size_of_osu_becomes_the_size_of_nccl(tmp_path, title, op, nbytes):
    path = tmp_path / "osu.txt"
    path.write_text(osu_text(title, "  Avg Latency(us)", "0  1.00", "1024  7.50"))
    (row,) = osu(path, ranks=4)
    assert (row["op"], row["nbytes"], row["ranks"]) == (op, nbytes, 2 if op == "send" else 4)
    assert taken(row) == pytest.approx(7.5e-6)


def test_what_goes_both_ways_is_told_for_one(tmp_path):
    path = tmp_path / "osu.txt"
    text = osu_text(
        " Bi-Directional Bandwidth Test", "  Bandwidth (MB/s)", "1000  300.00", "2  0.00"
    )
    path.write_text(text)
    (row,) = osu(path)
    assert row["op"] == "exchange" and row["algbw"] == pytest.approx(150e6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (osu_text(" Latency Test", "  Latency (us)", "8  1  2"), r":3: 3 columns, expected 2"),
        (
            osu_text(" Latency Test", "  Latency (us)", "8  x"),
            r":3: cannot be read as a row of OSU",
        ),
        (osu_text(" Latency Test", "  Rate", "8  1"), r":2: no latency and no bandwidth"),
        (
            osu_text(" Neighborhood Latency Test", "  Latency (us)"),
            r":1: the test is 'Neighborhood'",
        ),
        (
            osu_text(" Latency Test", "  Latency (us)  Validation", "8  1.0  Fail"),
            r":3: the result is wrong by OSU's own check",
        ),
        ("8  1.0", r":1: numbers before a title"),
    ],
)
def test_what_osu_does_not_print_is_refused_with_its_line(tmp_path, text, said):
    path = tmp_path / "osu.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^\S*osu.txt" + said):
        osu(path)


def test_plain_mpi_times_each_collective_and_checks_its_result():
    rows = plain_mpi(",".join(TITLES), [64, 4096], ranks=2, seconds=0.01)
    due = [(op, nbytes) for op in TITLES for nbytes in (64, 4096)]
    assert [(row["op"], row["nbytes"]) for row in rows] == due
    assert all(row["checked"] for row in rows)
    for row in rows:
        assert taken(row) == row["seconds"]["median"] > 0
        assert row["algbw"] == pytest.approx(row["nbytes"] / taken(row))
        assert row["seconds"]["least"] <= row["seconds"]["mean"] <= row["seconds"]["most"]


def test_plain_mpi_ends_with_its_ranks_when_the_time_is_over():
    with pytest.raises(ValueError, match="all_reduce by 2 ranks is not done after 2 s"):
        plain_mpi("all_reduce", [2**20] * 50, seconds=1.0, limit=2.0)
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert not [line for line in listed.splitlines() if "plain_mpi all_reduce 1.0" in line]


def test_plain_mpi_says_what_it_cannot_do():
    with pytest.raises(ValueError, match="op is 'halo', expected one of send"):
        plain_mpi("halo", [8])
    with pytest.raises(ValueError, match="ranks are 3, expected 2"):
        plain_mpi("send", [8], ranks=3)
