"""`cookbook bench dedup`: near-duplicate search, ours and others', on planted duplicates."""

import json
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from cookbook_lib.benchmarks.dedup_theory import draw, expected, s_curve
from cookbook_lib.benchmarks.dedup_tools import THRESHOLD, TOOLS
from cookbook_lib.commands.output import print_json, print_table
from cookbook_lib.data.planted import pair

SIMILARITIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
GRAMS = 600  # n-grams of a document, about 3 kB
FILES = 4  # some tools work on files in parallel, and on nothing smaller


def bench_dedup(
    documents: int = 10_000,
    repeats: int = 1,
    tools: tuple[str, ...] = tuple(TOOLS),
    seed: int = 0,
    plot: Path | None = None,
    json: bool = False,
) -> None:
    """Speed, recall and precision on planted duplicates, each tool in a process of its own.

    Tools that are not installed are left out. All of them need: pip install
    daft 'datatrove[processing]' spacy 'xxhash<4' text-dedup.

    Args:
        documents: how many, in pairs of known similarity
        repeats: runs of each tool, in turn
        tools: which of them, if they are installed
        seed: of the planted texts
        plot: draw the measured chance of a merge against theory into this file, .svg or .png
        json: print one JSON document instead of tables
    """
    if documents < 2 * len(SIMILARITIES):
        raise ValueError(f"documents is {documents}, expected at least {2 * len(SIMILARITIES)}")
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}, expected at least 1")
    for name in tools:
        if name not in TOOLS:
            raise ValueError(f"tools has {name!r}, expected some of {', '.join(TOOLS)}")
    with tempfile.TemporaryDirectory() as place:
        corpus = Path(place, "in")
        planted = plant(corpus, documents // 2, seed)
        size = sum(path.stat().st_size for path in corpus.iterdir())
        found: dict[str, list[dict[str, Any]]] = {}
        for turn in range(repeats):
            for name in ("cookbook", *(t for t in tools if t != "cookbook")):
                if installed(TOOLS[name][1] or "cookbook-lib"):
                    folder = Path(place, f"{name} {turn}")
                    found.setdefault(name, []).append(timed(name, corpus, folder, planted))
    rows = [summary(name, runs, size) for name, runs in found.items()]
    curve = s_curve(planted, found["cookbook"][0]["merged"])
    if plot:
        draw(curve, plot)
    if json:
        sizes = {"documents": documents, "bytes": size, "repeats": repeats}
        return print_json({**sizes, "tools": rows, "curve": curve, "expected": expected(planted)})
    head = ("tool", "version", "seconds", "MB/s", "recall", "precision")
    table = [
        (
            r["tool"],
            r["version"],
            f"{r['seconds']:.1f}",
            f"{r['bytes_per_second'] / 1e6:.1f}",
            f"{r['recall']:.3f}",
            f"{r['precision']:.3f}",
        )
        for r in rows
    ]
    title = f"{documents} documents, {size / 1e6:.0f} MB; pairs of {THRESHOLD} and above"
    print_table(title, head, table)
    rows = [(verify, f"{value:.3f}") for verify, value in expected(planted).items()]
    print_table("recall that theory leads to expect", ("pairs that pass", "recall"), rows)
    head = ("similarity", "pairs", "merged", "theory", "deviations")
    keys = ("similarity", "pairs", "measured", "theory", "deviations")
    print_table("chance of a merge", head, [[f"{c[k]:.3g}" for k in keys] for c in curve])


def plant(folder: Path, pairs: int, seed: int) -> list[float]:
    """Write pairs `ia` and `ib` of documents in random order, and return their similarities."""
    rng = np.random.default_rng(seed)
    made = [pair(SIMILARITIES[i % len(SIMILARITIES)], rng, grams=GRAMS) for i in range(pairs)]
    rows = [
        {"id": f"{i}{side}", "text": text}
        for i, p in enumerate(made)
        for side, text in (("a", p.a), ("b", p.b))
    ]
    folder.mkdir()
    for part, places in enumerate(np.array_split(rng.permutation(len(rows)), FILES)):
        lines = "".join(json.dumps(rows[k]) + "\n" for k in places)
        (folder / f"{part}.jsonl").write_text(lines)
    return [p.similarity for p in made]


def timed(name: str, corpus: Path, folder: Path, planted: list[float]) -> dict[str, Any]:
    """Seconds of a whole process, and which pairs it merged."""
    folder.mkdir()
    command = [sys.executable, "-m", "cookbook_lib.benchmarks.dedup_tools", name]
    started = perf_counter()
    done = subprocess.run([*command, corpus, folder], capture_output=True, text=True)
    seconds = perf_counter() - started
    if done.returncode:
        raise ValueError(f"{name} failed: {done.stderr.strip().splitlines()[-1]}")
    kept = set(json.loads((folder / "kept.json").read_text()))
    merged = [{f"{i}a", f"{i}b"} - kept != set() for i in range(len(planted))]
    recall = [m for m, s in zip(merged, planted, strict=True) if s >= THRESHOLD]
    right = [s >= THRESHOLD for m, s in zip(merged, planted, strict=True) if m]
    return {
        "seconds": seconds,
        "merged": merged,
        "recall": sum(recall) / max(1, len(recall)),
        "precision": sum(right) / max(1, len(right)),
    }


def summary(name: str, runs: list[dict[str, Any]], size: int) -> dict[str, Any]:
    seconds = median(run["seconds"] for run in runs)
    return {
        "tool": name,
        "version": version(TOOLS[name][1] or "cookbook-lib"),
        "seconds": seconds,
        "all_seconds": [run["seconds"] for run in runs],
        "bytes_per_second": size / seconds,
        "recall": runs[0]["recall"],
        "precision": runs[0]["precision"],
    }


def installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
