"""Every document that is read is kept or removed, once, for a reason that is said; and a run that
is killed at any moment ends with the same files."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="cookbook_lib.data needs the extra `data`")
pytest.importorskip("orjson", reason="cookbook_lib.data needs the extra `data`")
import numpy as np
import pyarrow.parquet as pq

from cookbook_lib.data import runs
from cookbook_lib.data.gauge import Gauge
from cookbook_lib.data.pipeline import Pipeline, load
from cookbook_lib.data.planted import pair
from cookbook_lib.data.reading import pieces
from cookbook_lib.data.runs import run
from cookbook_lib.data.steps import PRESETS, Exact, Filters, MinHash, Score, Source, Substring, Url

LONG = "A sentence of plain words that says nothing much and ends here. " * 3


def corpus(folder: Path, name: str, files: dict[str, list[dict]]) -> Source:
    (folder / name).mkdir(parents=True)
    for file, rows in files.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name / f"{file}.jsonl").write_text(lines)
    return Source(name=name, paths=(str(folder / name),))


def kept(out: Path) -> list[dict]:
    paths = sorted((out / "kept").iterdir())
    if paths[0].suffix == ".jsonl":
        return [json.loads(line) for p in paths for line in p.read_text().splitlines()]
    return [row for p in paths for row in pq.read_table(p).to_pylist()]


def removed(out: Path) -> list[dict]:
    paths = sorted((out / "removed").iterdir())
    return [json.loads(line) for p in paths for line in p.read_text().splitlines()]


def mixed(folder: Path, files: int = 3) -> tuple[Source, Source]:
    """Two sources with short, cursed, near and exact duplicates, in several files each."""
    rng = np.random.default_rng(0)
    rows = {"books": [], "web": []}
    for i in range(20 * files):
        p = pair(0.9 if i % 3 else 0.1, rng)
        rows["books"].append({"id": f"b{i}", "text": p.a, "url": f"http://x.org/{i}"})
        rows["web"].append({"id": f"w{i}", "text": p.b, "url": f"https://www.x.org/{i}/"})
        rows["web"].append({"id": f"short{i}", "text": "too short", "n": i})
        rows["web"].append({"id": f"copy{i}", "text": p.b, "kept": [1, {"a": None}]})
    made = (
        corpus(folder, name, {f"{k}": part[k::files] for k in range(files)})
        for name, part in rows.items()
    )
    return tuple(made)


def test_zyda_s_preset_keeps_the_best_source_and_loses_nothing(tmp_path):
    sources = mixed(tmp_path)
    out = tmp_path / "out"
    report = run(Pipeline(sources=sources, steps=PRESETS["zyda"]), out)
    stay, gone = kept(out), removed(out)
    assert len(stay) + len(gone) == sum(s["documents"] for s in report["sources"].values()) == 240
    ids = [row["id"] for row in stay + gone]
    assert len(set(ids)) == len(ids)
    near = {f"b{i}" for i in range(60) if i % 3}
    assert near < {row["id"] for row in stay}
    for row in gone:
        if row["id"].startswith("short"):
            assert (row["step"], row["reason"]) == ("1-zyda", "length")
            assert row["why"] == "length is 9, below 100"
        else:
            assert row["stays"] in {other["id"] for other in stay}
            assert row["why"] == f"duplicate of {row['stays']}"
    assert {row["id"]: row["stays"] for row in gone if "stays" in row}["copy1"] == "b1"


def test_ids_texts_and_records_come_through_the_filters_unchanged(tmp_path):
    """In Zyda_processing an id is a place before filtering, and is compared with one after it."""
    rows = [{"id": f"d{i}", "text": LONG + str(i) if i % 3 else "x", "i": i} for i in range(30)]
    source = corpus(tmp_path, "a", {"x": rows})
    steps = (Filters(preset="zyda"), MinHash(threshold=0.999, bands=1, rows=128))
    for format in ("jsonl", "parquet"):
        out = tmp_path / format
        run(Pipeline(sources=(source,), steps=steps, format=format), out)
        for row in kept(out):
            i = int(row["id"][1:])
            record = row["metadata"] if format == "jsonl" else json.loads(row["metadata"])
            assert (row["text"], row["source"]) == (LONG + str(i), "a")
            assert record == {"id": f"d{i}", "i": i}
        assert [r["text"] for r in removed(out) if r["reason"] == "length"] == ["x"] * 10
        dropped = {r["id"] for r in removed(out) if r["reason"] == "duplicate"}
        assert {r["id"] for r in kept(out)} | dropped == {f"d{i}" for i in range(30) if i % 3}


def test_the_report_adds_up(tmp_path):
    out = tmp_path / "out"
    steps = (Filters(preset="zyda"), Exact(), MinHash(threshold=0.8))
    report = run(Pipeline(sources=mixed(tmp_path), steps=steps), out)
    before = report["sources"]
    for step in report["steps"]:
        assert step["before"] == before
        for source, there in before.items():
            lost = sum(by.get(source, {}).get("documents", 0) for by in step["dropped"].values())
            assert step["after"][source]["documents"] == there["documents"] - lost
        before = step["after"]
    assert report["kept"] == before
    lengths = {name: 0 for name in before}
    for row in kept(out):
        lengths[row["source"]] += len(row["text"])
    assert lengths == {name: there["characters"] for name, there in before.items()}
    assert report["samples"]["1-zyda/length"][0]["why"] == "length is 9, below 100"


def files_of(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def same(out: Path, other: Path) -> None:
    a, b = files_of(out), files_of(other)
    reports = [json.loads(files.pop("report.json")) for files in (a, b)]
    for report in reports:
        del report["seconds"], report["peak_bytes"]
        for step in report["steps"]:
            del step["seconds"], step["peak_bytes"]
    assert reports[0] == reports[1]
    assert a == b


def test_one_process_and_three_write_the_same(tmp_path):
    pipeline = Pipeline(sources=mixed(tmp_path), steps=PRESETS["zyda"])
    run(pipeline, tmp_path / "one", workers=1)
    run(pipeline, tmp_path / "three", workers=3)
    same(tmp_path / "one", tmp_path / "three")


@pytest.mark.parametrize("clusters", ["chains", "stars"])
def test_exact_verification_by_three_processes_is_that_of_one(clusters, tmp_path):
    step = MinHash(threshold=0.5, clusters=clusters)
    pipeline = Pipeline(sources=mixed(tmp_path, 6), steps=(step,))
    for workers, name in ((1, "one"), (3, "three")):
        run(pipeline, tmp_path / name, workers=workers)
    same(tmp_path / "one", tmp_path / "three")


def test_what_went_for_a_document_that_went_later_went_for_the_one_that_stays(tmp_path):
    p = pair(0.95, np.random.default_rng(0))
    rows = [{"id": i, "text": t} for i, t in (("b1", p.b), ("b2", p.b), ("longer", p.a + " end"))]
    steps = (Exact(), MinHash(threshold=0.8))
    out = tmp_path / "out"
    run(Pipeline(sources=(corpus(tmp_path, "x", {"0": rows}),), steps=steps), out)
    assert [row["id"] for row in kept(out)] == ["longer"]
    gone = {row["id"]: (row["step"], row["stays"]) for row in removed(out)}
    assert gone == {"b1": ("2-minhash", "longer"), "b2": ("1-exact", "longer")}


def test_texts_beyond_what_memory_holds_are_refused_before_they_are_read(tmp_path):
    rows = [{"id": str(i), "text": "é" * 100} for i in range(10)]
    source = corpus(tmp_path, "x", {"0": rows})
    pipeline = Pipeline(sources=(source,), steps=(Substring(length=20, most=1999),))
    said = "the texts for substrings are 2,000 bytes, expected at most 1,999"
    with pytest.raises(ValueError, match=said):
        run(pipeline, tmp_path / "out")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux lowers the mark")
def test_the_peak_of_a_step_is_what_it_holds_and_not_what_was_held_before():
    gauge = Gauge()
    with gauge("much"):
        np.ones(10_000_000)  # 80 MB
    with gauge("little"):
        np.ones(1000)
    assert gauge.peaks["much"] - gauge.peaks["little"] > 70e6
    with gauge("little"):
        held = np.ones(20_000_000)
    assert gauge.peaks["little"] > gauge.peaks["much"] > 8 * len(held) / 2


def test_the_order_of_files_does_not_decide_who_survives(tmp_path):
    first = {"1": [{"id": "b", "text": LONG}], "2": [{"id": "a", "text": LONG}]}
    source = corpus(tmp_path, "x", first)
    run(Pipeline(sources=(source,), steps=(Exact(),)), tmp_path / "out")
    assert [row["id"] for row in kept(tmp_path / "out")] == ["a"]


TOML = """
preset = "zyda"
[[sources]]
name = "books"
paths = ["books"]
[[sources]]
name = "web"
paths = ["web"]
"""


def command(folder: Path, out: str, *more: str) -> list[str]:
    args = [sys.executable, "-m", "cookbook_lib", "data", str(folder / "p.toml")]
    return [*args, "--out", str(folder / out), *more]


@pytest.mark.parametrize("seen", ["kept-00001.*", "sifted-00004.json", "decided*", "delivered*"])
def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_files(seen, tmp_path):
    mixed(tmp_path, files=6)
    (tmp_path / "p.toml").write_text(TOML)
    run(load(tmp_path / "p.toml"), tmp_path / "whole")
    process = subprocess.Popen(
        command(tmp_path, "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    state = tmp_path / "killed/state"
    while not list(state.glob(seen)) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    done = {p: p.stat().st_mtime_ns for p in state.glob("sifted-*.json")}
    again = subprocess.Popen(command(tmp_path, "killed"), stdout=subprocess.DEVNULL)
    while again.poll() is None:  # what was done is not done again
        for path, when in done.items():
            try:
                assert path.stat().st_mtime_ns == when
            except FileNotFoundError:
                break
        time.sleep(0.005)
    assert again.returncode == 0
    same(tmp_path / "whole", tmp_path / "killed")
    report = (tmp_path / "killed/report.json").read_bytes()
    assert run(load(tmp_path / "p.toml"), tmp_path / "killed")["plan"] == json.loads(report)["plan"]


def test_two_runs_on_one_folder_refuse_each_other_and_another_plan_too(tmp_path):
    from cookbook_lib.data.storage import claimed

    mixed(tmp_path)
    (tmp_path / "p.toml").write_text(TOML)
    pipeline = load(tmp_path / "p.toml")
    with claimed(tmp_path / "out"):
        refused = subprocess.run(command(tmp_path, "out"), capture_output=True, text=True)
    assert refused.returncode == 2 and "in use by another run" in refused.stderr
    run(pipeline, tmp_path / "out")
    with pytest.raises(ValueError, match="holds the result of another pipeline or other input"):
        run(Pipeline(sources=pipeline.sources, steps=(Exact(),)), tmp_path / "out")
    (tmp_path / "out/report.json").unlink()
    (tmp_path / "out/state").mkdir()
    (tmp_path / "out/state/plan.json").write_text('"other"')
    with pytest.raises(ValueError, match="holds an unfinished run of another pipeline"):
        run(pipeline, tmp_path / "out")


def test_what_cannot_be_read_is_listed_and_the_exit_code_is_3(tmp_path):
    mixed(tmp_path)
    with (tmp_path / "web/1.jsonl").open("a") as file:
        file.write('{"text": 7}\nnot json\n\n')
    whole = gzip.compress(
        "".join(json.dumps({"text": LONG + str(i)}) + "\n" for i in range(9999)).encode()
    )
    (tmp_path / "web/cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "p.toml").write_text(TOML)
    done = subprocess.run(command(tmp_path, "out", "--json"), capture_output=True, text=True)
    assert done.returncode == 3 and done.stderr.count("\n") == 1
    report = json.loads(done.stdout)
    assert [(d["unit"], Path(d["path"]).name) for d in report["damaged"]] == [
        ("line", "1.jsonl"),
        ("line", "1.jsonl"),
        ("byte", "cut.jsonl.gz"),
    ]
    assert report["sources"]["web"]["documents"] > 180 + 1000
    assert len(kept(tmp_path / "out")) + len(removed(tmp_path / "out")) == sum(
        s["documents"] for s in report["sources"].values()
    )


def test_nothing_in_a_corpus_decides_where_something_is_written(tmp_path):
    rows = [{"id": "../../evil", "text": LONG, "source": "../../evil", "url": "/etc/passwd"}]
    source = corpus(tmp_path / "in", "a", {"x": rows})
    evil = Source(name="../../evil", paths=source.paths)
    out = tmp_path / "deep/er/out"
    before = {p for p in tmp_path.rglob("*")}
    run(Pipeline(sources=(evil,), steps=PRESETS["zyda-2"], format="jsonl"), out)
    new = {p for p in tmp_path.rglob("*")} - before
    assert all(p == out or out in p.parents or p in out.parents for p in new)
    assert kept(out)[0]["source"] == "../../evil"


def test_the_output_may_lie_inside_the_input(tmp_path):
    source = corpus(tmp_path, "a", {"x": [{"text": LONG}, {"text": LONG}]})
    pipeline = Pipeline(sources=(source,), steps=(Exact(),))
    first, again = (run(pipeline, tmp_path / "a/out") for _ in range(2))
    assert first == again and first["sources"]["a"]["documents"] == 2


def test_a_full_disk_is_one_line(tmp_path):
    mixed(tmp_path)
    (tmp_path / "p.toml").write_text(TOML)
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); "
    code = limit + "from cookbook_lib.cli import main; main(sys.argv[1:])"
    args = [sys.executable, "-c", code, *command(tmp_path, "out", "--workers", "1")[3:]]
    done = subprocess.run(args, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "File too large" in done.stderr and "run it again" in done.stderr
    assert subprocess.run(command(tmp_path, "out"), capture_output=True).returncode == 0


def test_exact_url_and_score_steps(tmp_path):
    rows = [
        {"id": "a", "text": LONG, "url": "http://www.x.org/p/#top", "score": 4},
        {"id": "b", "text": LONG + "!", "url": "https://X.org/p", "score": 5},
        {"id": "c", "text": LONG + "?", "score": 2.9},
        {"id": "d", "text": LONG + ".", "score": "high"},
        {"id": "e", "text": LONG + "!", "url": "http://x.org/q?a=1", "score": 3},
        {"id": "f", "text": LONG + ",", "url": "http://[x", "score": 3},
    ]
    source = corpus(tmp_path, "x", {"x": rows})
    steps = (Score(field="score", least=3), Exact(), Url())
    run(Pipeline(sources=(source,), steps=steps), tmp_path / "out")
    gone = {r["id"]: (r["step"], r["why"]) for r in removed(tmp_path / "out")}
    assert gone == {
        "c": ("1-score", "score is 2.9, below 3"),
        "d": ("1-score", "score is -inf, below 3"),
        "e": ("2-exact", "duplicate of b"),
        "a": ("3-url", "duplicate of b"),
    }


def test_across_sources_only(tmp_path):
    """Zyda-2's rule (arXiv:2411.06068): two copies in one source stay, one in a lesser goes."""
    best = corpus(tmp_path, "best", {"x": [{"id": i, "text": LONG} for i in "ab"]})
    rest = corpus(tmp_path, "rest", {"x": [{"id": i, "text": LONG} for i in "cd"]})
    for out, steps in (("two", PRESETS["zyda-2"]), ("exact", (Exact(),))):
        run(Pipeline(sources=(best, rest), steps=steps), tmp_path / out)
    assert [row["id"] for row in kept(tmp_path / "two")] == ["a", "b"]
    assert [row["id"] for row in kept(tmp_path / "exact")] == ["a"]


