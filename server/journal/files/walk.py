"""Walking over the blocks of a segment file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from ..block import Block, parse_block, parse_ids, parse_index
from ..block_layout import HEADER_BYTES, PLACES, BlockDamaged, Header, parse_header
from ..log import Ids
from .disk import Disk
from .segment_layout import SegmentHeader

CHUNK_BYTES = 256 << 10
"""Read at once, and parsed before the loop gets its turn: about 1 ms of the smallest blocks."""


class DamagedAt(Exception):
    """There is no whole block at a position."""

    def __init__(self, position: int, reason: str, header: Header | None = None) -> None:
        super().__init__(reason)
        self.position = position
        self.reason = reason
        self.header = header
        """What the block says of itself, if that much can be read."""


@dataclass(frozen=True, slots=True)
class Found:
    """A block's header and the bytes around it."""

    position: int
    header: Header
    data: bytes
    at: int
    """Where the block begins in `data`."""

    @property
    def end(self) -> int:
        """Position behind the block."""
        return self.position + self.header.size

    def block(self) -> Block:
        """The whole block. DamagedAt when it is not whole. `data` must hold it: see walk_blocks."""
        try:
            return parse_block(self.data, self.at, self.header)
        except BlockDamaged as error:
            raise DamagedAt(self.position, str(error), self.header) from error

    def index(self) -> Block:
        """The block without its payload. DamagedAt when the index is not whole."""
        try:
            return parse_index(self.data, self.at, self.header)
        except BlockDamaged as error:
            raise DamagedAt(self.position, str(error), self.header) from error

    def ids(self) -> list[Ids]:
        """Its id hashes and numbers, of each run of offsets. DamagedAt when the index is not whole."""
        header = self.header
        try:
            if header.flags & PLACES:
                return list(Ids.of_block(self.index()))
            return [Ids(header.base_offset, header.time_ns, *parse_ids(self.data, self.at, header))]
        except BlockDamaged as error:
            raise DamagedAt(self.position, str(error), header) from error


async def walk_blocks(
    disk: Disk, path: str, position: int, end: int, *, segment: SegmentHeader, chunk_bytes: int = CHUNK_BYTES
) -> AsyncIterator[Found]:
    """Blocks in [position, end), each whole in its `data`. DamagedAt where there is none; checksums of the rest are not
    looked at."""
    data, start = b"", position
    while position < end:
        at = position - start
        header = None
        if len(data) - at >= HEADER_BYTES:
            header = header_at(data, at, position, segment)
        if header is None or len(data) - at < header.size:
            wanted = max(chunk_bytes, header.size if header is not None else HEADER_BYTES)
            data, start, at = await disk.read(path, position, min(wanted, end - position)), position, 0
            header = header_at(data, 0, position, segment)
            if header.size > end - position:
                raise DamagedAt(position, f"a block of {header.size} bytes, {end - position} are there")
            if header.size > len(data):
                data = await disk.read(path, position, max(chunk_bytes, header.size))
                if len(data) < header.size:
                    raise DamagedAt(position, f"a block of {header.size} bytes, {len(data)} are there")
        yield Found(position, header, data, at)
        position += header.size


async def walk_indexes(
    disk: Disk, path: str, position: int, end: int, *, segment: SegmentHeader
) -> AsyncIterator[Found]:
    """Like walk_blocks, but `data` is sure to hold only header and index: payloads are skipped where that saves reading."""
    data, start = b"", position
    while position < end:
        at = position - start
        header = header_at(data, at, position, segment) if 0 <= at <= len(data) - HEADER_BYTES else None
        if header is None or len(data) - at < HEADER_BYTES + header.index_size:
            wanted = _INDEX_BYTES if header is None else max(_INDEX_BYTES, HEADER_BYTES + header.index_size)
            data, start, at = await disk.read(path, position, min(wanted, end - position)), position, 0
            header = header_at(data, 0, position, segment)
            if HEADER_BYTES + header.index_size > len(data):
                data = await disk.read(path, position, HEADER_BYTES + header.index_size)
        yield Found(position, header, data, at)
        position += header.size


_INDEX_BYTES = 64 << 10


def header_at(data: bytes, at: int, position: int, segment: SegmentHeader) -> Header:
    """The header of a block of this segment. DamagedAt when there is none."""
    try:
        header = parse_header(data, at)
    except BlockDamaged as error:
        raise DamagedAt(position, str(error)) from error
    if (header.segment_id, header.salt) != (segment.segment_id, segment.salt):
        raise DamagedAt(position, f"a block of segment {header.segment_id:x}, not of {segment.segment_id:x}")
    return header
