"""Messages of whole numbers whose sums are exact: a result is right or wrong, never nearly so."""

import numpy as np

from cookbook_lib.communication.collectives import Array, Collective, Inputs

EXACT = {"bf16": 2**8, "fp16": 2**11, "fp32": 2**24, "int32": 2**31 - 1}  # whole numbers up to it
WIDTH = {"bf16": 2, "fp16": 2, "fp32": 4, "int32": 4}  # bytes
PERIOD = 8191  # of the test pattern: a prime, so that no two parts of a message look the same
PATTERN = np.random.default_rng(0).integers(0, 2**31, PERIOD)


def inputs(row: Collective, ranks: int, count: int, dtype: str) -> Inputs:
    """What each rank has: `count` whole numbers whose sum, if one is taken, is exact in `dtype`.

    In bf16 whole numbers are exact up to 256, so 256 ranks can add ones and zeros.
    """
    most = EXACT[dtype] // ranks if row.reduces else min(EXACT[dtype], 250)
    if most < 1:
        raise ValueError(f"ranks are {ranks}, expected at most {EXACT[dtype]} to add up {dtype}")
    numbers = (PATTERN % (min(most, 250) + 1)).astype(np.float32)

    def of(rank: int) -> Array:
        whole = np.empty(-(-count // PERIOD) * PERIOD, np.float32)
        whole.reshape(-1, PERIOD)[:] = np.roll(numbers, -97 * rank)  # as often as needed
        return whole[:count]

    return of


def counted(row: Collective, ranks: int, nbytes: int, dtype: str) -> int:
    """Numbers in a message of at most `nbytes` that can be cut into equal parts; 0 if none can."""
    parts = row.parts(ranks)
    return nbytes // WIDTH[dtype] // parts * parts
