"""`cookbook data`: filter a corpus and take its duplicates out."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from cookbook_lib.commands.output import nbytes, print_json, print_table


def data(
    paths: Annotated[list[str], tyro.conf.Positional, tyro.conf.arg(metavar="PIPELINE.toml|PATH…")],
    out: Path,
    preset: str | None = None,
    format: Literal["parquet", "jsonl"] | None = None,
    tokenizer: str | None = None,
    workers: int = 2,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    json: bool = False,
) -> None:
    """Filter documents and remove duplicates, and say what went and why.

    A run that was stopped goes on where it was. Exit code 3 if something could not be read.

    Args:
        paths: one pipeline as TOML; or files, folders, globs or URLs, each a source, the best first
        out: folder for kept/, removed/ and report.json
        preset: the steps for paths: zyda (if nothing is said), zyda-2, c4, gopher, fineweb
        format: of the documents that are kept, parquet if nothing is said
        tokenizer: a tokenizer.json or tiktoken:NAME, to count tokens too
        workers: processes
        engine: run them here, or as tasks of a Ray cluster that sees the same files
        address: of the cluster; without it, one is started here
        json: print the report as one JSON document instead of tables
    """
    from cookbook_lib.data.pipeline import load
    from cookbook_lib.data.runs import run

    if workers < 1:
        raise ValueError(f"workers is {workers}, expected at least 1")
    if len(paths) == 1 and paths[0].endswith(".toml"):
        for name, value in {"preset": preset, "format": format, "tokenizer": tokenizer}.items():
            if value is not None:
                raise ValueError(f"--{name} is given, and so is {paths[0]}: write it there")
        pipeline = load(Path(paths[0]))
    else:
        pipeline = of_paths(paths, preset or "zyda", format or "parquet", tokenizer)
    with progress(quiet=json) as tell:
        report = run(pipeline, out, workers, tell, engine, address)
    if json:
        print_json(report)
    else:
        show(report, out)
    if report["damaged"]:
        print(
            f"cookbook: {len(report['damaged'])} places could not be read, the first "
            f"{place(report['damaged'][0])}; all are in {out / 'report.json'}",
            file=sys.stderr,
        )
        sys.exit(3)


def of_paths(paths: list[str], preset: str, format: str, tokenizer: str | None):
    """A pipeline of a preset's steps; each path is a source of its own name."""
    from cookbook_lib.data.pipeline import Pipeline
    from cookbook_lib.data.steps import Source, steps_of

    return Pipeline(
        sources=tuple(Source(name=path, paths=(path,)) for path in dict.fromkeys(paths)),
        steps=steps_of(preset),
        format=format,
        tokenizer=tokenizer,
    )


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error, if somebody sees it."""
    if quiet or not sys.stderr.isatty():
        yield lambda name, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    tasks: dict[str, Any] = {}
    with Progress(console=Console(stderr=True)) as bar:

        def tell(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, total=total)

        yield tell


def show(report: dict[str, Any], out: Path) -> None:
    """Two tables: documents through the steps, and what each reason dropped."""
    units = list(next(iter(report["sources"].values())))
    unit = units[-1]  # tokens if they were counted, characters otherwise
    stages = [("read", report["sources"]), *((s["step"], s["after"]) for s in report["steps"])]
    rows = [
        (
            f"{source}: {stage}",
            at[source]["documents"],
            at[source][unit],
            share(at[source][unit], report["sources"][source][unit]),
        )
        for source in report["sources"]
        for stage, at in stages
    ]
    print_table("what is left", ("after", "documents", unit, "of what was read"), rows)
    counted = ("documents", unit)
    dropped = [
        (step["step"], reason, *(sum(s.get(u, 0) for s in by.values()) for u in counted))
        for step in report["steps"]
        for reason, by in step["dropped"].items()
    ]
    if dropped:
        print_table("what was dropped", ("step", "reason", "documents", unit), dropped)
    took = [(s["step"], f"{s['seconds']:.1f} s", nbytes(s["peak_bytes"])) for s in report["steps"]]
    print_table("what it took", ("step", "processor time", "memory of one process"), took)
    print(f"{report['seconds']:.1f} s, at most {nbytes(report['peak_bytes'])}; documents in {out}")


def share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def place(damage: dict[str, Any]) -> str:
    return f"{damage['path']}, {damage['unit']} {damage['number']}: {damage['reason']}"
