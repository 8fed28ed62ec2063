"""Compression of messages: gzip and deflate, as the field `grpc-encoding` names them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import grpc

_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
NAMES: Final = {
    grpc.Compression.NoCompression: b"identity",
    grpc.Compression.Deflate: b"deflate",
    grpc.Compression.Gzip: b"gzip",
}
"""How each is called on the wire."""
KNOWN: Final = frozenset(NAMES.values())
_WINDOWS: Final = {b"deflate": zlib.MAX_WBITS, b"gzip": _GZIP_WINDOW}
Compress = Callable[[bytes], bytes]


class TooLong(ValueError):
    """A message is longer than allowed once it is decompressed."""


def compressed(encoding: bytes, message: bytes) -> bytes:
    """KeyError for an encoding that compresses nothing."""
    packer = zlib.compressobj(wbits=_WINDOWS[encoding])
    return packer.compress(message) + packer.flush()


def decompressed(encoding: bytes, data: bytes, bytes_max: int) -> bytes:
    """Undo `encoding`. TooLong, without having made more than that; ValueError for data that is no such stream."""
    window = _WINDOWS.get(encoding)
    if window is None:
        raise ValueError("a message is flagged as compressed, but the call names no compression")
    unpacker = zlib.decompressobj(wbits=window)
    try:
        message = unpacker.decompress(data, bytes_max + 1)
    except zlib.error as error:
        raise ValueError(f"a message is not {encoding.decode()}: {error}") from error
    if len(message) > bytes_max:
        raise TooLong(bytes_max)
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"a message is not one whole {encoding.decode()} stream")
    return message
