"""`cookbook tokens`: count the tokens of a corpus, and pack them for training."""

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from cookbook_lib.commands.output import count as short
from cookbook_lib.commands.output import print_json, print_table

SHOWN = 20  # lines about damage; all are in --json and in the folder of --out


def tokens(
    paths: Annotated[list, tyro.conf.Positional, tyro.conf.arg(metavar="PATH...")],  # of strings:
    # for list[str] tyro imports typeguard, which takes as long as 20 MB of tokens
    tokenizer: str,
    field: str = "text",
    special_tokens: bool = False,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    out: Path | None = None,
    end: str | None = None,
    shard_mb: int = 32,
    exact: bool = False,
    strict: bool = False,
    json: bool = False,
) -> None:
    """Count the tokens of all documents, exactly as Hugging Face `tokenizers` does.

    Exit code 3 if something could not be read: it is listed with file and place, and all the rest
    is counted.

    Args:
        paths: files, folders, globs, URLs (s3://, gs://, hf://), or - for lines of JSON: .jsonl,
            .json, .txt, .parquet, .arrow, compressed with gz, zst, bz2, xz
        tokenizer: a tokenizer.json, a folder that holds one, or tiktoken:NAME
        field: of a record, or column, that holds the text
        special_tokens: add to each document what the tokenizer's post-processor adds
        workers: cores to count on; all of them if not given
        engine: processes of this machine, or tasks of a Ray cluster
        address: of a Ray cluster that runs; without it, one is started for this run
        out: a folder for packed shards (.bin and .idx of Megatron); a run that was stopped goes on
        end: a token to put behind each document in the shards; it is not counted
        shard_mb: text of one shard, in MB
        exact: leave the fast tokenizer alone, also where it gives the same ids
        strict: stop at the first damage, with exit code 2
        json: print one JSON document instead of a table
    """
    from cookbook_lib.data.tokens import count

    for name, value in {"workers": workers, "shard-mb": shard_mb}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    if address and engine != "ray":
        raise ValueError(f"address is {address}, which needs --engine ray")
    if end is not None and out is None:
        raise ValueError(f"end is {end!r}, which needs --out: it stands in the shards alone")
    with progress(not json and sys.stderr.isatty()) as watch:
        report = count(
            paths,
            tokenizer,
            field=field,
            special_tokens=special_tokens,
            workers=workers,
            engine=engine,
            address=address,
            out=out,
            end=end,
            shard_bytes=shard_mb << 20,
            exact=exact,
            strict=strict,
            watch=watch,
        )
    if json:
        print_json(report.as_dict())
    else:
        show(report)
    if report.slow and not exact:
        say(f"counted with the exact tokenizer, not the fast one: {report.slow}")
    if report.skipped:
        say(f"{len(report.skipped)} files of other kinds left out, as {report.skipped[0]}")
    if not report.whole:
        for damage in report.damage[:SHOWN]:
            say(str(damage))
        if (more := len(report.damage) - SHOWN) > 0:
            say(f"and {more} more: see --json")
        said = f"{report.bad_records} bad records, {report.damaged_files} damaged files"
        say(f"{said}; all else is counted")
        sys.stdout.flush()
        sys.exit(3)


def say(line: str) -> None:
    print("cookbook: " + line, file=sys.stderr)


def show(report: Any) -> None:
    head = ("source", "documents", "tokens", "characters", "bytes")
    rows = [[name, *(row[k] for k in head[1:])] for name, row in report.by_source.items()]
    if len(rows) > 1:
        rows.append(["all", *(getattr(report, k) for k in head[1:])])
    rate = short(report.tokens_per_second)
    print_table(f"{report.files} files, {report.seconds:.1f} s, {rate}tokens/s", head, rows)


def progress(shown: bool) -> AbstractContextManager:
    """A bar on standard error: the part that is done, tokens a second, and the time left."""
    if not shown:
        return nullcontext(lambda pieces, done: lambda nbytes, tokens: None)
    return Bar()


class Bar:
    def __enter__(self):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), "{task.percentage:.0f}%", TextColumn("{task.fields[rate]}"))
        console = Console(stderr=True)
        self.bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
        self.bar.start()
        return self.watch

    def watch(self, pieces: list, done: float):
        """How far it is, by bytes of text; their sum is an estimate where files are compressed."""
        total = sum(piece.text for piece in pieces)
        task = self.bar.add_task("", total=total or None, completed=done, rate="")
        seen = 0

        def told(nbytes: int, tokens: int) -> None:
            nonlocal seen
            seen += tokens
            rate = f"{short(seen / (self.bar.tasks[task].elapsed or 1e-9))}tokens/s"
            self.bar.update(task, advance=nbytes, rate=rate)

        return told

    def __exit__(self, *error):
        self.bar.stop()