def test_exact_verification_keeps_apart_what_only_looks_alike(tmp_path):
    rng = np.random.default_rng(0)
    pairs = [pair(s, rng) for s in [0.3] * 40 + [0.5] * 40]
    rows = [
        {"id": f"{i}{k}", "text": t}
        for i, p in enumerate(pairs)
        for k, t in (("a", p.a), ("b", p.b))
    ]
    source = corpus(tmp_path, "x", {"1": rows[::2], "2": rows[1::2]})
    dropped = {}
    for verify in ("none", "signature", "exact"):
        step = MinHash(threshold=0.4, bands=32, rows=4, verify=verify)
        run(Pipeline(sources=(source,), steps=(step,)), tmp_path / verify)
        dropped[verify] = {int(r["id"][:-1]) for r in removed(tmp_path / verify)}
    assert dropped["exact"] == {i for i in dropped["none"] if pairs[i].similarity >= 0.4}
    assert min(dropped["none"]) < 40 <= min(dropped["exact"])
    assert dropped["exact"] - dropped["signature"] == set() or len(dropped["signature"]) > 30


def test_in_a_star_every_document_goes_for_one_that_it_is_like(tmp_path):
    words = [f"word{i}" for i in range(300)]
    rows = [{"id": f"{i}", "text": " ".join(words[i * 20 : i * 20 + 100])} for i in range(10)]
    source = corpus(tmp_path, "x", {"1": rows[::2], "2": rows[1::2]})
    # 5 is the first of the longest and drops 3, 4, 6 and 7; then 8 drops 9, and 2 drops 1 and 0
    for clusters, left in (("chains", {"5"}), ("stars", {"2", "5", "8"})):
        step = MinHash(threshold=0.4, ngram=1, bands=64, rows=2, clusters=clusters)
        run(Pipeline(sources=(source,), steps=(step,)), tmp_path / clusters)
        assert {row["id"] for row in kept(tmp_path / clusters)} == left
    for row in removed(tmp_path / "stars"):  # 20 words on, 67 % of all are in both; 40 on, 43 %
        assert abs(int(row["id"]) - int(row["stays"])) <= 2


