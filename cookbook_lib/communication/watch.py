"""The parent's side of a run: it reads the ranks' news, and says which rank is to blame."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cookbook_lib.communication.member import RankError

START = 120.0  # seconds outside of operations: torch and JAX are imported on a busy machine
FRAME = ("@ ", "*** ", "PC: ")  # of a C++ stack's lines, below the error
GRACE = 0.5  # seconds in which other ranks' errors may show that they are only the echo of one


@dataclass
class Rank:
    """What the parent knows of one rank."""

    number: int
    process: subprocess.Popen
    news: Path
    log: Path
    offset: int = 0
    begun: int = 0  # operations
    operation: str = "starting"
    limit: float = START
    heard: float = field(default_factory=time.monotonic)
    ended: float | None = None
    result: Any = None
    finished: bool = False
    error: dict[str, Any] | None = None

    def state(self) -> str:
        """The kernel's letter: R, S, T for stopped, Z for a zombie; empty where it is not told."""
        with suppress(OSError):
            return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return ""


def watch(ranks: list[Rank], on_row: Callable[[dict[str, Any]], None] | None) -> list[Any]:
    """Wait until all are done; raise what went wrong first."""
    failed_at, last = None, time.monotonic()
    while True:
        for rank in ranks:
            if rank.ended is None and rank.process.poll() is not None:
                rank.ended = time.monotonic()
            for row in read(rank):
                if on_row:
                    on_row(row)
        now = time.monotonic()
        if (
            now - last > 1
        ):  # this process was paused, and perhaps all others: that is nobody's fault
            for rank in ranks:
                rank.heard += now - last
        last = now
        if any(r.error or (r.ended and not r.finished) for r in ranks):
            failed_at = failed_at or now
            if now - failed_at > GRACE:
                raise failure(ranks)
        elif all(r.finished for r in ranks):
            return [r.result for r in ranks]
        elif late := [r for r in ranks if not r.finished and now - r.heard > r.limit]:
            raise standstill(ranks, late)
        time.sleep(0.01)


def read(rank: Rank) -> list[dict[str, Any]]:
    """Take in the news of a rank; the rows among it."""
    rows = []
    try:
        with rank.news.open("rb") as file:
            file.seek(rank.offset)
            text = file.read()
    except FileNotFoundError:
        return rows
    whole = text[: text.rfind(b"\n") + 1]
    rank.offset += len(whole)
    for line in whole.splitlines():
        news = json.loads(line)
        rank.heard = time.monotonic()
        if "doing" in news:
            rank.operation, rank.limit = news["doing"], news["limit"]
            rank.begun += 1
        if "done" in news:
            rank.operation, rank.limit = "between operations", START
        if "row" in news:
            rows.append(news["row"])
        if "result" in news:
            rank.result, rank.finished = news["result"], True
        if "error" in news:
            rank.error = news
    return rows


def failure(ranks: list[Rank]) -> Exception:
    """The cause among failures: a killed rank before an exception before an abort, then by time."""

    def order(rank: Rank) -> tuple[int, float]:
        if rank.error:
            return 1, rank.error["failed_at"]
        return (2 if rank.process.returncode == -signal.SIGABRT else 0), rank.ended or 0.0

    rank = min((r for r in ranks if r.error or (r.ended and not r.finished)), key=order)
    if rank.error:
        if rank.error["wrong"]:
            return ValueError(rank.error["error"].partition(": ")[2])
        return told(rank, ranks, rank.error["operation"], rank.error["error"])
    code = rank.process.returncode
    if code in (
        -signal.SIGKILL,
        -signal.SIGTERM,
    ):  # from outside: its last words have no part in it
        return told(rank, ranks, rank.operation, f"died of {signal.Signals(-code).name}")
    why = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    lines = map(str.strip, reversed(rank.log.read_text(errors="replace").split("\n")))
    last = next((x for x in lines if x and not x.startswith(FRAME)), "no word of why")
    return told(rank, ranks, rank.operation, f"{why}: {last}")


def standstill(ranks: list[Rank], late: list[Rank]) -> Exception:
    """Who is to blame: a stopped process, else one that has not begun what others wait in."""
    unfinished = [r for r in ranks if not r.finished]
    waits = max(late, key=lambda r: r.begun)
    operation, limit = waits.operation, f"nothing for {waits.limit:g} s"
    if stopped := [r for r in unfinished if r.state() in ("T", "t")]:
        return told(stopped[0], ranks, operation, f"stopped; {limit}")
    if behind := [r for r in unfinished if r.begun < waits.begun]:
        why = f"not begun, while rank {waits.number} waits in it; {limit}"
        return told(behind[0], ranks, operation, why)
    others = [str(r.number) for r in late if r is not waits]
    why = f"not done, nor by ranks {', '.join(others)}" if others else "not done"
    return told(waits, ranks, operation, f"{why}; {limit}")


def told(rank: Rank, ranks: list[Rank], operation: str, why: str) -> RankError:
    line = f"rank {rank.number} of {len(ranks)}, {operation}: {why}"
    return RankError(line, rank.number, operation)
