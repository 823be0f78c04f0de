"""On a Ray cluster of two nodes the results are those of one process, also when a worker
is killed and a node is lost half-way."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("orjson", reason="cookbook_lib.data needs the extra `data`")
pytest.importorskip("ray", reason="there is no Ray for this Python")
import tokenizers as hf
from tokenizers import models, pre_tokenizers, trainers

from cookbook_lib.data.nodes import local_cluster
from cookbook_lib.data.pipeline import Pipeline
from cookbook_lib.data.runs import run
from cookbook_lib.data.steps import PRESETS, Source
from cookbook_lib.data.tokens import count

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own, many

SOURCES = sorted((Path(__file__).parent.parent / "cookbook_lib").rglob("*.py"))


@pytest.fixture
def cluster():
    """A head without cores, and two nodes with one core each."""
    with local_cluster(2) as made:
        yield made


def losing(cluster):
    """The node that is lost."""
    return next(node for node in cluster.list_all_nodes() if node is not cluster.head_node)


def test_a_killed_worker_and_a_lost_node_change_nothing(cluster, tmp_path):
    texts = [p.read_text() for p in SOURCES]
    folder = tmp_path / "corpus"
    folder.mkdir()
    for k in range(16):
        rows = "".join(json.dumps({"text": f"{k} {t}"}) + "\n" for t in texts)
        (folder / f"{k:02}.jsonl").write_text(rows)
    tokenizer = hf.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=["[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator(texts[:20], trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    asked = ([str(folder)], str(tmp_path / "tokenizer.json"))

    lost = []

    def watch(pieces, done):
        def told(nbytes, tokens):
            if len(lost) < 2:
                lost.append(
                    lose_a_worker()
                    if not lost
                    else cluster.remove_node(losing(cluster), allow_graceful=False)
                )

        return told

    there = count(*asked, engine="ray", address=cluster.address, out=tmp_path / "ray", watch=watch)
    here = count(*asked, workers=1, out=tmp_path / "local")
    assert len(lost) == 2 and there.documents == 16 * len(texts)
    assert there.by_source == here.by_source and there.whole
    assert shards(tmp_path / "ray") == shards(tmp_path / "local")


def lose_a_worker(task: bytes = b"count_piece") -> int:
    """Kill -9 one process that runs a task."""
    for _ in range(200):
        for process in Path("/proc").glob("[0-9]*"):
            try:
                name = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if name.startswith(b"ray::" + task):
                os.kill(int(process.name), signal.SIGKILL)
                return int(process.name)
        time.sleep(0.02)
    raise AssertionError("no worker was found")


def shards(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (out / "shards").iterdir()}


def test_a_pipeline_on_the_cluster_writes_what_one_process_writes(cluster, tmp_path):
    texts = [p.read_text() for p in SOURCES]
    folder = tmp_path / "corpus"
    folder.mkdir()
    for k in range(12):
        rows = "".join(json.dumps({"text": f"{k} {t}"}) + "\n" for t in texts)
        (folder / f"{k:02}.jsonl").write_text(rows)
    source = Source(name="code", paths=(str(folder),))
    pipeline = Pipeline(sources=(source,), steps=PRESETS["zyda"], format="jsonl")
    lost = []

    def progress(name, done, total):
        if not lost:
            lost.append(lose_a_worker(b"call"))
        elif len(lost) == 1:
            lost.append(cluster.remove_node(losing(cluster), allow_graceful=False))

    there = run(
        pipeline, tmp_path / "ray", progress=progress, engine="ray", address=cluster.address
    )
    here = run(pipeline, tmp_path / "local")
    assert len(lost) == 2 and there["kept"] == here["kept"] and there["steps"][1]["dropped"]
    assert written(tmp_path / "ray") == written(tmp_path / "local")


def written(out: Path) -> dict[str, bytes]:
    files = (p for part in ("kept", "removed") for p in (out / part).iterdir())
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in files}