def test_the_readme_s_pipeline_is_one(tmp_path):
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    (tmp_path / "p.toml").write_text(readme.partition("```toml")[2].partition("```")[0])
    pipeline = load(tmp_path / "p.toml")
    assert pipeline.names == ["1-zyda", "2-exact", "3-minhash"]
    assert pipeline.steps[2].banding() == (9, 13)


def test_passages_are_cut_and_kept_aside(tmp_path):
    pytest.importorskip("pydivsufsort", reason="cookbook_lib.data needs the extra `data`")
    notice = "Nobody may read this without having been told that it must not be read by anybody."
    best = corpus(tmp_path, "best", {"x": [{"id": "a", "text": f"One. {notice}", "n": 1}]})
    rows = [{"id": "b", "text": f"Two! {notice}"}, {"id": "c", "text": "Another text."}] * 2
    rest = corpus(tmp_path, "rest", {"x": rows[:2], "y": rows[2:]})
    steps = (Exact(), Substring(length=60))
    report = run(Pipeline(sources=(best, rest), steps=steps), tmp_path / "out")
    assert [r["text"] for r in kept(tmp_path / "out")] == [
        f"One. {notice}",
        "Two!",
        "Another text.",
    ]
    passage = [r for r in removed(tmp_path / "out") if r["reason"] == "passage"]
    assert [(r["id"], r["begin"], r["text"]) for r in passage] == [("b", 4, f" {notice}")]
    cut = report["steps"][1]
    assert cut["dropped"]["passage"]["rest"] == {"documents": 0, "characters": len(notice) + 1}
    lost = cut["before"]["rest"]["characters"] - cut["after"]["rest"]["characters"]
    assert lost == len(notice) + 1
    with pytest.raises(ValueError, match="a step comes after the one that cuts substrings"):
        Pipeline(sources=(best,), steps=steps[::-1])


