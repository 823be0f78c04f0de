"""Decompression that says where a file is damaged, after giving out all that can be read.

The usual readers lose what they had read before a truncation, or take it for the end. Memory
stays bounded for any input: what a compressed chunk grows into is handed on in pieces.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any

PLAIN = 1 << 20  # bytes read at once
PACKED = 1 << 16  # the same of a compressed file; zlib copies what is left of it at each step
ZST_CHUNK = 1 << 12  # 4 KiB of zstd grow into 128 MiB at most: 4 bytes of it repeat 128 KiB
OUT = 1 << 14  # bytes handed on at once: what is lost before a damaged place


class Damaged(Exception):
    """What is wrong with a file, at which byte of its decompressed content."""

    def __init__(self, reason: str, byte: int):
        super().__init__(reason)
        self.byte = byte


def zst() -> Any:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


CODECS: dict[str, Callable[[], Any]] = {
    "gz": lambda: zlib.decompressobj(wbits=31),
    "bz2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
    "zst": zst,
}


def chunks(file: Any, codec: str | None) -> Iterator[bytes]:
    """The content of a file in order. `Damaged` after the last byte that can be read."""
    done = 0
    try:
        for data in plain(file) if codec is None else members(file, codec):
            done += len(data)
            yield data
    except (zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        raise Damaged(str(error) or type(error).__name__, done) from None
    except Exception as error:
        if type(error).__name__ != "ZstdError":
            raise
        raise Damaged(str(error), done) from None


def plain(file: Any) -> Iterator[bytes]:
    while data := file.read(PLAIN):
        yield data


def members(file: Any, codec: str) -> Iterator[bytes]:
    """A compressed file is a sequence of streams, each with an end of its own."""
    size = ZST_CHUNK if codec == "zst" else PACKED
    data = file.read(size)
    while data:
        machine = CODECS[codec]()
        while not machine.eof:
            if not data:
                raise EOFError("ends in the middle of its compressed data")
            yield from grown(machine, data, codec)
            data = machine.unused_data if machine.eof else file.read(size)
        data = data or file.read(size)
        if codec != "zst" and data and not data.strip(b"\0"):  # padding is allowed at the end
            while data and not data.strip(b"\0"):
                data = file.read(size)
            if data:
                raise EOFError("bytes after its end")


def grown(machine: Any, data: bytes, codec: str) -> Iterator[bytes]:
    """What one chunk becomes, at most OUT bytes at a time where the decompressor can stop."""
    if codec == "zst":
        yield machine.decompress(data)
    elif codec == "gz":
        while data and not machine.eof:
            yield machine.decompress(data, OUT)
            data = machine.unconsumed_tail
        while not machine.eof and (more := machine.decompress(b"", OUT)):
            yield more
    else:
        yield machine.decompress(data, OUT)
        while not machine.needs_input and not machine.eof:
            yield machine.decompress(b"", OUT)
