"""Counting one piece of a corpus: what one worker does, wherever it runs.

The result is plain data, and depends on the piece and the job alone, so that a piece can be
counted again, elsewhere, with the same outcome.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import Full, Queue
from threading import Event, Lock, Thread
from typing import Any

from cookbook_lib.data.encoding import Tokenizer, differs, load
from cookbook_lib.data.job import COUNTS, Job, Stop, Told
from cookbook_lib.data.proof import Differs, Proof, sample
from cookbook_lib.data.reading import Damage, Piece, Text, texts

BATCH = 1 << 23  # bytes of text encoded at once; gigatoken leaves 1 MiB to a single thread
DOCUMENTS = 1 << 15  # documents encoded at once
LOADING = Lock()  # other pieces are counted in the same process
LISTED = 10_000  # bad records of one piece that are listed; all are counted


def count_piece(job: Job, index: int, piece: Piece, told: Told = lambda b, t: None) -> dict:
    """Counts and damage of one piece, and its shard under a name of its own.

    `shard` in the result is the shard's path without its ending, for the caller to keep.
    `Stop` if the job is strict, `ValueError` for what cannot be written.
    """
    with LOADING:
        tokenizer = tokenizer_of(job)
        why = "as asked" if job.exact else tokenizer.refused
    if not why:
        try:
            return counted(job, index, piece, tokenizer, tokenizer.proof, told)
        except Differs as error:
            why, told = differs(error), silent  # it was told already
    return counted(job, index, piece, tokenizer, None, told) | {"slow": why}


def tokenizer_of(job: Job) -> Tokenizer:
    """Loaded once in a process, and for a job that asks for the same not again."""
    return load(job.tokenizer, job.special_tokens, job.parallel, not job.exact)


def silent(nbytes: int, tokens: int) -> None:
    """Tell nobody."""


def counted(
    job: Job, index: int, piece: Piece, tokenizer: Tokenizer, proof: Proof | None, told: Told
) -> dict[str, Any]:
    """Exactly if there is no proof; `Differs` if it fails."""
    encode = proof.fast if proof else tokenizer.exact
    proofs = []
    result: dict[str, Any] = dict.fromkeys(COUNTS, 0)
    damage: list[Damage] = []
    shard = new_shard(job, index, tokenizer) if job.shards else None
    try:
        for turn, batch in enumerate(ahead(batches(job, piece, damage, result))):
            ids, lengths = encode([t.text for t in batch], ids=shard is not None)
            if proof:
                proofs.append(proof.of(sample([t.text for t in batch], turn)))
                while proofs and proofs[0].done():
                    proofs.pop(0).result()
            nbytes = sum(t.nbytes for t in batch)
            result["documents"] += len(batch)
            result["tokens"] += (tokens := int(lengths.sum()))
            result["characters"] += sum(len(t.text) for t in batch)
            result["bytes"] += nbytes
            if shard:
                shard.append(ids, lengths)
            told(nbytes, tokens)
        if proof:
            proof.right()
            for one in proofs:
                one.result()
        if shard and not result["documents"]:
            shard.discard()  # no reader can map an empty file
            shard = None
        elif shard:
            shard.close()
    except BaseException as error:
        if shard:
            shard.discard()  # on a full disk this makes room for what is done
        if isinstance(error, OSError):
            said = f"{error.filename or job.shards}: {error.strerror or error}"
            raise ValueError(said) from None
        raise
    return result | {
        "damaged": any(d.whole for d in damage),
        "damage": [asdict(d) for d in damage],
        "shard": str(shard.path) if shard else None,
    }


def ahead(found: Iterator[list[Text]]) -> Iterator[list[Text]]:
    """The same, read by a thread that is at most two batches ahead."""
    queue: Queue = Queue(2)
    over = Event()

    def put(thing: Any) -> None:
        while not over.is_set():
            with suppress(Full):
                return queue.put(thing, timeout=0.1)

    def read() -> None:
        try:
            for batch in found:
                put(batch)
                if over.is_set():
                    return
            put(None)
        except BaseException as error:  # raised where it is waited for
            put(error)

    thread = Thread(target=read, daemon=True)
    thread.start()
    try:
        while (thing := queue.get()) is not None:
            if isinstance(thing, BaseException):
                raise thing
            yield thing
    finally:
        over.set()
        thread.join()


def batches(job: Job, piece: Piece, damage: list[Damage], result: dict) -> Iterator[list[Text]]:
    """The texts of a piece, some at a time; damage is put aside."""
    batch, size = [], 0
    for found in texts(piece, job.field, []):
        if isinstance(found, Damage):
            if job.strict:
                raise Stop(str(found))
            result["bad_records"] += not found.whole
            if found.whole or len(damage) < LISTED:
                damage.append(found)
            continue
        batch.append(found)
        size += found.nbytes
        if size >= BATCH or len(batch) >= DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def new_shard(job: Job, index: int, tokenizer: Tokenizer):
    from cookbook_lib.data.shards import Shard, dtype_for

    end = None if job.end is None else tokenizer.id_of(job.end)
    if job.end is not None and end is None:
        raise ValueError(f"end is {job.end!r}, expected a token of {tokenizer.name}")
    path = Path(job.shards) / f".{index:06d}.{os.uname().nodename}.{os.getpid()}"
    return Shard(path, dtype_for(tokenizer.vocab_size()), end)
