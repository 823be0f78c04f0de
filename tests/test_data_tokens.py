"""Token counts are those of `tokenizers`, shards hold those tokens, and neither damage nor a kill
nor the number of workers changes them."""

import gzip
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("orjson", reason="cookbook_lib.data needs the extra `data`")
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers as hf
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from cookbook_lib.cli import main
from cookbook_lib.data import counting, early, encoding, proof
from cookbook_lib.data.job import Job
from cookbook_lib.data.shards import Packed, Shard, dtype_for
from cookbook_lib.data.tokens import count

ROOT = Path(__file__).parent.parent
PROSE = [p.read_text() for p in sorted(ROOT.glob("docs/*.md"))]
CODE = [p.read_text() for p in sorted(ROOT.glob("cookbook_lib/*/*.py"))]
KINDS = ("byte-level", "sentencepiece", "wordpiece", "unigram")


def trained(kind: str) -> hf.Tokenizer:
    """A small tokenizer of each family, with a post-processor that adds two tokens."""
    special = ["[UNK]", "<s>", "</s>"]
    more = {"vocab_size": 600, "special_tokens": special, "show_progress": False}
    if kind == "byte-level":
        tokenizer = hf.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), **more
        )
    elif kind == "sentencepiece":
        tokenizer = hf.Tokenizer(models.BPE(unk_token="[UNK]", byte_fallback=True, fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        more["special_tokens"] = special + [f"<0x{b:02X}>" for b in range(256)]
        trainer = trainers.BpeTrainer(**more | {"vocab_size": 900})
    elif kind == "wordpiece":
        tokenizer = hf.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(**more)
    else:
        tokenizer = hf.Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token="[UNK]", **more)
    tokenizer.train_from_iterator([p[:4000] for p in PROSE + CODE], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory) -> dict[str, str]:
    """Files; with truncation and padding, which must not touch a count."""
    folder, paths = tmp_path_factory.mktemp("tokenizers"), {}
    for kind in KINDS:
        tokenizer = trained(kind)
        tokenizer.enable_truncation(8)
        tokenizer.enable_padding(length=8)
        paths[kind] = str(folder / f"{kind}.json")
        tokenizer.save(paths[kind])
    return paths


def referee(path: str) -> hf.Tokenizer:
    tokenizer = hf.Tokenizer.from_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


TEXTS = [
    "",
    "The state of the model. " * 40,
    "null \0 byte, emoji 👩‍👩‍👧 🇩🇪, שלום עולם, e\u0301, <s> and </s> and [UNK] as text",
    "\ufeff\u200b \r\n\t",
    *CODE[:6],
    *PROSE,
]


def jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": t}) + "\n" for t in texts).encode()


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A folder of three formats, each with all texts."""
    folder = tmp_path / "corpus"
    (folder / "web").mkdir(parents=True)
    (folder / "a.jsonl").write_bytes(jsonl(TEXTS))
    (folder / "web/b.jsonl.gz").write_bytes(gzip.compress(jsonl(TEXTS)))
    pq.write_table(pa.table({"text": TEXTS}), folder / "c.parquet", row_group_size=5)
    return folder


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_those_of_tokenizers(kind, special, tokenizers, corpus, tmp_path):
    path = tokenizers[kind]
    report = count(
        [str(corpus)],
        path,
        special_tokens=special,
        workers=2,
        out=tmp_path / "out",
        shard_bytes=9999,
    )
    one = referee(path)
    each = [one.encode(t, add_special_tokens=special).ids for t in TEXTS]
    assert report.tokens == 3 * sum(map(len, each)) and report.documents == 3 * len(TEXTS)
    assert report.characters == 3 * sum(map(len, TEXTS))
    assert report.bytes == 3 * sum(len(t.encode()) for t in TEXTS)
    assert report.whole and report.files == 3
    assert {s: r["tokens"] for s, r in report.by_source.items()} == {
        "corpus": 2 * report.tokens // 3,
        "web": report.tokens // 3,
    }
    packed = [d.tolist() for s in shards(tmp_path / "out") for d in s]
    assert packed == each * 3  # in the order of the files: a.jsonl, c.parquet, web/b.jsonl.gz
    assert (report.slow == "") == (kind in ("byte-level", "sentencepiece")), report.slow


def shards(out: Path) -> list[Packed]:
    return [Packed(p.with_suffix("")) for p in sorted((out / "shards").glob("*.idx"))]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(some=st.lists(st.text(max_size=40), min_size=1, max_size=8), kind=st.sampled_from(KINDS[:2]))
def test_the_fast_tokenizer_gives_the_same_ids_for_any_text(some, kind, tokenizers):
    loaded = encoding.load(tokenizers[kind])
    assert loaded.fast is not None, loaded.why_exact
    proof.prove(loaded.fast, loaded.exact, some)
    one = referee(tokenizers[kind])
    for ids, text in zip(proof.split(loaded.exact(some)), some, strict=True):
        assert ids.tolist() == one.encode(text, add_special_tokens=False).ids


def test_a_fast_tokenizer_that_errs_is_found_out_and_not_used(tokenizers, corpus, monkeypatch):
    """Found on the data, not only on the hard texts: it errs on one word alone."""
    from cookbook_lib.data import counting
    from cookbook_lib.data.files import find
    from cookbook_lib.data.job import Job
    from cookbook_lib.data.reading import pieces

    loaded = encoding.load(tokenizers["byte-level"])

    def wrong(texts: list[str], ids: bool = True) -> proof.Encoded:
        return loaded.fast([t.replace("state", "stat e") for t in texts])

    broken = replace(loaded, fast=wrong)
    monkeypatch.setattr(counting, "load", lambda *_: broken)
    (file,) = find([str(corpus / "a.jsonl")])[0]
    result = counting.count_piece(Job(tokenizer="x"), 0, pieces([file])[0])
    assert result["tokens"] == len(loaded.exact(TEXTS)[0]) and "differs on" in result["slow"]


def test_tiktoken_counts_by_its_own_rules(tmp_path, monkeypatch, corpus):
    """An encoding from a plugin, as tiktoken loads its own without the network."""
    plugin = tmp_path / "path/tiktoken_ext"
    plugin.mkdir(parents=True)
    (plugin / "tiny.py").write_text(
        "def tiny():\n"
        "    ranks = {bytes([b]): b for b in range(256)} | {b'th': 256, b'the': 257}\n"
        "    return dict(name='tiny', pat_str=r'\\w+|\\W', mergeable_ranks=ranks,"
        " special_tokens={'<|end|>': 258})\n"
        "ENCODING_CONSTRUCTORS = {'tiny': tiny}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    report = count([str(corpus / "a.jsonl")], "tiktoken:tiny", workers=1)
    the = sum(t.count("the") for t in TEXTS)
    th = sum(t.count("th") for t in TEXTS) - the
    assert report.tokens == report.bytes - 2 * the - th


def test_shards_are_the_same_whatever_the_workers(tokenizers, corpus, tmp_path):
    def made(workers: int) -> dict[str, bytes]:
        out = tmp_path / f"out{workers}"
        count([str(corpus)], tokenizers["byte-level"], workers=workers, out=out, shard_bytes=4096)
        return {
            p.name: p.read_bytes() for p in out.rglob("*") if p.suffix in (".bin", ".idx", ".json")
        }

    one = made(1)
    assert len(one) > 10 and one == made(3)


def test_an_end_of_document_stands_in_the_shards_and_is_not_counted(tokenizers, corpus, tmp_path):
    path = str(corpus / "a.jsonl")
    report = count([path], tokenizers["byte-level"], out=tmp_path / "out", end="</s>")
    (shard,) = shards(tmp_path / "out")
    assert [d[-1] for d in shard] == [2] * len(TEXTS)
    assert len(shard.ids) == report.tokens + report.documents
    with pytest.raises(ValueError, match="end is '<eos>', expected a token of"):
        count([path], tokenizers["byte-level"], out=tmp_path / "other", end="<eos>")


@given(
    st.lists(st.lists(st.integers(0, 60_000), max_size=5), min_size=1, max_size=5), st.booleans()
)
def test_a_shard_gives_back_its_documents_in_the_published_layout(documents, small):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        shard = Shard(Path(folder) / "s", dtype_for(60_000 if small else 130_000))
        for document in documents:
            shard.append(np.array(document, np.uint32), np.array([len(document)]))
        shard.close()
        ours = Packed(Path(folder) / "s")
        assert [d.tolist() for d in ours] == documents
        raw = Path(folder, "s.idx").read_bytes()  # read by its published layout, not by our code
        count = len(documents)
        assert raw[:9] == b"MMIDIDX\0\0" and raw[9:17] == (1).to_bytes(8, "little")
        assert raw[17] == (8 if small else 4)
        assert raw[18:34] == count.to_bytes(8, "little") + (count + 1).to_bytes(8, "little")
        assert np.frombuffer(raw, "<i4", count, 34).tolist() == [len(d) for d in documents]
        assert np.frombuffer(raw, "<i8", count + 1, 34 + 12 * count).tolist() == list(
            range(count + 1)
        )


def test_megatron_reads_a_shard_as_we_do(tokenizers, corpus, tmp_path):
    reason = "Megatron's own reader is not installed"
    megatron = pytest.importorskip("megatron.core.datasets.indexed_dataset", reason=reason)
    out = tmp_path / "out"
    count([str(corpus)], tokenizers["byte-level"], out=out, end="</s>")
    for path in sorted((out / "shards").glob("*.idx")):
        ours, theirs = Packed(path.with_suffix("")), megatron.IndexedDataset(str(path)[:-4])
        assert len(theirs) == len(ours) == len(TEXTS)
        assert [theirs[i].tolist() for i in range(len(theirs))] == [d.tolist() for d in ours]
        assert theirs.document_indices.tolist() == ours.boundaries.tolist()


def test_a_shard_whose_files_do_not_fit_is_refused(tmp_path):
    shard = Shard(tmp_path / "s", dtype_for(100))
    shard.append(np.arange(9, dtype=np.uint32), np.array([4, 5]))
    shard.close()
    for name, cut in (("s.bin", 3), ("s.idx", 20)):
        shutil.copytree(tmp_path, copy := tmp_path.with_name(name))
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data[:-cut])
        with pytest.raises(ValueError, match=name):
            Packed(copy / "s")


def command(*argv: str) -> list[str]:
    return [sys.executable, "-m", "cookbook_lib", "tokens", *map(str, argv)]


def damage(path: Path, lines: bytes) -> None:
    path.write_bytes(path.read_bytes() + lines)


def test_the_command_counts_a_broken_folder_and_names_what_is_broken(tokenizers, corpus, capsys):
    damage(corpus / "a.jsonl", b'{"text": "cut\n\xff\n{"body": 1}\n')
    cut = (corpus / "web/b.jsonl.gz").read_bytes()
    (corpus / "web/b.jsonl.gz").write_bytes(cut[: len(cut) // 2])
    (corpus / "d.parquet").write_bytes(b"PAR1 but not really")
    (corpus / "README").touch()
    with pytest.raises(SystemExit) as end:
        main(["tokens", str(corpus), "--tokenizer", tokenizers["byte-level"], "--json"])
    printed = capsys.readouterr()
    report, n = json.loads(printed.out), len(TEXTS)
    assert end.value.code == 3
    first = "documents tokens characters bytes bad_records damaged_files files seconds"
    assert " ".join(list(report)[:10]) == f"{first} tokens_per_second by_source"
    assert (report["bad_records"], report["damaged_files"], report["files"]) == (3, 2, 4)
    assert 2 * n < report["documents"] < 3 * n
    assert [(d["unit"], d["number"]) for d in report["damage"][:3]] == [
        ("line", n + 1),
        ("line", n + 2),
        ("line", n + 3),
    ]
    for said in (f"a.jsonl: line {n + 2}: byte 0xff", "d.parquet: row 1", "b.jsonl.gz: byte"):
        assert said in printed.err
    assert "1 files of other kinds left out" in printed.err


def test_strict_stops_at_the_first_damage(tokenizers, corpus, capsys):
    damage(corpus / "a.jsonl", b"oh\n")
    with pytest.raises(SystemExit) as end:
        main(["tokens", str(corpus), "--tokenizer", tokenizers["byte-level"], "--strict"])
    assert end.value.code == 2
    assert f"a.jsonl: line {len(TEXTS) + 1}: Expecting value" in capsys.readouterr().err


def test_what_the_user_got_wrong_is_one_line(tokenizers, corpus, capsys, tmp_path, monkeypatch):
    """And the worker that began with the command has ended with it."""
    begun, begin = [], early.begun
    monkeypatch.setattr(early, "begun", lambda *a: begun.append(begin(*a)) or begun[-1])
    good = ["--tokenizer", tokenizers["byte-level"]]
    (tmp_path / "no.json").write_text("[]")
    for argv, said in (
        (["no/such", *good], "no/such: no such file or folder"),
        (
            [str(corpus), "--tokenizer", "nowhere.json"],
            "expected a tokenizer.json, or tiktoken:NAME",
        ),
        ([str(corpus), "--tokenizer", str(tmp_path / "no.json")], "is no tokenizer.json"),
        ([str(corpus), *good, "--workers", "0"], "workers is 0, expected at least 1"),
        ([str(corpus), *good, "--address", "auto"], "needs --engine ray"),
        (
            [str(corpus), *good, "--engine", "ray", "--address", "127.0.0.1:9"],
            "no Ray cluster answers",
        ),
        (good, "there is no path"),
        ([str(corpus), *good, "--end", "</s>"], "needs --out"),
        ([str(corpus), *good, "--out", "/dev/null/x"], "/dev/null/x: cannot be written"),
        ([str(corpus), *good, "--out", "s3://b/x"], "out is s3:/b/x, expected a folder on a disk"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["tokens", *argv])
        err = capsys.readouterr().err
        assert end.value.code == 2 and said in err and err.count("\n") == 1, err
        assert begun and all(process.poll() is not None for process in begun)


@pytest.mark.parametrize(
    "argv, tokenizer",
    [
        (["x", "--tokenizer", "t.json", "--json"], "t.json"),
        (["x", "--tokenizer", "t.json", "--exact"], ""),
        (["x", "--special-tokens", "--tokenizer", "t.json"], ""),
        (["x", "--tokenizer"], ""),
        (["x"], ""),
    ],
)
def test_the_early_worker_loads_the_tokenizer_where_it_is_used_plainly(argv, tokenizer):
    assert early.guessed(argv) == tokenizer


def test_what_the_early_worker_loads_is_what_a_plain_job_asks_for(tokenizers):
    name, before = tokenizers["byte-level"], encoding.load.cache_info()
    early_one = counting.tokenizer_of(Job(tokenizer=name))
    plain = Job(tokenizer=name, field="said", strict=True, shards="x", end="</s>")
    assert counting.tokenizer_of(plain) is early_one
    assert encoding.load.cache_info().hits > before.hits
    assert counting.tokenizer_of(Job(tokenizer=name, exact=True)) is not early_one


def test_standard_input_is_counted(tokenizers):
    done = subprocess.run(
        command("-", "--tokenizer", tokenizers["byte-level"], "--json"),
        input=jsonl(TEXTS),
        capture_output=True,
        cwd=ROOT,
    )
    one = referee(tokenizers["byte-level"])
    expected = sum(len(one.encode(t, add_special_tokens=False).ids) for t in TEXTS)
    assert json.loads(done.stdout)["tokens"] == expected, done.stderr


@pytest.fixture
def large(tmp_path) -> Path:
    """Enough pieces that a run can be killed among them."""
    folder = tmp_path / "large"
    folder.mkdir()
    for k in range(10):
        (folder / f"{k:02}.jsonl").write_bytes(
            jsonl([f"{k} {i} {t}" for i in range(12) for t in TEXTS])
        )
    return folder


def test_a_killed_run_goes_on_and_ends_with_the_same_shards(tokenizers, large, tmp_path):
    """kill -9 after some pieces, three times, at whatever moment it hits."""
    options = ["--tokenizer", tokenizers["wordpiece"], "--workers", "2"]
    out = tmp_path / "killed"
    for pieces in (1, 3, 5):
        run = subprocess.Popen(
            command(large, *options, "--out", out), cwd=ROOT, stderr=subprocess.PIPE
        )
        log = out / "done.jsonl"
        while not log.exists() or log.read_bytes().count(b"\n") < pieces:
            assert run.poll() is None, run.stderr.read()
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
        run.communicate()
    assert not (out / "counts.json").exists()
    with (out / "done.jsonl").open("ab") as log:
        log.write(b'{"documents": 1, "tok')  # as a kill in the middle of a line would leave it
    before = {json.loads(l)["piece"] for l in (out / "done.jsonl").read_bytes().splitlines()[:-1]}
    whole = tmp_path / "whole"
    for folder in (out, whole):
        subprocess.run(command(large, *options, "--out", folder), cwd=ROOT, check=True, stdout=-3)
    assert 5 <= len(before) < 10
    assert same(out) == same(whole) and len(list((out / "shards").iterdir())) == 20


def same(out: Path) -> dict[str, bytes]:
    kept = [*(out / "shards").iterdir(), out / "counts.json"]
    return {p.name: p.read_bytes() for p in kept}


def test_a_worker_that_dies_is_replaced(tokenizers, large, tmp_path):
    """One of two is killed when some pieces are done."""
    out = tmp_path / "out"
    options = ["--tokenizer", tokenizers["wordpiece"], "--workers", "4", "--out", out, "--json"]
    run = subprocess.Popen(command(large, *options), cwd=ROOT, stdout=subprocess.PIPE)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    if not children.exists():
        run.kill()
        pytest.skip("the kernel does not list a process's children")
    log = out / "done.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < 2:
        assert run.poll() is None
        time.sleep(0.01)
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    report = json.loads(run.communicate()[0])
    assert report["documents"] == 10 * 12 * len(TEXTS)


def test_pieces_whose_workers_die_again_and_again_end_the_run(tokenizers, large):
    options = ["--tokenizer", tokenizers["wordpiece"], "--workers", "2"]
    run = subprocess.Popen(command(large, *options), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    threads = Path(f"/proc/{run.pid}/task")  # each of them has the children that it began
    if not (threads / str(run.pid) / "children").exists():
        run.kill()
        pytest.skip("the kernel does not list a process's children")
    while run.poll() is None:
        for children in threads.glob("*/children"):
            with suppress(OSError):
                for child in children.read_text().split():
                    os.kill(int(child), signal.SIGKILL)
        time.sleep(0.01)
    said = run.communicate()[1]
    assert run.returncode == 2
    assert re.fullmatch(r"cookbook: .+: its worker died 3 times; is there enough memory\?\n", said)


def test_two_runs_on_one_folder_refuse_each_other(tokenizers, corpus, tmp_path):
    from cookbook_lib.data.ledger import Ledger

    out = tmp_path / "out"
    first = Ledger(out, {"a": 1})
    run = partial(count, [str(corpus)], tokenizers["byte-level"], out=out)
    with pytest.raises(ValueError, match="is in use by another run"):
        run()
    first.close()
    with pytest.raises(
        ValueError, match="holds a run with other tokenizer and field .* new folder"
    ):
        run()
    shutil.rmtree(out)
    assert run().tokens == run().tokens  # the second only reads what is done


def test_a_full_disk_gives_one_clear_line(tokenizers, large, tmp_path):
    """The limit of a file's size stands for the disk's: a write fails in the same place."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        command(large, "--tokenizer", tokenizers["byte-level"], "--out", tmp_path / "out"),
        cwd=ROOT,
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "out" in done.stderr and "File too large" in done.stderr
    assert not list((tmp_path / "out/shards").iterdir())  # what was half written is gone


def test_nothing_phones_home(tokenizers, corpus, tmp_path):
    """No process of a run tries to connect to anything, by the C library's own account."""
    if not (cc := shutil.which("cc")):
        pytest.skip("no C compiler: connections cannot be watched")
    source, spy, log = tmp_path / "spy.c", tmp_path / "spy.so", tmp_path / "log"
    source.write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <errno.h>\n#include <sys/socket.h>\n"
        "int connect(int s, const struct sockaddr *a, socklen_t n) {\n"
        '  FILE *f = fopen(getenv("SPY_LOG"), "a"); fprintf(f, "%d\\n", a->sa_family);\n'
        "  fclose(f); errno = ECONNREFUSED; return -1; }\n"
    )
    subprocess.run([cc, "-shared", "-fPIC", "-o", spy, source], check=True)
    env = os.environ | {"LD_PRELOAD": str(spy), "SPY_LOG": str(log)}
    probe = "import socket\ntry: socket.create_connection(('127.0.0.1', 9))\nexcept OSError: pass"
    subprocess.run([sys.executable, "-c", probe], env=env, check=True)
    assert log.read_text().count("\n") == 1  # the spy sees a connection
    run = command(corpus, "--tokenizer", tokenizers["byte-level"], "--out", tmp_path / "out")
    subprocess.run(run, env=env, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert log.read_text().count("\n") == 1
