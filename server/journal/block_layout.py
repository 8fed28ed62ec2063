"""How a block lies on disk. All numbers are little-endian.

    offset  size  field
         0     4  magic "TLBK"
         4     2  format version: 1, or 2 for a block with gaps
         6     2  flags: 1 id hashes, 2 key hashes, 4 topic ids, 8 heads, 16 places
         8     4  crc32c of the index: everything between the fixed header and the payload
        12     4  crc32c of the payload, padding included
        16     8  id of the segment that the block was written to
        24     8  incarnation of the stream when it was written
        32     8  offset of the first record; the others follow, without gaps unless there are places
        40     8  durable_end: everything below this offset was known to be synced when the block was written
        48     8  time of all its records, nanoseconds since the epoch
        56     4  records, 1 to 65,536
        60     4  bytes of the whole block, a multiple of 8
        64     4  bytes of the payload without padding
        68     4  bytes of the topic table
        72     4  bytes of the common head
        76     4  bytes of all heads of single records; with flag 16 the offsets from the first record's to behind the
                  last one's, at most 65,536
        80     4  salt of the segment
        84     4  crc32c of the 84 bytes before

    The index: id hashes (16 bytes a record), key hashes (8), ends of the frames in the payload (4), ends of the heads
    (4, with flag 8), topic ids (2), places (2, with flag 16: how far each record's offset lies from the first one's);
    then the topic table (topics joined by line feeds), the common head and the heads of the records (parts of a
    RecordHead message). A column whose flag is not set is all zero and takes no room.
    A block of events has no heads of records; its common head, if there is one, says what producers numbered.
    The payload: framed bodies, then zeros up to a multiple of 8.

The header has its own checksum so that a segment can be walked by headers alone; the index has its own so that the
dedupe window can be rebuilt without reading bodies. Blocks with gaps are what compaction by key leaves of others: they
have no heads, and format 2, because a program that knows format 1 alone would read other offsets.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import google_crc32c

from trunkline.core.errors import JournalTooNew

from .batch import BLOCK_PAYLOAD_BYTES_MAX, BLOCK_RECORDS_MAX

MAGIC = b"TLBK"
FORMAT = 1
FORMAT_WITH_GAPS = 2
HEADER_BYTES = 88

IDS = 1
KEYS = 2
TOPIC_IDS = 4
HEADS = 8
PLACES = 16
FLAGS = {FORMAT: IDS | KEYS | TOPIC_IDS | HEADS, FORMAT_WITH_GAPS: IDS | KEYS | TOPIC_IDS | PLACES}
"""By format."""
SPAN_MAX = BLOCK_RECORDS_MAX
"""Offsets from a block's first record to behind its last: with gaps as without them."""

HEADS_BYTES_MAX = 256 << 20
BLOCK_BYTES_MAX = HEADS_BYTES_MAX + 2 * BLOCK_PAYLOAD_BYTES_MAX
"""No block is larger; a header that says so is damaged."""

_FIELDS = struct.Struct("<4sHHIIQQQQqIIIIIII")
_CRC = struct.Struct("<I")
assert _FIELDS.size + _CRC.size == HEADER_BYTES


class BlockDamaged(Exception):
    """These bytes are no whole block; the message says what is wrong."""


class Header(NamedTuple):
    """The fixed header of a block, in the order of its fields."""

    magic: bytes
    format: int
    flags: int
    index_crc: int
    payload_crc: int
    segment_id: int
    incarnation: int
    base_offset: int
    durable_end: int
    time_ns: int
    records: int
    size: int
    payload_size: int
    topics_size: int
    common_size: int
    heads_size: int
    salt: int

    @property
    def end_offset(self) -> int:
        """The offset behind its last record."""
        return self.base_offset + self.span

    @property
    def span(self) -> int:
        """Offsets from the first record's to behind the last one's."""
        return self.heads_size if self.flags & PLACES else self.records

    @property
    def columns_size(self) -> int:
        """Bytes of the columns, which have one entry per record."""
        flags = self.flags
        per_record = 4
        per_record += 16 if flags & IDS else 0
        per_record += 8 if flags & KEYS else 0
        per_record += 4 if flags & HEADS else 0
        per_record += 2 if flags & TOPIC_IDS else 0
        per_record += 2 if flags & PLACES else 0
        return self.records * per_record

    @property
    def index_size(self) -> int:
        """Bytes between the fixed header and the payload."""
        heads_size = 0 if self.flags & PLACES else self.heads_size
        return self.columns_size + self.topics_size + self.common_size + heads_size


def pack_header(header: Header) -> bytes:
    """The header's bytes, checksum included."""
    fields = _FIELDS.pack(*header)
    return fields + _CRC.pack(google_crc32c.value(fields))


def parse_header(data: bytes | memoryview, at: int = 0) -> Header:
    """Read and check the fixed header at `at`.

    BlockDamaged when it is none or is not consistent, JournalTooNew when it is a whole header of a newer format.
    """
    if len(data) - at < HEADER_BYTES:
        raise BlockDamaged(f"{len(data) - at} bytes, a header has {HEADER_BYTES}")
    fields = bytes(data[at : at + _FIELDS.size])
    if fields[:4] != MAGIC:
        raise BlockDamaged("no block begins here")
    if _CRC.unpack_from(data, at + _FIELDS.size)[0] != google_crc32c.value(fields):
        raise BlockDamaged("the header's checksum is wrong")
    header = Header._make(_FIELDS.unpack(fields))
    if header.format > FORMAT_WITH_GAPS:
        raise JournalTooNew(f"a block of format {header.format}; this program reads up to {FORMAT_WITH_GAPS}")
    problem = _inconsistency(header)
    if problem:
        raise BlockDamaged(problem)
    return header


def _inconsistency(header: Header) -> str | None:
    """What a header says that no writer would."""
    if header.flags & ~FLAGS.get(header.format, 0) or (header.format == FORMAT_WITH_GAPS) != bool(
        header.flags & PLACES
    ):
        return f"format {header.format} with flags {header.flags:#x}"
    if not 1 <= header.records <= BLOCK_RECORDS_MAX:
        return f"{header.records} records"
    if not header.records <= header.span <= SPAN_MAX:
        return f"{header.records} records within {header.span} offsets"
    if header.payload_size > BLOCK_PAYLOAD_BYTES_MAX or header.size > BLOCK_BYTES_MAX:
        return f"{header.size} bytes, {header.payload_size} of payload"
    if header.size != padded(HEADER_BYTES + header.index_size + header.payload_size):
        return "the parts do not add up to the whole"
    return None


def padded(size: int) -> int:
    """`size` rounded up to a multiple of 8."""
    return (size + 7) & ~7
