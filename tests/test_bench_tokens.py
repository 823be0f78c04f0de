"""The benchmark of token counting compares ways that count the same tokens of the same files."""

import json

import pytest

pytest.importorskip("gigatoken", reason="cookbook_lib.data needs the extra `data`")

from cookbook_lib.cli import main


@pytest.mark.parametrize(
    "kind, other", [("jsonl", "raw encode_batch_fast"), ("parquet", "raw gigatoken")]
)
def test_all_ways_count_the_same(kind, other, capsys):
    ways = ["cookbook tokens", other]
    argv = ["bench", "tokens", "--megabytes", "1", "--kind", kind, "--repeats", "1"]
    main([*argv, "--json", "--only", *ways])
    report = json.loads(capsys.readouterr().out)
    assert [row["by"] for row in report["rows"]] == ways
    assert len({row["tokens"] for row in report["rows"]}) == 1 and report["bytes"] >= 10**6
    assert all(len(row["seconds"]) == 1 and row["version"] for row in report["rows"])


def test_an_unknown_way_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        main(["bench", "tokens", "--only", "guessing"])
    assert end.value.code == 2
    assert "only is 'guessing', expected some of cookbook tokens, " in capsys.readouterr().err
