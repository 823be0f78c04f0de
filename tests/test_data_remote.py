"""A corpus on a server is counted as the same files on the disk are, and what is damaged in it is
named by its URL."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("orjson", reason="cookbook_lib.data needs the extra `data`")
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers as hf

ROOT = Path(__file__).parent.parent
TEXTS = [f"document {i} says {i * i} things, and é" for i in range(3000)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Lines and columns, whole and damaged, and a tokenizer beside them."""
    folder = tmp_path_factory.mktemp("remote")
    (data := folder / "data").mkdir()
    lines = gzip.compress("".join(json.dumps({"text": t}) + "\n" for t in TEXTS).encode())
    (data / "a.jsonl.gz").write_bytes(lines)
    (data / "cut.jsonl.gz").write_bytes(lines[: len(lines) // 2])
    table = pa.table({"text": TEXTS})
    pq.write_table(table, data / "b.parquet", row_group_size=1000)
    whole = bytearray((data / "b.parquet").read_bytes())
    middle = pq.ParquetFile(data / "b.parquet").metadata.row_group(1).column(0)
    at = middle.data_page_offset + middle.total_compressed_size // 2
    whole[at : at + 64] = bytes(b ^ 0xFF for b in whole[at : at + 64])
    (data / "damaged.parquet").write_bytes(whole)
    tokenizer = hf.Tokenizer(hf.models.BPE())
    tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(hf.pre_tokenizers.ByteLevel.alphabet())
    trainer = hf.trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS[:300], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def counted(path: str, folder: Path, env: dict[str, str] | None = None) -> dict:
    argv = ["tokens", path, "--tokenizer", folder / "tokenizer.json", "--workers", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "cookbook_lib", *map(str, argv)],
        env=os.environ | (env or {}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3, done.stderr  # something is damaged
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def on_disk(folder) -> dict:
    report = counted(str(folder / "data"), folder)
    assert report["damaged_files"] == 2 and report["documents"] > 8000
    return report


SUMS = ("documents", "tokens", "characters", "bytes", "bad_records", "damaged_files", "files")


def same(there: dict, here: dict, root: str) -> None:
    assert [there[k] for k in SUMS] == [here[k] for k in SUMS]
    places = [
        [(Path(d["path"]).name, d["unit"], d["number"], d["reason"]) for d in r["damage"]]
        for r in (there, here)
    ]
    assert places[0] == places[1]
    assert all(d["path"].startswith(root) for d in there["damage"])


def test_s3_is_counted_as_the_disk_is(folder, on_disk):
    """moto is a server of its own that speaks S3; s3fs reads from it as from Amazon's."""
    pytest.importorskip("s3fs", reason="needs the extra `test`")
    server = pytest.importorskip("moto.server", reason="needs the extra `test`")
    import boto3

    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        host, port = moto.get_host_and_port()
        env = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        client = boto3.client(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="corpus")
        for path in (folder / "data").iterdir():
            client.put_object(Bucket="corpus", Key=f"data/{path.name}", Body=path.read_bytes())
        client.close()
        same(counted("s3://corpus/data", folder, env), on_disk, "s3://corpus/data/")
        some = counted("s3://corpus/data/*.parquet", folder, env)
        assert some["files"] == 2 and some["damaged_files"] == 1
    finally:
        moto.stop()


@contextmanager
def served(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_google_cloud_storage_is_counted_as_the_disk_is(folder, on_disk):
    """The emulator speaks Google's JSON interface; gcsfs reads from it as from Google's."""
    pytest.importorskip("gcsfs", reason="needs the extra `test`")
    server = pytest.importorskip("gcp_storage_emulator.server", reason="needs the extra `test`")
    storage = server.Storage(use_memory_fs=True)
    with served(partial(server.RequestHandler, storage)) as host:
        post(f"{host}/storage/v1/b", b'{"name": "corpus"}', "application/json")
        for path in (folder / "data").iterdir():
            at = f"{host}/upload/storage/v1/b/corpus/o?uploadType=media&name=data/{path.name}"
            post(at, path.read_bytes(), "application/octet-stream")
        env = {
            "STORAGE_EMULATOR_HOST": host,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks Google for the kind of a bucket
        }
        same(counted("gs://corpus/data", folder, env), on_disk, "gs://corpus/data/")
        some = counted("gs://corpus/data/*.parquet", folder, env)
        assert some["files"] == 2 and some["damaged_files"] == 1


def post(url: str, data: bytes, kind: str) -> None:
    urlopen(Request(url, data, {"Content-Type": kind}), timeout=30).close()


class Hub(BaseHTTPRequestHandler):
    """The part of the Hub's interface that reading a dataset needs, for one folder."""

    protocol_version = "HTTP/1.1"
    root: Path

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        if found := re.fullmatch(r"/datasets/me/corpus/resolve/[^/]+/(.+)", path):
            return self.send(self.root / found[1])
        if re.fullmatch(r"/api/datasets/me/corpus(/revision/[^/]+)?", path):
            return self.say({"id": "me/corpus", "sha": "0" * 40, "siblings": []})
        found = re.fullmatch(r"/api/datasets/me/corpus/tree/[^/]+/?(.*)", path)
        if found and (folder := self.root / found[1]).is_dir():
            return self.say([self.facts(p) for p in sorted(folder.iterdir())])
        return self.say({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = json.loads(body)["paths"] if body[:1] == "{" else parse_qs(body)["paths"]
        asked = [asked] if isinstance(asked, str) else asked
        there = [self.root / path for path in asked]
        self.say([self.facts(path) for path in there if path.exists()])

    def facts(self, path: Path) -> dict:
        name = path.relative_to(self.root).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
        return {"type": "file", "path": name, "oid": "0" * 40, "size": path.stat().st_size}

    def say(self, thing, code: int = 200, more: dict[str, str] | None = None) -> None:
        self.answer(
            code, json.dumps(thing).encode(), {"Content-Type": "application/json"} | (more or {})
        )

    def send(self, path: Path) -> None:
        data = path.read_bytes()
        more = {"ETag": '"0"', "X-Repo-Commit": "0" * 40, "Accept-Ranges": "bytes"}
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
            more["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            return self.answer(206, data[first : last + 1], more)
        return self.answer(200, data, more)

    def answer(self, code: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_) -> None: ...


def test_a_dataset_of_the_hub_is_counted_as_the_disk_is(folder, on_disk, tmp_path):
    """Hugging Face's own file system reads from a server that answers as the Hub does."""
    pytest.importorskip("huggingface_hub", reason="needs the extra `test`")
    with served(type("OfOne", (Hub,), {"root": folder})) as address:
        env = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
        root = "hf://datasets/me/corpus/data"
        same(counted(root, folder, env), on_disk, f"{root}/")
