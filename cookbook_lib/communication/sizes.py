"""Message sizes as people write them: 8, 64Ki, 1e6, 64MiB, 1.5G."""

import re
from itertools import takewhile

UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
SIZE = re.compile(r"(\d+(?:\.\d*)?(?:e\+?\d+)?)\s*(?:([kmgt]?)(i?)b?)", re.IGNORECASE)


def parse(name: str, text: str) -> int:
    """Bytes: k, M, G and T are powers of 1000, Ki, Mi, Gi and Ti of 1024."""
    match = SIZE.fullmatch(text.strip())
    if match and not (match[3] and not match[2]):
        base = 1024 if match[3] else 1000
        nbytes = float(match[1]) * base ** UNITS[match[2].lower()]
        if nbytes.is_integer() and 1 <= nbytes < 2**63:
            return int(nbytes)
    raise ValueError(f"{name} is {text!r}, expected whole bytes such as 8, 64Ki, 1e6 or 64MiB")


def sizes(least: int, most: int, factor: float) -> list[int]:
    """From `least` to at most `most`, each `factor` times the one before, rounded down."""
    if factor <= 1:
        raise ValueError(f"factor is {factor:g}, expected more than 1")
    if most < least:
        raise ValueError(f"max_bytes is {most}, expected at least min_bytes, {least}")
    steps = takewhile(lambda n: n <= most, (int(least * factor**i) for i in range(1000)))
    return list(dict.fromkeys(steps))
