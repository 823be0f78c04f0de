"""Other ways to count the tokens of files, to be timed as whole processes beside `cookbook tokens`.

Each is called with the folder's path, the ending of its files, the tokenizer, and the number of
processes; it prints the number of tokens.
"""

from pathlib import Path


def files(folder: str, ending: str) -> list[str]:
    return sorted(map(str, Path(folder).glob(f"*.{ending}")))


def datasets_map(folder: str, ending: str, tokenizer: str, workers: int) -> None:
    """`datasets.map` with one `encode` a text: the usual script."""
    from datasets import disable_progress_bars, load_dataset
    from tokenizers import Tokenizer

    disable_progress_bars()
    encode = Tokenizer.from_file(tokenizer).encode
    kind = {"jsonl": "json"}.get(ending, ending)
    rows = load_dataset(
        kind, data_files=files(folder, ending), split="train", cache_dir=f"{folder}/cache"
    )
    counted = rows.map(
        lambda row: {"n_tokens": len(encode(row["text"]).ids)},
        num_proc=workers,
        load_from_cache_file=False,
    )
    print(sum(counted["n_tokens"]))


def datatrove_counter(folder: str, ending: str, tokenizer: str, workers: int) -> None:
    """datatrove's `TokensCounter` in its local executor."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader, ParquetReader
    from datatrove.pipeline.tokens import TokensCounter
    from loguru import logger

    logger.remove()
    reader = {"jsonl": JsonlReader, "parquet": ParquetReader}[ending]
    stats = LocalPipelineExecutor(
        pipeline=[reader(folder, glob_pattern=f"*.{ending}"), TokensCounter(tokenizer)],
        tasks=workers,
        workers=workers,
        logging_dir=f"{folder}/logs",
        skip_completed=False,
    ).run()
    print(int(stats.stats[1].stats["tokens"].total))


def raw_gigatoken(folder: str, ending: str, tokenizer: str, workers: int) -> None:
    """gigatoken reads each file and encodes it, without a look at what is wrong in it."""
    import gigatoken

    load = gigatoken.Tokenizer(tokenizer)
    total = 0
    for file in files(folder, ending):
        if ending == "parquet":
            source = gigatoken.ParquetFileSource([file], column="text")
        else:
            source = gigatoken.JsonlFileSource([file], field="text")
        total += int(load.encode_files(source).layout.offsets.data[-1])
    print(total)


def raw_tokenizers(folder: str, ending: str, tokenizer: str, workers: int) -> None:
    """`encode_batch_fast` of a thousand texts at a time, in threads of its own."""
    import orjson
    from tokenizers import Tokenizer

    encode = Tokenizer.from_file(tokenizer).encode_batch_fast
    total = 0
    for file in files(folder, ending):
        if ending == "parquet":
            import pyarrow.parquet as pq

            batches = (b["text"].to_pylist() for b in pq.ParquetFile(file).iter_batches(1024))
        else:
            with open(file, "rb") as lines:
                texts = [orjson.loads(line)["text"] for line in lines]
            batches = (texts[i : i + 1024] for i in range(0, len(texts), 1024))
        total += sum(len(e) for batch in batches for e in encode(batch, add_special_tokens=False))
    print(total)


def daft_gigatoken(folder: str, ending: str, tokenizer: str, workers: int) -> None:
    """gigatoken in a batch function on Daft's native runner."""
    import daft
    import numpy as np

    @daft.cls
    class Counter:
        def __init__(self):
            import gigatoken

            self.tokenizer = gigatoken.Tokenizer(tokenizer)

        @daft.method.batch(return_dtype=daft.DataType.int64())
        def lengths(self, text: daft.Series) -> daft.Series:
            rows = self.tokenizer.encode_batch(text.to_pylist(), parallel=False)
            return daft.Series.from_numpy(np.diff(np.asarray(rows.layout.offsets.data)))

    read = {"jsonl": daft.read_json, "parquet": daft.read_parquet}[ending]
    frame = read(files(folder, ending)).select("text")
    counted = frame.select(Counter().lengths(frame["text"]).alias("n"))
    print(counted.sum("n").to_pydict()["n"][0])