def test_an_unfiltered_source_passes_as_it_is(tmp_path):
    code = corpus(tmp_path, "code", {"x": [{"text": "x = 1" + "-" * 50}]})
    code = Source(name="code", paths=code.paths, filtered=False)
    run(Pipeline(sources=(code,), steps=PRESETS["zyda"]), tmp_path / "out")
    assert kept(tmp_path / "out")[0]["text"] == "x = 1" + "-" * 50


def test_tokens_are_those_of_the_tokenizer(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "words.json"))
    source = corpus(tmp_path, "x", {"x": [{"text": LONG + "," * 30 + " end"}, {"text": "a b c"}]})
    pipeline = Pipeline(
        sources=(source,), steps=PRESETS["zyda"], tokenizer=str(tmp_path / "words.json")
    )
    report = run(pipeline, tmp_path / "out")
    words = len(LONG.split()) + 2
    assert report["sources"]["x"]["tokens"] == words + 3
    assert report["kept"]["x"]["tokens"] == words
    assert report["steps"][0]["dropped"]["length"]["x"]["tokens"] == 3


def test_documents_without_ids_are_called_by_their_place_in_every_part(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "pieces", lambda files: pieces(files, 2000))
    rows = [{"text": f"{LONG}{i}"} for i in range(100)]
    source = corpus(tmp_path, "x", {"x": rows})
    run(Pipeline(sources=(source,), steps=(Exact(),)), tmp_path / "out", workers=1)
    assert len(list((tmp_path / "out/kept").iterdir())) > 1
    for row in kept(tmp_path / "out"):
        place = int(row["id"].rpartition("#")[2])
        assert row["text"] == f"{LONG}{place - 1}"


