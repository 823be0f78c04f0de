"""Tokens of a corpus: `count(paths, tokenizer)`, and the report of what could not be read."""

import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from cookbook_lib.data import engines
from cookbook_lib.data.files import File, find, on_disk
from cookbook_lib.data.job import COUNTS, Job, Told, at_home
from cookbook_lib.data.ledger import Ledger
from cookbook_lib.data.reading import PIECE, Damage, Piece, pieces


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was counted: the sums, the same by source, and all that could not be read."""

    documents: int
    tokens: int
    characters: int
    bytes: int  # of the texts in UTF-8
    bad_records: int
    damaged_files: int
    files: int
    seconds: float
    by_source: dict[str, dict[str, int]]
    damage: list[Damage]
    skipped: list[str]  # files in folders that are of another kind
    slow: str  # why the fast tokenizer was not used, or not everywhere

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def whole(self) -> bool:
        """True if everything could be read."""
        return not (self.bad_records or self.damaged_files)

    def as_dict(self) -> dict[str, Any]:
        shown = asdict(self) | {"tokens_per_second": self.tokens_per_second}
        return {k: shown[k] for k in (*ORDER, *(k for k in shown if k not in ORDER))}


ORDER = (*COUNTS, "damaged_files", "files", "seconds", "tokens_per_second", "by_source")
Watch = Callable[[list[Piece], float], Told]  # from the pieces, and the bytes of text done before


def count(
    paths: Iterable[str],
    tokenizer: str,
    field: str = "text",
    special_tokens: bool = False,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    out: Path | None = None,
    end: str | None = None,
    shard_bytes: int = PIECE,
    exact: bool = False,
    strict: bool = False,
    watch: Watch = lambda pieces, done: lambda nbytes, tokens: None,
) -> Report:
    """Count the tokens of all documents of files, folders, globs or URLs.

    With `out`, token ids are packed there, results are kept as they come, and a run that was
    stopped goes on. `ValueError` for what the caller got wrong; of a `strict` run for the first
    damage.
    """
    began = perf_counter()
    if isinstance(paths, str):
        raise ValueError(f"paths is {paths!r}, expected a list of paths")
    if not (paths := list(paths)):
        raise ValueError("there is no path, expected files, folders, globs, URLs, or -")
    tokenizer = at_home(tokenizer)
    out = on_disk(out) if out else None
    files, skipped = find(paths)
    todo = pieces(files, shard_bytes)
    asked = {
        "tokenizer": fingerprint(tokenizer),
        "field": field,
        "special_tokens": special_tokens,
        "end": end,
        "shard_bytes": shard_bytes,
        "files": [asdict(f) for f in files],
    }
    kept = Ledger(out, asked)
    job = Job(
        tokenizer=tokenizer,
        field=field,
        special_tokens=special_tokens,
        exact=exact,
        strict=strict,
        shards=kept.shards,
        end=end,
    )
    left = [(i, piece) for i, piece in enumerate(todo) if i not in kept.done]
    told = watch(todo, sum(p.text for i, p in enumerate(todo) if i in kept.done))
    try:
        if engine == "ray":
            results = engines.ray(job, left, told, address)
        else:
            results = engines.local(job, left, told, workers or cores())
        with closing(results):  # whatever happens, the workers end before the folder is free
            for index, result in results if left else ():
                kept.add(index, result)
        report = summary(files, todo, kept.done, skipped, began)
        kept.finish({k: v for k, v in report.as_dict().items() if "second" not in k})
    except OSError as error:
        raise ValueError(f"{error.filename or out}: {error.strerror or error}") from None
    finally:
        kept.close()
    return report


def cores() -> int:
    """Those that this process may use; all of them where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fingerprint(tokenizer: str) -> str:
    """What tells one tokenizer from another without loading it."""
    if tokenizer.startswith("tiktoken:"):
        return tokenizer
    path = Path(tokenizer)
    try:
        return sha256((path / "tokenizer.json" if path.is_dir() else path).read_bytes()).hexdigest()
    except OSError:
        said = f"tokenizer is {tokenizer}, expected a tokenizer.json, or tiktoken:NAME"
        raise ValueError(said) from None


def summary(
    files: list[File], todo: list[Piece], done: dict[int, dict], skipped: list[str], began: float
) -> Report:
    """The sums over all pieces, in their order."""
    sums = dict.fromkeys(COUNTS, 0)
    by_source: dict[str, dict[str, int]] = {}
    damage = []
    for index, piece in enumerate(todo):
        mine = by_source.setdefault(piece.file.source, dict.fromkeys(COUNTS, 0))
        for name in COUNTS:
            sums[name] += done[index][name]
            mine[name] += done[index][name]
        damage += [Damage(**row) for row in done[index]["damage"]]
    return Report(
        **sums,
        damaged_files=len({d.path for d in damage if d.whole}),
        files=len(files),
        seconds=perf_counter() - began,
        by_source=by_source,
        damage=damage,
        skipped=skipped,
        slow=next((row["slow"] for _, row in sorted(done.items()) if row.get("slow")), ""),
    )
