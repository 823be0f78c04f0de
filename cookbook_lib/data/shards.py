"""Token ids packed for training, in Megatron's indexed format: `NAME.bin` and `NAME.idx`.

`.bin` holds the ids of all documents in a row. `.idx` says how long each one is, where it begins,
and where documents end. Layout: NVIDIA/Megatron-LM, megatron/core/datasets/indexed_dataset.py.
"""

import os
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np

MAGIC, VERSION = b"MMIDIDX\x00\x00", 1  # megatron/core/datasets/indexed_dataset.py, _INDEX_HEADER
CODES = {"int32": 4, "uint16": 8}  # the same file, DType
SMALL = 65_500  # the same file, DType.optimal_dtype: vocabularies below it take two bytes an id


def dtype_for(vocab_size: int) -> np.dtype:
    return np.dtype(np.uint16 if vocab_size < SMALL else np.int32)


class Shard:
    """Documents that are appended to one shard. Its files appear under their names by `keep`."""

    def __init__(self, path: Path, dtype: np.dtype, end: int | None = None):
        """`end` is an id to put behind each document."""
        self.path, self.dtype, self.end = path, dtype, end
        self.lengths: list[np.ndarray] = []
        self.bin = open(f"{path}.bin", "wb")  # noqa: SIM115

    def append(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        if self.end is not None:
            ids = np.insert(ids, np.cumsum(lengths), self.end)
            lengths = lengths + 1
        self.bin.write(ids.astype(self.dtype).tobytes())
        self.lengths.append(lengths)

    def close(self) -> None:
        """Write the index; both files are on the disk afterwards."""
        lengths = np.concatenate(self.lengths or [np.zeros(0, np.int64)])
        starts = np.zeros(len(lengths), np.int64)
        np.cumsum(lengths[:-1] * self.dtype.itemsize, out=starts[1:])
        with open(f"{self.path}.idx", "wb") as idx:
            idx.write(MAGIC + struct.pack("<QB", VERSION, CODES[self.dtype.name]))
            idx.write(struct.pack("<QQ", len(lengths), len(lengths) + 1))
            idx.write(lengths.astype(np.int32).tobytes())
            idx.write(starts.tobytes())
            idx.write(np.arange(len(lengths) + 1, dtype=np.int64).tobytes())
            flush(idx)
        flush(self.bin)
        self.bin.close()

    def discard(self) -> None:
        with suppress(OSError):  # what a full disk did not take
            self.bin.close()
        for name in (f"{self.path}.bin", f"{self.path}.idx"):
            Path(name).unlink(missing_ok=True)


def flush(file) -> None:
    file.flush()
    os.fsync(file.fileno())


class Packed:
    """A shard to read: `len`, and the ids of document `i` without loading the rest."""

    def __init__(self, path: str | Path):
        """`path` is without its ending. `ValueError` if the two files do not fit together."""
        index = Path(f"{path}.idx").read_bytes()
        if index[:9] != MAGIC or len(index) < 34:
            raise ValueError(f"{path}.idx is no index in Megatron's format")
        version, code, count, ends = struct.unpack_from("<QBQQ", index, 9)
        names = {v: k for k, v in CODES.items()}
        if version != VERSION or code not in names:
            raise ValueError(f"{path}.idx has version {version} and type {code}: not known")
        self.dtype = np.dtype(names[code])
        if len(index) != 34 + 12 * count + 8 * ends:
            raise ValueError(
                f"{path}.idx is {len(index)} bytes, expected {34 + 12 * count + 8 * ends}"
            )
        self.lengths = np.frombuffer(index, np.int32, count, 34)
        self.starts = np.frombuffer(index, np.int64, count, 34 + 4 * count) // self.dtype.itemsize
        self.boundaries = np.frombuffer(index, np.int64, ends, 34 + 12 * count)
        size = Path(f"{path}.bin").stat().st_size
        if size != int(self.lengths.sum(dtype=np.int64)) * self.dtype.itemsize:
            raise ValueError(f"{path}.bin is {size} bytes, which is not what its index says")
        self.ids = np.memmap(f"{path}.bin", self.dtype, "r") if size else np.zeros(0, self.dtype)

    def __len__(self) -> int:
        return len(self.boundaries) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        first, after = self.boundaries[i], self.boundaries[i + 1]
        start = self.starts[first]
        return self.ids[start : start + self.lengths[first:after].sum(dtype=np.int64)]
