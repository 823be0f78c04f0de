"""What a run has finished, on disk: a run that was killed goes on from there.

A folder holds `run.json` (what was asked for), `done.jsonl` (a line for each finished piece),
`shards/`, and at the end `counts.json`. One run at a time may hold it.
"""

import json
import os
from pathlib import Path
from typing import Any

from cookbook_lib import results


class Ledger:
    """The results of pieces by their number, in memory or also in a folder."""

    def __init__(self, folder: Path | None = None, wanted: dict[str, Any] | None = None):
        """`wanted` is all that the results depend on.

        `ValueError` if another run holds the folder, or if it holds results of something else.
        """
        self.folder, self.done = folder, {}
        if folder is None:
            return
        try:
            (folder / "shards").mkdir(parents=True, exist_ok=True)
            self.lock = lock(folder / "lock")
            self.same_as(folder / "run.json", wanted)
            self.done = {row["piece"]: row for row in results.ready(folder / "done.jsonl")}
            self.sweep()
        except OSError as error:
            raise ValueError(f"{folder}: cannot be written: {error.strerror}") from None

    @property
    def shards(self) -> str | None:
        return self.folder and str(self.folder.resolve() / "shards")

    def same_as(self, path: Path, wanted: dict[str, Any] | None) -> None:
        text = json.dumps(wanted, indent=1)
        if path.exists():
            there = path.read_text()
            if there != text:
                changed = differing(there, json.loads(text))
                raise ValueError(
                    f"{self.folder} holds a run with other {changed}: choose a new folder for --out"
                )
            return
        write(path, text)

    def add(self, index: int, result: dict[str, Any]) -> None:
        """Keep one result and its shard; from here on they are done."""
        result = result | {"piece": index}
        if self.folder:
            if (made := result.get("shard")) is not None:
                name = f"{index:06d}"
                for ending in (".bin", ".idx"):
                    os.replace(f"{made}{ending}", self.folder / f"shards/{name}{ending}")
                result["shard"] = f"shards/{name}"
            results.append(self.folder / "done.jsonl", result)
        self.done[index] = result

    def finish(self, counts: dict[str, Any]) -> None:
        """Write the sums beside the shards; they say that the run is complete."""
        if self.folder:
            write(self.folder / "counts.json", json.dumps(counts, indent=2) + "\n")

    def sweep(self) -> None:
        """Remove shards that were begun and will not be finished."""
        for left in (self.folder / "shards").glob(".*"):
            left.unlink(missing_ok=True)

    def close(self) -> None:
        if self.folder:
            self.sweep()
            os.close(self.lock)


def differing(there: str, wanted: dict[str, Any]) -> str:
    try:
        was = json.loads(there)
        return " and ".join(k for k in wanted if was.get(k) != wanted[k]) or "contents"
    except (ValueError, AttributeError):
        return "contents"


def lock(path: Path) -> int:
    """Hold a file until the process ends, however it ends."""
    import fcntl

    held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise ValueError(f"{path.parent} is in use by another run: wait for it to end") from None
    return held


def write(path: Path, text: str) -> None:
    """A file that is whole or not there."""
    made = path.with_name(f".{path.name}.{os.getpid()}")
    with open(made, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(made, path)
