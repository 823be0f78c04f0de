"""Rows that were written stay, whatever happens to the run that wrote them."""

import os

import pytest

from cookbook_lib import results
from cookbook_lib.cli import main


def test_a_line_that_was_cut_off_goes_and_the_rest_stays(tmp_path):
    path = tmp_path / "new/folder/rows.jsonl"
    assert results.ready(path) == []
    for i in range(3):
        results.append(path, {"i": i})
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):  # killed at any byte
        path.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n")
        assert results.ready(path) == [{"i": i} for i in range(kept)]
        assert path.read_bytes() == whole[: whole.rfind(b"\n", 0, cut) + 1]


def test_what_is_no_file_of_rows_is_named_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    for text, place in {'{"i": 1}\nnot JSON\n{': ":2", "a line": "", "[1]\n": ":1"}.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=f"notes.txt{place}: expected a JSON object"):
            results.ready(path)
        assert path.read_text() == text
    with pytest.raises(ValueError, match="cannot be written: Is a directory"):
        results.ready(tmp_path)


def test_committed_rows_are_rows():
    names = [path.stem for path in results.FOLDER.glob("*.jsonl")]
    assert names and all(results.committed(name) for name in names)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "tasks", "--out", "{}"], "cannot be written"),
        (["train", "tasks", "--out", "{}/a", "--seeds", "0"], "seeds is 0, expected at least 1"),
        (["train", "tasks", "--out", "{}/a", "--threads", "0"], "threads is 0"),
        (["train", "tasks", "--out", "{}/a", "--scale", "nan"], "scale is nan"),
        (["bench", "block", "mamba2", "--out", "{}"], "cannot be written"),
        (["bench", "block", "mamba2", "--seconds", "0"], "seconds is 0"),
        (["bench", "block", "mamba2", "--d-model", "100"], "expected a multiple of headdim"),
        (["bench", "block", "mamba3", "--against", "transformers"], "which has no mamba3"),
        (["bench", "block", "mamba2", "--tokens", "0"], "tokens is 0"),
        (["bench", "block", "mamba2", "--threads", "0"], "threads is 0"),
    ],
)
def test_mistakes_are_named_before_anything_is_measured(argv, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main([x.format(tmp_path) for x in argv])
    said = capsys.readouterr()
    assert end.value.code == 2 and words in said.err and said.err.count("\n") == 1
    assert os.listdir(tmp_path) == [] and not said.out
