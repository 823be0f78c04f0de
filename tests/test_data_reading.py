"""What can be read of a corpus is read, whatever its format, compression and damage; what cannot
be read is named with its file and place."""

import bz2
import gzip
import json
import lzma
import random
import sys
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("orjson", reason="cookbook_lib.data needs the extra `data`")
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from cookbook_lib.data import compression, formats
from cookbook_lib.data.files import File, find
from cookbook_lib.data.reading import Damage, Document, Piece, documents, pieces, texts

ROOT = Path(__file__).parent.parent
TEXTS = ["one", "", "zwei\n\nlines", "emoji 👩‍👩‍👧 and \u0000 null", "שלום עולם", "a" * 70_000, "é"]
PACK = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
    ".bz2": partial(bz2.compress, compresslevel=1),
    ".xz": partial(lzma.compress, preset=0),
}


def as_jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": t, "n": i}) + "\n" for i, t in enumerate(texts)).encode()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def read(*paths: object, **fields) -> tuple[list[str], list[Damage]]:
    """The texts of paths, and the damage."""
    found = list(documents(find(map(str, paths))[0], **fields))
    return [d.text for d in found if isinstance(d, Document)], [
        d for d in found if isinstance(d, Damage)
    ]


@pytest.mark.parametrize("codec", PACK)
@pytest.mark.parametrize("kind", ["jsonl", "list.json", "objects.json"])
def test_json_of_each_shape_and_compression_gives_its_texts(kind, codec, tmp_path):
    rows = [{"text": t} for t in TEXTS]
    data = {
        "jsonl": as_jsonl(TEXTS),
        "list.json": json.dumps(rows, indent=2).encode(),
        "objects.json": "\n\n".join(json.dumps(r, indent=1) for r in rows).encode(),
    }[kind]
    path = write(tmp_path / f"a.{kind}{codec}", PACK[codec](data))
    assert read(path) == (TEXTS, [])


@pytest.mark.parametrize("codec", PACK)
def test_a_text_file_is_one_document(codec, tmp_path):
    path = write(tmp_path / f"a.txt{codec}", PACK[codec](b"one\r\ntwo\n"))
    (document,) = documents(find([str(path)])[0])
    assert (document.text, document.id, document.source) == ("one\r\ntwo\n", str(path), path.name)