@pytest.mark.parametrize(
    "toml, words",
    [
        ("preset = 'zida'", "preset is 'zida', expected one of zyda, zyda-2"),
        ("", "expected either a preset or [[steps]]"),
        ("preset = 'zyda'", "sources are [], expected at least one"),
        ("preset = 'c4'\nfromat = 'jsonl'\n", "a pipeline has 'fromat', expected one of sources"),
        ("[[steps]]\nuse = 'minhsh'\n", "a step's use is 'minhsh', expected one of filters"),
        ("[[steps]]\nuse = 'minhash'\nthreshhold = 1\n", "minhash has 'threshhold', expected one"),
        ("[[steps]]\nuse = 'minhash'\nngram = '5'\n", "minhash: ngram is '5', expected int"),
        ("[[steps]]\nuse = 'minhash'\nbands = 64\nrows = 4\n", "bands x rows is 64 x 4"),
        ("[[steps]]\nuse = 'minhash'\nthreshold = 2.0\n", "threshold is 2.0, expected a number"),
        ("[[steps]]\nuse = 'minhash'\nverify = 'maybe'\n", "verify is 'maybe', expected one of"),
        ("[[steps]]\nuse = 'filters'\npreset = 'x'\n", "preset is 'x', expected one of zyda, c4"),
        (
            "[[steps]]\nuse = 'filters'\npreset = 'zyda'\nbounds = {most_x = 1}\n",
            "no bound is called 'most_x'",
        ),
        (
            "[[steps]]\nuse = 'exact'\n[[steps]]\nuse = 'filters'\npreset = 'zyda'\n",
            "a filter comes after a step that drops duplicates",
        ),
        ("x = ", "Invalid value"),
    ],
)
def test_mistakes_in_a_pipeline_are_named(toml, words, tmp_path):
    path = tmp_path / "p.toml"
    sources = "" if toml == "preset = 'zyda'" else "\n[[sources]]\nname = 'a'\npaths = ['.']\n"
    path.write_text(toml + sources)
    with pytest.raises(ValueError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value)


def test_options_and_a_pipeline_file_do_not_mix(tmp_path):
    (tmp_path / "p.toml").write_text(TOML)
    mixed(tmp_path)
    done = subprocess.run(
        command(tmp_path, "out", "--preset", "c4"), capture_output=True, text=True
    )
    assert done.returncode == 2 and "--preset is given, and so is" in done.stderr


def test_paths_are_sources_the_best_first(tmp_path):
    mixed(tmp_path)
    args = [sys.executable, "-m", "cookbook_lib", "data", "web", "books", "--out", "out"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(args, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert "web: read" in done.stdout and "2-minhash" in done.stdout
    assert {r["source"] for r in removed(tmp_path / "out") if "stays" in r} == {"web", "books"}
    assert {f"w{i}" for i in range(60) if i % 3} <= {r["id"] for r in kept(tmp_path / "out")} | {
        r["id"] for r in removed(tmp_path / "out") if r.get("stays", "").startswith("copy")
    }
