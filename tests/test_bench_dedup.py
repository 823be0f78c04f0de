"""`cookbook bench dedup` measures what was planted, and theory is within its errors."""

import json
import re

import pytest

pytest.importorskip("pyarrow", reason="cookbook_lib.data needs the extra `data`")

from cookbook_lib.cli import main


def test_the_tools_find_what_was_planted(capsys, tmp_path):
    by_signature = ("cookbook, by signature", "cookbook, by signature less 2 deviations")
    tools = ("cookbook", *by_signature, "cookbook, exactly", "datasketch")
    plot = tmp_path / "curve.svg"
    options = ["--documents", "880", "--plot", str(plot), "--json", "--tools", *tools]
    main(["bench", "dedup", *options])
    result = json.loads(capsys.readouterr().out)
    assert plot.read_text().startswith("<?xml")
    rows = {row["tool"]: row for row in result["tools"]}
    assert set(rows) == set(tools)
    assert rows["cookbook, exactly"]["precision"] == 1
    assert 0.8 < rows["cookbook"]["precision"] < 1  # unverified
    assert all(abs(c["deviations"]) < 5 for c in result["curve"])
    assert rows["cookbook"]["recall"] == rows["cookbook, exactly"]["recall"]
    found = [rows[name]["recall"] for name in ("cookbook", *by_signature)]
    pairs = sum(c["pairs"] for c in result["curve"] if c["similarity"] > 0.39)
    for measured, theory in zip(found, result["expected"].values(), strict=True):
        assert abs(measured - theory) < 4 * (theory * (1 - theory) / pairs) ** 0.5
    assert found[1] < found[2] <= found[0]


def test_each_tool_runs_as_often_as_asked(capsys):
    options = ["--documents", "220", "--repeats", "2", "--tools", "cookbook", "--json"]
    main(["bench", "dedup", *options])
    result = json.loads(capsys.readouterr().out)
    assert [len(row["all_seconds"]) for row in result["tools"]] == [2]


@pytest.mark.parametrize(
    "options, words",
    [
        (["--documents", "3"], "documents is 3, expected at least 22"),
        (["--repeats", "0"], "repeats is 0, expected at least 1"),
        (["--tools", "minhashlib"], "tools has 'minhashlib', expected some of cookbook"),
    ],
)
def test_mistakes_are_named(options, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(["bench", "dedup", *options])
    assert end.value.code == 2 and re.search(re.escape(words), capsys.readouterr().err)
