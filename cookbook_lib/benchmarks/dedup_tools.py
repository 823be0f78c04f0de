"""The same near-duplicate search by each tool: 13-word n-grams, 128 permutations, 32 bands of 4.

Each function reads a folder of JSON lines with `id` and `text`, works in `folder` with two
processes, and returns the ids that it would keep.
"""

import json
import subprocess
import sys
from pathlib import Path

NGRAM, PERMUTATIONS, BANDS, ROWS = 13, 128, 32, 4  # Zyda's, arXiv:2406.01981
THRESHOLD, PROCESSES = 0.4, 2
MARGIN = 2.0  # deviations of a signature below the threshold


def cookbook(corpus: Path, folder: Path, verify: str = "none", margin: float = 0.0) -> set[str]:
    from cookbook_lib.data.pipeline import Pipeline
    from cookbook_lib.data.runs import run
    from cookbook_lib.data.steps import MinHash, Source

    step = MinHash(
        threshold=THRESHOLD,
        ngram=NGRAM,
        permutations=PERMUTATIONS,
        bands=BANDS,
        rows=ROWS,
        verify=verify,
        margin=margin,
    )
    source = Source(name="planted", paths=(str(corpus),))
    run(Pipeline(sources=(source,), steps=(step,), format="jsonl"), folder / "out", PROCESSES)
    lines = (line for p in (folder / "out/kept").iterdir() for line in p.open())
    return {json.loads(line)["id"] for line in lines}


def cookbook_signature(corpus: Path, folder: Path) -> set[str]:
    return cookbook(corpus, folder, "signature")


def cookbook_margin(corpus: Path, folder: Path) -> set[str]:
    return cookbook(corpus, folder, "signature", MARGIN)


def cookbook_exact(corpus: Path, folder: Path) -> set[str]:
    return cookbook(corpus, folder, "exact")


def datasketch(corpus: Path, folder: Path) -> set[str]:
    """Zyda's way: signatures by datasketch, then one dict a band, without verification."""
    from multiprocessing import Pool

    from datasketch import MinHashLSH

    rows = [json.loads(line) for path in corpus.iterdir() for line in path.open()]
    index = MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, ROWS))
    kept = set()
    with Pool(PROCESSES) as pool:
        signed = pool.imap(datasketch_signature, (r["text"] for r in rows), chunksize=256)
        for row, one in zip(rows, signed, strict=True):
            if not index.query(one):
                kept.add(row["id"])
            index.insert(row["id"], one)
    return kept


def datasketch_signature(text: str):
    from string import punctuation

    from datasketch import MinHash

    words = text.lower().translate(str.maketrans("", "", punctuation)).split()
    grams = [" ".join(words[i : i + NGRAM]).encode() for i in range(len(words) - NGRAM + 1)]
    one = MinHash(num_perm=PERMUTATIONS)
    one.update_batch(grams)
    return one


def daft(corpus: Path, folder: Path) -> set[str]:
    """Signatures by Daft's native runner, then bands and components with arrays; it writes none
    of the documents.
    """
    import daft
    import numpy as np
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    clean = daft.col("text").normalize(remove_punct=True, lowercase=True, white_space=True)
    sign = clean.minhash(num_hashes=PERMUTATIONS, ngram_size=NGRAM, seed=1, hash_function="xxhash")
    found = daft.read_json(f"{corpus}/*.jsonl").select("id", sign.alias("signature")).to_arrow()
    signed = found["signature"].combine_chunks().flatten().to_numpy().reshape(-1, PERMUTATIONS)
    n, firsts = len(found), []
    for band in range(BANDS):
        rows = np.ascontiguousarray(signed[:, band * ROWS : (band + 1) * ROWS])
        _, first, bucket = np.unique(
            rows.view(f"V{ROWS * rows.itemsize}").ravel(), return_index=True, return_inverse=True
        )
        firsts.append(first[bucket])
    edges = (np.tile(np.arange(n), BANDS), np.concatenate(firsts))
    _, label = connected_components(csr_array((np.ones(n * BANDS), edges), (n, n)), False)
    ids = np.array(found["id"].to_pylist(), object)
    return set(ids[np.unique(label, return_index=True)[1]])


def datatrove(corpus: Path, folder: Path) -> set[str]:
    """Its four stages, with digits left as they are: its default makes them all 0."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.text import TextNormConfig

    at = {name: str(folder / name) for name in ("signatures", "buckets", "remove", "out")}
    config = MinhashConfig(
        n_grams=NGRAM,
        num_buckets=BANDS,
        hashes_per_bucket=ROWS,
        norm_config=TextNormConfig(norm_numbers=False),
    )
    reader = JsonlReader(str(corpus))
    writer = JsonlWriter(at["out"], compression=None)
    stages = (
        (PROCESSES, [reader, MinhashDedupSignature(at["signatures"], config)]),
        (BANDS, [MinhashDedupBuckets(at["signatures"], at["buckets"], config=config)]),
        (1, [MinhashDedupCluster(at["buckets"], at["remove"], config=config)]),
        (PROCESSES, [reader, MinhashDedupFilter(at["remove"]), writer]),
    )
    for i, (tasks, pipeline) in enumerate(stages):
        logs = str(folder / f"logs{i}")
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=PROCESSES, logging_dir=logs).run()
    lines = (line for p in Path(at["out"]).iterdir() for line in p.open())
    return {json.loads(line)["id"] for line in lines}


def text_dedup(corpus: Path, folder: Path) -> set[str]:
    import datasets

    options = {
        "path": "json",
        "data_files": corpus / "*.jsonl",
        "split": "train",
        "cache_dir": folder / "cache",
        "output": folder / "out",
        "column": "text",
        "batch_size": 1000,
        "ngram": NGRAM,
        "num_perm": PERMUTATIONS,
        "b": BANDS,
        "r": ROWS,
        "num_proc": PROCESSES,
    }
    flags = [str(part) for key, value in options.items() for part in (f"--{key}", value)]
    subprocess.run([sys.executable, "-m", "text_dedup.minhash", *flags], check=True)
    return set(datasets.load_from_disk(str(folder / "out"))["id"])


TOOLS = {
    "cookbook": (cookbook, None),
    "cookbook, by signature": (cookbook_signature, None),
    f"cookbook, by signature less {MARGIN:g} deviations": (cookbook_margin, None),
    "cookbook, exactly": (cookbook_exact, None),
    "datasketch": (datasketch, "datasketch"),
    "Daft and scipy": (daft, "daft"),
    "datatrove": (datatrove, "datatrove"),
    "text-dedup": (text_dedup, "text-dedup"),
}  # name -> function, package that it needs beyond the extra `data`


def main(name: str, corpus: str, folder: str) -> None:
    kept = TOOLS[name][0](Path(corpus), Path(folder))
    Path(folder, "kept.json").write_text(json.dumps(sorted(kept)))


if __name__ == "__main__":  # each tool in a process of its own
    main(*sys.argv[1:])
