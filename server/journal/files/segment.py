"""One segment file of a log: what is known of it, and making, sealing and opening it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import google_crc32c

from ..append_queue import Part
from ..block import Encoded, encode_block
from ..block_layout import BlockDamaged, Header
from .disk import Disk, File
from .segment_layout import (
    SEGMENT_HEADER_BYTES,
    TRAILER_BYTES,
    SegmentHeader,
    SparseIndex,
    Trailer,
    pack_segment_header,
    pack_trailer,
    parse_trailer,
    segment_name,
)
from .small_file import TEMPORARY_SUFFIX
from .walk import walk_indexes

log = logging.getLogger(__name__)


class Mark(NamedTuple):
    """How far a segment had grown."""

    end_offset: int
    size: int
    last_time_ns: int
    blocks: int
    records: int


@dataclass(slots=True, eq=False)
class Segment:
    """A segment and what it holds. `size` is the position behind its last good block."""

    folder: str
    header: SegmentHeader
    end_offset: int
    """Behind the last record; of a segment that is not the newest, the first offset of the next."""
    size: int = SEGMENT_HEADER_BYTES
    first_time_ns: int = 0
    last_time_ns: int = 0
    blocks: int = 0
    records: int = 0
    trailer: Trailer | None = None
    """Of a sealed segment."""
    index: SparseIndex | None = field(default_factory=SparseIndex)
    """None when it is on disk and was not read yet."""

    @property
    def id(self) -> int:
        return self.header.segment_id

    @property
    def first_offset(self) -> int:
        return self.header.first_offset

    @property
    def path(self) -> str:
        return f"{self.folder}/{segment_name(self.first_offset, self.id)}"

    def encoded(self, parts: Sequence[Part], incarnation: int, durable_end: int) -> list[Encoded]:
        """Blocks to be written into this segment."""
        return [
            encode_block(
                part.batch,
                segment_id=self.header.segment_id,
                salt=self.header.salt,
                incarnation=incarnation,
                base_offset=part.base_offset,
                durable_end=durable_end,
                time_ns=part.time_ns,
            )
            for part in parts
        ]

    def note(self, header: Header, position: int) -> None:
        """Take in the next block."""
        assert self.index is not None
        self.index.note(header.base_offset, position, header.time_ns)
        self.end_offset = header.end_offset
        self.size = position + header.size
        self.first_time_ns = self.first_time_ns if self.blocks else header.time_ns
        self.last_time_ns = header.time_ns
        self.blocks += 1
        self.records += header.records

    def mark(self) -> Mark:
        """What it holds now, for `cut` to go back to."""
        return Mark(self.end_offset, self.size, self.last_time_ns, self.blocks, self.records)

    def cut(self, mark: Mark) -> None:
        """Know nothing of what came after the mark."""
        assert self.index is not None
        self.end_offset, self.size, self.last_time_ns, self.blocks, self.records = mark
        self.index.cut(self.size)

    def footer(self, durable_end: int) -> bytes:
        """The index and the trailer as of now."""
        assert self.index is not None
        index = self.index.pack()
        self.trailer = Trailer(
            index_crc=google_crc32c.value(index),
            entries=len(self.index),
            segment_id=self.id,
            end_offset=self.end_offset,
            durable_end=durable_end,
            first_time_ns=self.first_time_ns,
            last_time_ns=self.last_time_ns,
            data_end=self.size,
            blocks=self.blocks,
            records=self.records,
        )
        return index + pack_trailer(self.trailer)

    def take_trailer(self, trailer: Trailer) -> None:
        """Know what the trailer says; the index is read when it is needed."""
        self.trailer = trailer
        self.end_offset = trailer.end_offset
        self.size = trailer.data_end
        self.first_time_ns = trailer.first_time_ns
        self.last_time_ns = trailer.last_time_ns
        self.blocks = trailer.blocks
        self.records = trailer.records
        self.index = None


async def create_segment(disk: Disk, folder: str, header: SegmentHeader) -> tuple[Segment, File]:
    """Make an empty segment, durably: a segment that is there has a whole header."""
    segment, file = await begin_segment(disk, folder, header)
    try:
        await disk.sync(file)
        await place_segment(disk, segment)
    except BaseException:
        await disk.close(file)
        raise
    return segment, file


async def begin_segment(disk: Disk, folder: str, header: SegmentHeader) -> tuple[Segment, File]:
    """Make a segment under a temporary name, not yet synced."""
    segment = Segment(folder, header, header.first_offset)
    file = await disk.create(segment.path + TEMPORARY_SUFFIX)
    try:
        await disk.write(file, 0, [pack_segment_header(header)])
    except BaseException:
        await disk.close(file)
        raise
    return segment, file


async def place_segment(disk: Disk, segment: Segment) -> None:
    """Give a synced segment its name, durably. From here on it stands for its offsets."""
    await disk.rename(segment.path + TEMPORARY_SUFFIX, segment.path)
    await disk.sync_folder(segment.folder)


async def seal_segment(disk: Disk, segment: Segment, file: File, *, synced: bool) -> None:
    """Put index and trailer behind the last block. `synced`: the blocks are synced already."""
    if not synced:
        await disk.sync(file)
    await disk.write(file, segment.size, [segment.footer(segment.end_offset)], sync=True)


async def load_trailer(disk: Disk, path: str, segment_id: int) -> Trailer | None:
    """The trailer, or None when the segment has no good one."""
    size = await disk.size(path)
    if size < SEGMENT_HEADER_BYTES + TRAILER_BYTES:
        return None
    try:
        trailer = parse_trailer(await disk.read(path, size - TRAILER_BYTES, TRAILER_BYTES))
    except BlockDamaged:
        return None
    if trailer.segment_id != segment_id or trailer.data_end + 24 * trailer.entries + TRAILER_BYTES != size:
        return None
    return trailer


async def load_index(disk: Disk, segment: Segment) -> None:
    """Have the index of a sealed segment in memory. DamagedAt when neither it nor the blocks can be read."""
    if segment.index is None:
        trailer = segment.trailer
        assert trailer is not None
        data = await disk.read(segment.path, trailer.data_end, 24 * trailer.entries)
        try:
            index = SparseIndex.parse(data, trailer)
        except BlockDamaged as error:
            # The trailer was written whole and the index was not: a sync failed, or the power. The blocks say the same.
            log.warning("index rebuilt", extra={"segment": segment.path, "reason": str(error)})
            index = await _rebuilt_index(disk, segment)
        segment.index = index


async def _rebuilt_index(disk: Disk, segment: Segment) -> SparseIndex:
    index = SparseIndex()
    start, end = SEGMENT_HEADER_BYTES, segment.size
    async for found in walk_indexes(disk, segment.path, start, end, segment=segment.header):
        index.note(found.header.base_offset, found.position, found.header.time_ns)
    return index
