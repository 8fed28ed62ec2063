"""How a segment file lies on disk: a header, blocks, and, once it is sealed, an index and a trailer.

The header (little-endian):

    offset  size  field
         0     4  magic "TLSG"
         4     2  format version, 1
         6     2  zero
         8     8  segment id; a log counts them up
        16     8  incarnation when it was made
        24     8  first offset that it may hold
        32     8  0, or for the outcome of a compaction: the offset behind what it stands for
        40     8  time of the newest record there was when it was made, nanoseconds since the epoch
        48     4  salt: random bits that every block repeats, so that a body cannot pass for a block of this segment
        52     8  zero
        60     4  crc32c of the 60 bytes before

A segment stands for every offset from its first on (up to field 32 if that is set): blocks for them in segments of
lower ids are dead. So one rename puts a new segment in the place of old ones.

The index has an entry for about every 64 KiB: offsets (8 bytes each), then positions in the file (8), then times (8).
The trailer is the last 96 bytes of the file:

         0     4  magic "TLSE"
         4     2  format version, 1
         6     2  zero
         8     4  crc32c of the index
        12     4  entries of the index
        16     8  segment id
        24     8  offset behind the last record
        32     8  durable_end: everything below was synced when this was written
        40     8  time of the first record, 0 if there is none
        48     8  time of the last record, 0 if there is none
        56     8  position behind the last block, where the index begins
        64     8  blocks
        72     8  records
        80    12  zero
        92     4  crc32c of the 92 bytes before
"""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_right
from typing import NamedTuple

import google_crc32c

from trunkline.core.errors import JournalTooNew

from ..block_layout import BlockDamaged

FORMAT = 1
SEGMENT_HEADER_BYTES = 64
TRAILER_BYTES = 96
INDEX_SPACING_BYTES = 64 << 10
SEGMENT_SUFFIX = ".seg"

_HEADER_MAGIC = b"TLSG"
_TRAILER_MAGIC = b"TLSE"
_HEADER = struct.Struct("<4sHHQQQQqI8x")
_TRAILER = struct.Struct("<4sHHIIQQQqqQQQ12x")
_CRC = struct.Struct("<I")
_NAME = re.compile(r"(\d{20})-([0-9a-f]{16})\.seg")
assert _HEADER.size + _CRC.size == SEGMENT_HEADER_BYTES
assert _TRAILER.size + _CRC.size == TRAILER_BYTES


class SegmentHeader(NamedTuple):
    """What a segment is."""

    segment_id: int
    incarnation: int
    first_offset: int
    covers_end: int
    floor_time_ns: int
    salt: int


class Trailer(NamedTuple):
    """What a sealed segment holds."""

    index_crc: int
    entries: int
    segment_id: int
    end_offset: int
    durable_end: int
    first_time_ns: int
    last_time_ns: int
    data_end: int
    blocks: int
    records: int


def segment_name(first_offset: int, segment_id: int) -> str:
    """The file's name; names sort as offsets do."""
    return f"{first_offset:020d}-{segment_id:016x}{SEGMENT_SUFFIX}"


def parse_segment_name(name: str) -> tuple[int, int] | None:
    """(first offset, segment id) of a segment's name, None for others."""
    match = _NAME.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2], 16))


def pack_segment_header(header: SegmentHeader) -> bytes:
    """The first bytes of a segment."""
    return _sealed(_HEADER.pack(_HEADER_MAGIC, FORMAT, 0, *header))


def parse_segment_header(data: bytes) -> SegmentHeader:
    """BlockDamaged when these are not the first bytes of a segment, JournalTooNew when of a newer one."""
    magic, version, _, *fields = _HEADER.unpack(_unsealed(data[:SEGMENT_HEADER_BYTES], SEGMENT_HEADER_BYTES))
    _check(magic, _HEADER_MAGIC, version)
    return SegmentHeader._make(fields)


def pack_trailer(trailer: Trailer) -> bytes:
    """The last bytes of a sealed segment."""
    return _sealed(_TRAILER.pack(_TRAILER_MAGIC, FORMAT, 0, *trailer))


def parse_trailer(data: bytes) -> Trailer:
    """BlockDamaged when these are not the last bytes of a sealed segment, JournalTooNew when of a newer one."""
    magic, version, _, *fields = _TRAILER.unpack(_unsealed(data, TRAILER_BYTES))
    _check(magic, _TRAILER_MAGIC, version)
    return Trailer._make(fields)


def _sealed(fields: bytes) -> bytes:
    return fields + _CRC.pack(google_crc32c.value(fields))


def _unsealed(data: bytes, size: int) -> bytes:
    if len(data) != size or _CRC.unpack(data[-_CRC.size :])[0] != google_crc32c.value(data[: -_CRC.size]):
        raise BlockDamaged("the checksum is wrong")
    return data[: -_CRC.size]


def _check(magic: bytes, expected: bytes, version: int) -> None:
    if magic != expected:
        raise BlockDamaged("the magic is wrong")
    if version > FORMAT:
        raise JournalTooNew(f"a segment of format {version}; this program reads up to {FORMAT}")


class SparseIndex:
    """Where some blocks of a segment begin: enough to find any by walking a little."""

    __slots__ = ("_bases", "_positions", "_times")

    def __init__(self) -> None:
        self._bases = array("Q")
        self._positions = array("Q")
        self._times = array("q")

    def __len__(self) -> int:
        return len(self._bases)

    def note(self, base_offset: int, position: int, time_ns: int) -> None:
        """Take a block into the index if the last one there is far enough away. Call it for each, in order."""
        if not self._positions or position - self._positions[-1] >= INDEX_SPACING_BYTES:
            self._bases.append(base_offset)
            self._positions.append(position)
            self._times.append(time_ns)

    def before_offset(self, offset: int) -> int:
        """Position of a block at or before the one that holds `offset`."""
        return self._position(bisect_right(self._bases, offset) - 1)

    def before_time(self, time_ns: int) -> int:
        """Position of a block at or before the first of this time or later."""
        return self._position(bisect_right(self._times, time_ns - 1) - 1)

    def _position(self, entry: int) -> int:
        return self._positions[entry] if entry >= 0 else SEGMENT_HEADER_BYTES

    def cut(self, position: int) -> None:
        """Forget blocks at or behind a position."""
        kept = bisect_right(self._positions, position - 1)
        del self._bases[kept:], self._positions[kept:], self._times[kept:]

    def pack(self) -> bytes:
        """Its bytes on disk."""
        return self._bases.tobytes() + self._positions.tobytes() + self._times.tobytes()

    @staticmethod
    def parse(data: bytes, trailer: Trailer) -> SparseIndex:
        """BlockDamaged when these are not the index that the trailer speaks of."""
        if len(data) != 24 * trailer.entries or google_crc32c.value(data) != trailer.index_crc:
            raise BlockDamaged("the index is cut short or its checksum is wrong")
        index = SparseIndex()
        width = 8 * trailer.entries
        index._bases.frombytes(data[:width])
        index._positions.frombytes(data[width : 2 * width])
        index._times.frombytes(data[2 * width :])
        return index
