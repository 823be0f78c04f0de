"""`cookbook bench tokens`: seconds of `cookbook tokens` beside other ways to count the same."""

import json as json_format
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Literal

from cookbook_lib.benchmarks.timing import Stop, compare
from cookbook_lib.commands.output import print_json, print_table
from cookbook_lib.provenance import device_name

WAYS = {  # name -> function in counters, or our command; the package whose version tells
    "cookbook tokens": ("", "gigatoken"),
    "raw gigatoken": ("raw_gigatoken", "gigatoken"),
    "Daft and gigatoken": ("daft_gigatoken", "daft"),
    "cookbook tokens, exact": ("exact", "tokenizers"),
    "raw encode_batch_fast": ("raw_tokenizers", "tokenizers"),
    "datatrove TokensCounter": ("datatrove_counter", "datatrove"),
    "datasets.map": ("datasets_map", "datasets"),
}
RUN = (
    "import sys; from cookbook_lib.benchmarks import counters; "
    "getattr(counters, sys.argv[1])(*sys.argv[2:5], int(sys.argv[5]))"
)
QUIET = {"DO_NOT_TRACK": "1", "DAFT_ANALYTICS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}


def bench_tokens(
    megabytes: int = 100,
    kind: Literal["jsonl", "parquet"] = "jsonl",
    workers: int = 2,
    repeats: int = 3,
    only: tuple[str, ...] = (),
    json: bool = False,
) -> None:
    """Time whole processes that count the same files, in turn, and compare what they count.

    The corpus is Python's own sources and those of the installed packages, and the tokenizer is
    a byte-level BPE that is trained on them. What is not installed is left out.

    Args:
        megabytes: of text
        kind: format of the files
        workers: processes, or threads, of each way
        repeats: rounds, after one that is not counted
        only: some of the ways, as the table names them
        json: print one JSON document instead of a table
    """
    for name, value in {"megabytes": megabytes, "workers": workers, "repeats": repeats}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    if unknown := set(only) - set(WAYS):
        raise ValueError(f"only is {unknown.pop()!r}, expected some of {', '.join(WAYS)}")
    ways = {name: way for name, way in WAYS.items() if not only or name in only}
    found = {name: installed(package) for name, (_, package) in ways.items()}
    with tempfile.TemporaryDirectory() as folder:
        nbytes, tokenizer = make_corpus(Path(folder), megabytes * 10**6, kind, workers)
        counts: dict[str, int] = {}

        def run(name: str) -> None:
            counts[name] = in_a_process(WAYS[name][0], folder, kind, tokenizer, workers)

        took = compare(
            {name: lambda name=name: run(name) for name in ways if found[name]},
            stop=Stop.after(repeats),
        ).timings
    rows = [
        {
            "by": name,
            "version": found[name],
            "seconds": timing.samples,
            "bytes_per_second": nbytes / timing.median,
            "tokens": counts[name],
        }
        for name, timing in took.items()
    ]
    if json:
        shown = {"device": device_name("cpu"), "workers": workers, "bytes": nbytes, "rows": rows}
        return print_json(shown)
    first = median(rows[0]["seconds"])
    print_table(
        f"{nbytes / 1e6:.0f} MB of {kind}, {workers} workers, {device_name('cpu')}",
        ("by", "version", "median", "range", "MB/s", f"times {rows[0]['by']}", "tokens"),
        [
            [
                r["by"],
                r["version"],
                f"{median(r['seconds']):.2f} s",
                f"{min(r['seconds']):.2f} to {max(r['seconds']):.2f} s",
                f"{r['bytes_per_second'] / 1e6:.1f}",
                f"{median(r['seconds']) / first:.2f}",
                r["tokens"],
            ]
            for r in rows
        ],
    )
    if missing := [name for name in ways if not found[name]]:
        print(f"Not installed: {', '.join(missing)}.")


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def make_corpus(folder: Path, nbytes: int, kind: str, shards: int) -> tuple[int, str]:
    """Files of one format in a folder, and a tokenizer: (bytes of text, its path)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    texts, total = [], 0
    for text in sources():
        texts.append(text)
        total += len(text.encode())
        if total >= nbytes:
            break
    else:
        raise ValueError(f"megabytes: this Python has {total / 1e6:.0f} MB of sources: take less")
    for k in range(shards):
        mine = texts[k::shards]
        if kind == "jsonl":
            rows = "".join(json_format.dumps({"text": t}) + "\n" for t in mine)
            (folder / f"{k}.jsonl").write_text(rows)
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            table = pa.table({"text": mine})
            pq.write_table(table, folder / f"{k}.parquet", compression="zstd", row_group_size=1000)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=32_000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts[::10], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return total, str(folder / "tokenizer.json")


def sources() -> Iterator[str]:
    """Python files of this machine in pieces of some kilobytes, each once, mixed."""
    from random import Random

    draw, seen = Random(0), set()
    roots = {sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")}
    roots |= {p for p in sys.path if p.endswith("site-packages")}
    paths = sorted({p for root in roots for p in Path(root).rglob("*.py")})
    draw.shuffle(paths)
    for path in paths:
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError):
            continue
        at = 0
        while at < len(text):
            size = draw.choice((600, 2000, 3000, 12_000))
            piece, at = text[at : at + size], at + size
            if piece not in seen:
                seen.add(piece)
                yield piece


def in_a_process(way: str, folder: str, kind: str, tokenizer: str, workers: int) -> int:
    """The tokens that a process of its own counts."""
    threads = {k: str(workers) for k in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS")}
    env = os.environ | QUIET | threads
    if way in ("", "exact"):
        options = ["--tokenizer", tokenizer, "--workers", str(workers), "--json"]
        options += ["--exact"] * (way == "exact")
        program = ["-m", "cookbook_lib", "tokens", f"{folder}/*.{kind}", *options]
    else:
        program = ["-c", RUN, way, folder, kind, tokenizer, str(workers)]
    done = subprocess.run([sys.executable, *program], env=env, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise RuntimeError(f"{way or 'cookbook tokens'}: {last[0]}")
    if way in ("", "exact"):
        return json_format.loads(done.stdout)["tokens"]
    return int(done.stdout.split()[-1])