@pytest.mark.parametrize("type", [pa.string(), pa.large_string(), pa.string_view(), pa.binary()])
def test_columns_give_their_texts_whatever_their_type(type, tmp_path):
    values = [t.encode() for t in TEXTS] if pa.types.is_binary(type) else TEXTS
    table = pa.table({"id": range(7), "text": pa.array(values, type)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    with (
        pa.OSFile(str(tmp_path / "b.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as f,
    ):
        f.write_table(table, max_chunksize=3)
    with pa.OSFile(str(tmp_path / "c.arrow"), "wb") as s, pa.ipc.new_stream(s, table.schema) as f:
        f.write_table(table, max_chunksize=3)
    for name in ("a.parquet", "b.arrow", "c.arrow"):
        assert read(tmp_path / name) == (TEXTS, [])


def test_a_dictionary_column_and_a_null_are_read(tmp_path):
    column = pa.array(["x", None, "y", "x"]).dictionary_encode()
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    found, damage = read(tmp_path)
    assert found == ["x", "y", "x"]
    assert [(d.unit, d.number, d.reason) for d in damage] == [
        ("row", 2, "text is null, expected text")
    ]


BAD_LINES = {
    b'{"text": "cut': "Unterminated string starting at column 10",
    b'{"text": "\xff"}': "byte 0xff at 10 is not UTF-8",
    b'{"body": "x"}': "no field text, expected text",
    b'{"text": null}': "text is null, expected text",
    b'{"text": 7}': "text is number, expected text",
    b'["text"]': "a list, not an object",
    b'{"text": "\\ud800!"}': "a lone surrogate at character 0, expected text",
    b"[" * 100_000: "nested too deeply",
    b'{"n": ' + b"1" * 5000 + b', "text": "x"}': "Exceeds the limit",
    b'{"text": "a"} {"text": "b"}': "Extra data at column 15",
    '{"text": "wide"}'.encode("utf-16"): "byte 0xff at 0 is not UTF-8",
}


def test_each_bad_line_is_named_and_all_others_are_read(tmp_path):
    lines, places = [], []
    for bad in BAD_LINES:
        lines += [b'{"text": "good"}', b"", bad, b'{"text": "NaN", "x": NaN}\r']
        places.append(len(lines) - 1)
    path = write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + b"\n".join(lines))
    found, damage = read(path)
    assert found == ["good", "NaN"] * len(BAD_LINES)
    assert [d.number for d in damage] == places
    for d, reason in zip(damage, BAD_LINES.values(), strict=True):
        assert reason in d.reason and str(d).startswith(f"{path}: line ") and "\n" not in str(d)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("parts")


@given(data=st.data())
def test_parts_of_a_file_hold_each_line_once_and_number_it_as_the_whole_does(data, folder):
    """Wherever a file is cut; damage keeps the line numbers of the whole file."""
    line = st.sampled_from([b"", b"x", b'{"text": "a"}', b'{"text": "bcdef"}', b"{}"])
    content = b"\n".join(data.draw(st.lists(line, max_size=12)))
    parts = data.draw(st.integers(1, 8))
    folder.joinpath("parts.jsonl").write_bytes(content)
    (file,), _ = find([str(folder)])
    whole = list(texts(Piece(file=file)))
    cut = [t for k in range(parts) for t in texts(Piece(file=file, part=k, parts=parts))]
    plain = [t if isinstance(t, Damage) else t.text for t in whole]
    assert [t if isinstance(t, Damage) else t.text for t in cut] == plain
    assert [t.number for t in whole if isinstance(t, Damage)] == [
        i for i, l in enumerate(content.split(b"\n"), 1) if l in (b"x", b"{}")
    ]


@given(st.lists(st.text(st.characters(codec=None), max_size=20), max_size=6), st.booleans())
def test_any_text_goes_through_json_unless_it_is_no_unicode(some, escape):
    def valid(text: str) -> bool:
        try:
            return text.encode() is not None
        except UnicodeEncodeError:
            return False

    kept = [t for t in some if escape or valid(t)]  # what is not escaped must be encoded
    rows = "".join(json.dumps({"text": t}, ensure_ascii=escape) + "\n" for t in kept)
    fsspec.filesystem("memory").pipe("/any.jsonl", rows.encode())
    found, damage = read("memory://any.jsonl")
    surrogates_in_pairs = [
        t.encode("utf-16", "surrogatepass").decode("utf-16", "ignore") for t in kept
    ]
    assert found == [
        p
        for p, t in zip(surrogates_in_pairs, kept, strict=True)
        if valid(json.loads(json.dumps(t)))
    ]
    assert len(found) + len(damage) == len(kept)


@pytest.mark.parametrize("codec", [c for c in PACK if c])
@pytest.mark.parametrize("kind", ["truncated", "corrupt", "tail"])
def test_a_damaged_compressed_file_is_named_and_read_up_to_the_damage(kind, codec, tmp_path):
    draw = random.Random(0)
    many = ["".join(draw.choices("abcdefgh ", k=400)) for _ in range(4_000)]
    data = PACK[codec](as_jsonl(many))
    half = len(data) // 2
    data = {
        "truncated": data[:half],
        "corrupt": data[:half]
        + bytes(b ^ 0xFF for b in data[half : half + 64])
        + data[half + 64 :],
        "tail": data + b"this is not compressed",
    }[kind]
    path = write(tmp_path / f"a.jsonl{codec}", data)
    found, damage = read(path)
    files = [d for d in damage if d.whole]
    assert len(files) == 1 and files[0].unit == "byte" and files[0].path == str(path)
    assert found == many[: len(found)] or kind == "corrupt"  # zlib may give noise before its check
    least = {"tail": 4_000}.get(kind, 1_000)  # a bz2 or zst block may end well before the middle
    assert sum(a == b for a, b in zip(found, many, strict=False)) >= least, (len(found), damage)
    if kind == "tail":
        assert len(found) == 4_000


@pytest.mark.parametrize("codec", [c for c in PACK if c])
def test_streams_one_after_another_are_one_file(codec, tmp_path):
    data = as_jsonl(TEXTS)
    path = write(tmp_path / f"a.jsonl{codec}", PACK[codec](data[:50]) + PACK[codec](data[50:]))
    assert read(path) == (TEXTS, [])


@pytest.mark.parametrize("codec", [c for c in PACK if c])
def test_a_bomb_is_handed_on_in_bounded_pieces(codec):
    """Much of nothing in some kilobytes."""
    zeros = bytes(1 << 25)
    packed = PACK[codec](zeros) * 4
    sizes = [len(b) for b in compression.chunks(BytesIO(packed), codec[1:])]
    assert sum(sizes) == 4 << 25 and max(sizes) <= 1 << 27 and len(packed) < 1 << 20


def test_a_line_beyond_all_bounds_is_left_out_without_being_held(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "LONGEST", 1 << 21)
    long = b'{"text": "' + b"x" * (5 << 20) + b'"}\n'
    good = b'{"text": "good"}\n'
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(good + long + good))
    found, damage = read(path)
    assert found == ["good", "good"] and [(d.number, d.whole) for d in damage] == [(2, False)]


def test_fifty_megabytes_are_one_document(tmp_path):
    text = "word " * 10_000_000
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(as_jsonl([text]), 1))
    assert read(path) == ([text], [])


def parquet(path: Path, rows: int = 6000) -> bytes:
    """Three row groups of texts that do not compress away."""
    table = pa.table({"text": [f"row {i} " + "xyz"[i % 3] * (i % 50) for i in range(rows)]})
    pq.write_table(
        table, path, row_group_size=rows // 3, write_page_checksum=True, use_dictionary=False
    )
    return path.read_bytes()


def test_a_missing_column_is_said_of_each_row(tmp_path):
    parquet(tmp_path / "a.parquet", rows=6)
    (file,), _ = find([str(tmp_path)])
    found = list(texts(Piece(file=file), "body", []))
    assert [(d.number, d.reason) for d in found] == [
        (i, "no field body, expected text") for i in range(1, 7)
    ]


def test_a_damaged_row_group_costs_its_own_rows(tmp_path):
    path = tmp_path / "a.parquet"
    data = bytearray(parquet(path))
    column = pq.ParquetFile(BytesIO(bytes(data))).metadata.row_group(1).column(0)
    middle = column.data_page_offset + column.total_compressed_size // 2
    data[middle : middle + 20] = bytes(b ^ 0xFF for b in data[middle : middle + 20])
    path.write_bytes(data)
    found, damage = read(path)
    assert {f"row {i} " in t for i, t in zip([0, 1999], [found[0], found[1999]], strict=True)} == {
        True
    }
    assert [t for t in found if t.startswith(("row 4000 ", "row 5999 "))] and len(found) >= 4000
    assert [d.whole for d in damage] == [True] and 2001 <= damage[0].number <= 4000


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_truncated_parquet_file_is_named(keep, tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(path)[:keep])
    found, damage = read(path)
    assert found == [] and [d.whole for d in damage] == [True]


def test_a_truncated_arrow_stream_gives_its_whole_batches(tmp_path):
    table, path = pa.table({"text": ["x" * 1000] * 100}), tmp_path / "a.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as file:
        file.write_table(table, max_chunksize=10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found, damage = read(path)
    assert 30 <= len(found) <= 50 and [d.whole for d in damage] == [True]
    assert damage[0].number == len(found) + 1


@pytest.mark.parametrize(
    "content, number", [('[{"text": "a"}, {"text": "b"}', 3), ('[{"text": "a"}, {"te', 2), ("{", 1)]
)
def test_json_that_breaks_off_gives_what_came_before(content, number, tmp_path):
    found, damage = read(write(tmp_path / "a.json", content.encode()))
    assert found == ["a", "b"][: number - 1]
    assert [(d.unit, d.number, d.whole) for d in damage] == [("value", number, True)]


def test_text_that_is_not_utf8_is_named_at_its_byte(tmp_path):
    _, damage = read(write(tmp_path / "a.txt", "naïve".encode("latin-1")))
    assert [(d.unit, d.number) for d in damage] == [("byte", 2)]


def test_folders_globs_and_sources(tmp_path):
    for name in (
        "web/a.jsonl",
        "web/b.jsonl",
        "code/c.jsonl.gz",
        "d.jsonl",
        "notes.md",
        ".x.jsonl",
    ):
        data = as_jsonl([name])
        write(tmp_path / name, PACK[".gz"](data) if name.endswith("gz") else data)
    files, skipped = find([str(tmp_path)])
    assert [f.path for f in files] == [
        str(tmp_path / n) for n in ("code/c.jsonl.gz", "d.jsonl", "web/a.jsonl", "web/b.jsonl")
    ]
    assert [f.source for f in files] == ["code", tmp_path.name, "web", "web"]
    assert skipped == [str(tmp_path / "notes.md")]
    again, _ = find([str(tmp_path / "**/*.jsonl"), str(tmp_path / "d.jsonl")])
    assert sorted(f.path for f in again) == [f.path for f in files[1:]]


def test_a_dataset_that_datasets_saved_is_read_as_it_was():
    """`tests/data/datasets` was written by `save_to_disk` of datasets 5.2.0: four rows in two
    shards, and a DatasetDict of all rows and of the first."""
    rows = [("a", "one two"), ("b", "três"), ("c", ""), ("d", "日本 語")]
    folder = ROOT / "tests/data/datasets"
    files, skipped = find([str(folder / "sharded")])
    assert [(d.id, d.text) for d in documents(files)] == rows and not skipped
    assert read(folder / "splits") == ([rows[0][1], *(text for _, text in rows)], [])
    files, skipped = find([str(folder / "splits")])
    assert [f.source for f in files] == ["test", "train"] and not skipped


def test_documents_keep_their_ids_sources_and_other_fields(tmp_path):
    row = {"text": "x", "id": 7, "kind": "web", "more": {"a": 1}}
    path = write(tmp_path / "a.jsonl", (json.dumps(row) + "\n" + '{"text": "y"}').encode())
    one, two = documents(find([str(path)])[0], source_field="kind")
    assert (one.id, one.source, one.metadata["more"]) == ("7", "web", {"a": 1})
    assert (two.id, two.source, two.metadata) == (f"{path}#2", "a.jsonl", {})


def test_standard_input_is_lines_of_json(monkeypatch):
    class Stdin:
        buffer = BytesIO(as_jsonl(TEXTS))

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert read("-") == (TEXTS, [])


def test_pieces_depend_on_the_files_alone():
    file = File(path="a.jsonl", source="a", kind="jsonl", size=100)
    assert [(p.part, p.parts) for p in pieces([file], 40)] == [(0, 3), (1, 3), (2, 3)]
    for whole in (replace(file, codec="gz"), replace(file, kind="txt"), replace(file, size=0)):
        assert [(p.part, p.parts) for p in pieces([whole], 40)] == [(0, 1)]


def test_wrong_paths_are_named(tmp_path):
    (tmp_path / "notes.md").touch()
    for paths, said in (
        (["no/such"], "no/such: no such file"),
        ([str(tmp_path)], "no data in it: expected .jsonl"),
        (["nonsense://x"], "nonsense"),
        (["memory://no/such.jsonl"], "no such file"),
    ):
        with pytest.raises(ValueError, match=said):
            find(paths)
