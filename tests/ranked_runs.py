"""What `tests/test_training_ranks.py` starts under torchrun: runs on two ranks, and their losses.

ranked_runs.py FOLDER    reads FOLDER/by-one, a checkpoint of one process; writes FOLDER/by-two
"""

import json
import sys
from pathlib import Path

import torch
from looped import hybrid, losses, run, shared, short

from cookbook_lib.training import checkpoints
from cookbook_lib.training.ranks import joined, started
from cookbook_lib.training.session import Session, train

CASES = {
    "hybrid": {"make": hybrid, "clip": 0.5},
    "shared": {"make": shared, "clip": 0.5, "micro_batch": 1},
    "compiled": {"make": short, "clip": 0.5, "compile": True},
    "muon": {"make": shared, "clip": 0.5, "optimizer": "muon"},
}
RUNS = [(name, how) for name in CASES for how in ("split", "copies")]
RUNS.remove(("compiled", "copies"))  # it takes its time, and what is split is harder


def rows(folder: Path) -> dict:
    torch.set_num_threads(1)
    found = {}
    with started("cpu") as split:
        ways = {"split": split, "copies": joined(split.device, shards=1)}
        for name, how in RUNS:
            r = run(4, ranks=ways[how], **CASES[name])
            found[f"{name} {how}"] = [
                [row["loss"], row["norm"]] for row in (r.advance() for _ in range(4))
            ]
        r = run(6, make=shared, ranks=split)
        one = folder / "by-one/checkpoints/step-3"
        checkpoints.load(one, state := r.state(), split)
        r.load(state, checkpoints.progress(one))
        found["from one"] = losses(r)
        train(
            run(3, make=shared, ranks=split), Session(folder=folder / "by-two", every=2, bar=False)
        )
        same = split.everyone(found)
        assert same[0] == same[1], "the ranks tell the same"
        if split.first:
            (folder / "rows.json").write_text(json.dumps(found))
    return found


if __name__ == "__main__":
    rows(Path(sys.argv[1]))
