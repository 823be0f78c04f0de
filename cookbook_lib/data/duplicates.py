"""The second pass: which of the kept documents go because another one stays.

Reads the keys that the first pass wrote and never the texts, unless pairs are to be verified
exactly or passages cut. Places are numbers of documents in the order of the pieces.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cookbook_lib.data.clusters import dropped, speakers, spread
from cookbook_lib.data.components import equal
from cookbook_lib.data.gauge import Gauge
from cookbook_lib.data.kept import Kept
from cookbook_lib.data.linking import Each, Search, clusters
from cookbook_lib.data.pipeline import Pipeline
from cookbook_lib.data.ranking import ranked
from cookbook_lib.data.stars import stars
from cookbook_lib.data.steps import Exact, FilterStep, MinHash, Substring, Url
from cookbook_lib.data.storage import Arrays
from cookbook_lib.data.substrings import repeated
from cookbook_lib.data.survival import chosen

Cuts = dict[int, list[tuple[int, int]]]  # place -> passages, as (begin, end) of characters


@dataclass(frozen=True, kw_only=True)
class Second:
    """What the second pass works with."""

    kept: Kept
    rank: np.ndarray  # of each document's source, 0 the best
    folder: Path
    each: Each
    workers: int
    gauge: Gauge


def find_duplicates(pipeline: Pipeline, second: Second) -> tuple[np.ndarray, np.ndarray, Cuts]:
    """For each document the number of the step that drops it (-1: none), and the place of the one
    that stays instead; and passages to cut, by place.

    A later step sees what earlier ones left. If it drops a document for whose sake others went,
    these are said to have gone for the one that stays in the end.
    """
    kept, gauge, cuts = second.kept, second.gauge, {}
    by = np.full(len(kept), -1)
    stays = np.arange(len(kept))
    for number, (name, step) in enumerate(zip(pipeline.names, pipeline.steps, strict=True)):
        if isinstance(step, FilterStep):
            continue
        here = np.flatnonzero(by < 0)
        if isinstance(step, Substring):
            with gauge(name):
                cuts = passages(kept, here, step)
            continue
        find = by_minhash if isinstance(step, MinHash) else by_key
        keeper = find(name, step, here, second)
        gone = dropped(keeper, second.rank[here], step.across)
        by[here[gone]], stays[here[gone]] = number, here[keeper[gone]]
    while not np.array_equal(stays, last := stays[stays]):
        stays = last
    return by, stays, cuts


def by_key(name: str, step: Exact | Url, here: np.ndarray, second: Second) -> np.ndarray:
    """The document that stays, for each one `here`, where equal keys are duplicates."""
    kept = second.kept
    files = Arrays(name=name, folder=second.folder, kept=tuple(kept.paths))
    with second.gauge(name):
        valid = kept.keys(name, 16, files.file("keys"), here)
        label = equal(np.fromfile(files.file("keys"), "V16"), valid)
        files.save("here", here)
    keeper = chosen(files, label, second.rank[here], second.each, second.workers, second.gauge)
    files.clear()
    return keeper


def by_minhash(name: str, step: MinHash, here: np.ndarray, second: Second) -> np.ndarray:
    """The document that stays, for each one `here`, where similar texts are duplicates."""
    kept, gauge = second.kept, second.gauge
    search = Search(
        name=name,
        step=step,
        folder=second.folder,
        documents=len(here),
        kept=tuple(kept.paths),
    )
    crew, rank = (second.each, second.workers, gauge), second.rank[here]
    with gauge(name):
        valid = kept.keys(name, 4 * step.permutations, search.file("keys"), here)
        search.save("here", here)
    priority = ranked(search, rank, *crew) if step.clusters == "stars" else None
    with gauge(name):
        speaker, distinct = speakers(search.signed(), valid, priority)
        search.save("distinct", distinct)
    if priority is None:
        label = spread(clusters(search, *crew), speaker, distinct)
        keeper = chosen(search, label, rank, *crew)
    else:
        keeper = stars(search, priority, *crew)[speaker]
    search.clear()
    return keeper


def passages(kept: Kept, here: np.ndarray, step: Substring) -> Cuts:
    """What to cut from the documents `here`; `ValueError` if that is more than memory holds."""
    nbytes = kept.nbytes("text")
    if nbytes > step.most:
        raise ValueError(
            f"the texts for substrings are {nbytes:,} bytes, expected at most {step.most:,}, which "
            "need about 40 bytes of memory each: split the corpus, or raise `most`"
        )
    found = repeated(kept.take(here, "text"), step.length)
    return {int(k): spans for k, spans in zip(here, found, strict=True) if spans}
