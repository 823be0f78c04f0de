"""One measurement as one line of JSON: what ran, where, how long, and how near to the roofline."""

from typing import Any

from cookbook_lib.benchmarks.ceilings import Ceilings
from cookbook_lib.benchmarks.timing import Timing
from cookbook_lib.provenance import where


def row(
    what: dict[str, Any],
    timing: Timing,
    *,
    device: str,
    flops: int | float,
    nbytes: int | float,
    ceilings: Ceilings | None = None,
) -> dict[str, Any]:
    """`what` (spec, shapes, dtype) first: it is the row's key; seconds are those of one call.

    flops and nbytes come from the spec, never from the clock. roofline: the fraction of the better
    of the two measured ceilings that was reached; 1 means that nothing is left to gain.
    """
    found: dict[str, Any] = {
        **what,
        "outcome": "measured",
        "seconds": timing.json(),
        "flops": flops,
        "nbytes": nbytes,
        "flops_per_second": flops / timing.median,
        "bytes_per_second": nbytes / timing.median,
    }
    if ceilings:
        found["ceilings"] = ceilings.json()
        found["roofline"] = ceilings.bound(flops, nbytes) / timing.median
    return found | where(device)
