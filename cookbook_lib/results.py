"""Results as JSON lines: appended one by one, so that what was measured is never lost.

Standard library only. The repository's own results lie in `docs/data`, and recipes read them there.
"""

import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs/data"


def ready(path: Path) -> list[dict[str, Any]]:
    """Make sure that rows can be appended, before anything is measured; the rows it holds.

    A last line without an end, from a run that was killed while it wrote, is cut off. `ValueError`
    for a file that cannot be written or that holds something else, which stays as it is.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            whole, end, rest = file.read().rpartition(b"\n")
            rows = parsed(path, whole.decode(errors="replace"))
            if rest and not rest.startswith(b"{"):
                raise ValueError(f"{path}: expected a JSON object on each line")
            file.truncate(len(whole + end))
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from None
    return rows


def parsed(path: Path, text: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            rows.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            raise ValueError(f"{path}:{number}: expected a JSON object on each line") from None
    return rows


def read(path: Path) -> list[dict[str, Any]]:
    """All rows of a file. `ValueError` names the line that is not a JSON object."""
    return parsed(path, path.read_text(encoding="utf-8"))


def append(path: Path, row: dict[str, Any]) -> None:
    """Add one row."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def agrees(row: Mapping[str, Any], case: Mapping[str, Any]) -> bool:
    """Whether a row is one of this case: it holds all that the case says."""
    return all(key in row and row[key] == value for key, value in case.items())


def committed(name: str) -> list[dict[str, Any]]:
    """The rows of `docs/data/NAME.jsonl`."""
    return read(FOLDER / f"{name}.jsonl")


def origin(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Where and when a row was made: the system, versions of what is installed, commit, date."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "system": platform.platform(terse=True),
        "versions": versions,
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def commit() -> str | None:
    """The checkout's commit, "-dirty" if it was changed since; None where there is no checkout.

    Rows that were added to docs/data are no change: what is measured is not in them.
    """
    changed = ("status", "--porcelain", "--untracked-files=no", ":/", ":(exclude,top)docs/data")
    try:
        found, dirty = (git(*ask) for ask in (("rev-parse", "--short=12", "HEAD"), changed))
    except (OSError, subprocess.SubprocessError):
        return None
    return found + "-dirty" * bool(dirty)


def git(*ask: str) -> str:
    """What git answers about the checkout that holds this file."""
    here, most = Path(__file__).parent, 10  # seconds
    run = ["git", *ask]
    done = subprocess.run(run, cwd=here, capture_output=True, text=True, timeout=most, check=True)
    return done.stdout.strip()
