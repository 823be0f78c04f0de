"""Checkpoints in a folder: whole or not there, checked before they are used, and only so many.

Each is a folder of `torch.distributed.checkpoint`, so that another number of ranks can read it, and
a manifest that says how far the run was and what each file's contents hash to. It is written under
another name and gets its own by a rename, after all of it is on the disk: a process that is killed
leaves the whole of it or something that is swept away. Several nodes need a folder that they share.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from cookbook_lib.commands.output import nbytes
from cookbook_lib.training.ranks import Ranks

MANIFEST, STEP, HALF, DAMAGED = "manifest.json", "step-", "writing-", "damaged-"


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def canonical(thing: Any) -> str:
    return json.dumps(thing, sort_keys=True)


def flush(path: Path) -> None:
    """Wait until a file's contents, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def saved(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the oldest first; whether they are good is not looked at."""
    return sorted(folder.glob(f"{STEP}*"), key=lambda path: int(path.name.removeprefix(STEP)))


def manifest(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself. `ValueError` says what is wrong with it or its files."""
    try:
        written = json.loads((path / MANIFEST).read_bytes())
        said, own = written["manifest"], written["blake2b"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{MANIFEST} is missing or cannot be read") from None
    if hashlib.blake2b(canonical(said).encode()).hexdigest() != own:
        raise ValueError(f"{MANIFEST} is not what was written")
    for name, want in said["files"].items():
        file = path / name
        if not file.is_file():
            raise ValueError(f"{name} is missing")
        if (size := file.stat().st_size) != want["nbytes"]:
            raise ValueError(f"{name} has {size} bytes, not the {want['nbytes']} that were written")
        if digest(file) != want["blake2b"]:
            raise ValueError(f"{name} is not what was written")
    return said


def save(folder: Path, state: dict[str, Any], progress: dict[str, Any], ranks: Ranks) -> Path:
    """Write a checkpoint at `progress["step"]`: all ranks call it with their parts of `state`.

    `ValueError` in one line if that fails, on all ranks; older checkpoints are as they were.
    """
    path, half = (folder / f"{start}{progress['step']}" for start in (STEP, HALF))

    def begin() -> None:
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()

    def write() -> dict[str, dict[str, Any]]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process alone
            dcp.save(state, storage_writer=dcp.FileSystemWriter(half), no_dist=ranks.size == 1)
        mine = [*half.glob(f"__{ranks.rank}_*"), *(half.glob(".metadata") if ranks.first else ())]
        return {f.name: {"nbytes": f.stat().st_size, "blake2b": digest(f)} for f in mine}

    def finish(files: dict[str, dict[str, Any]]) -> None:
        said = progress | {"files": files}
        own = hashlib.blake2b(canonical(said).encode()).hexdigest()
        with (half / MANIFEST).open("w") as file:
            json.dump({"manifest": said, "blake2b": own}, file, indent=1)
        flush(half / MANIFEST)
        flush(half)
        half.rename(path)
        flush(folder)

    try:
        agreed(ranks, begin if ranks.first else None)
        files = agreed(ranks, write)
        whole = {name: file for part in files for name, file in part.items()}
        agreed(ranks, (lambda: finish(whole)) if ranks.first else None)
    except OSError as error:
        free = nbytes(shutil.disk_usage(folder).free)  # torch does not tell a full disk by its name
        if ranks.first:
            shutil.rmtree(half, ignore_errors=True)
        last = saved(folder)
        kept = f"{last[-1].name} is intact" if last else "there is none before it"
        raise ValueError(
            f"the checkpoint at step {progress['step']} cannot be written to {folder}: "
            f"{error.strerror or error}, {free} were free; {kept}"
        ) from None
    return path


def agreed(ranks: Ranks, do: Callable[[], Any] | None) -> list[Any]:
    """What each rank's `do` gives; where one fails, OSError on all of them."""
    result, failure = None, None
    try:
        result = do() if do else None
    except CheckpointException as error:  # of some rank, told to all
        failure = next(iter(error.failures.values()))[0]
    except (OSError, RuntimeError) as error:  # torch's writers raise RuntimeError at a full disk
        failure = error
    said = ranks.everyone((result, failure and (getattr(failure, "errno", None), reason(failure))))
    for _, failed in said:
        if failed:
            raise OSError(*failed)
    return [result for result, _ in said]


def reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or repr(error)).splitlines()[0]


def newest(folder: Path, ranks: Ranks, say: Callable[[str], None]) -> Path | None:
    """The last good checkpoint. Those after it, which are damaged, are said and set aside."""

    def look() -> str | None:
        for path in reversed(saved(folder)):
            try:
                manifest(path)
            except ValueError as error:
                say(f"{path.name} is damaged, the one before it is used: {error}")
                aside = folder / f"{DAMAGED}{path.name}"
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
            else:
                return path.name
        return None

    [name, *_] = agreed(ranks, look if ranks.first else None)
    return None if name is None else folder / name


def progress(path: Path) -> dict[str, Any]:
    """How far the run was, from a checkpoint that is known to be good."""
    return json.loads((path / MANIFEST).read_bytes())["manifest"]


def load(path: Path, state: dict[str, Any], ranks: Ranks) -> None:
    """Fill `state` in place, whatever ranks wrote it.

    Entries that the checkpoint does not have are taken out of `state`.
    """
    reader = dcp.FileSystemReader(path)
    held = reader.read_metadata().state_dict_metadata
    for name in [name for name in state.get("random", {}) if f"random.{name}" not in held]:
        del state["random"][name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        dcp.load(state, storage_reader=reader, no_dist=ranks.size == 1)


def prune(folder: Path, keep: int) -> None:
    """Remove all but the last `keep`, and what a killed process left half written or removed."""
    for path in saved(folder)[:-keep]:
        path.rename(folder / f"{HALF}{path.name}")  # so that no half of it looks like one
    for path in folder.glob(f"{HALF}*"):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def alone(folder: Path):
    """Hold a folder for one run: `ValueError` if another has it. A run that dies lets it go."""
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise ValueError(f"{folder} cannot be used: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{folder} is in use by another run: wait, or name another") from None
        yield
