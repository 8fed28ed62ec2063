"""The segment files of one open log: finding blocks in them, closing the newest and beginning the next."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import suppress

from trunkline.core.clock import Rng
from trunkline.core.errors import JournalCorrupt, StreamClosed, TrunklineError

from ..block import Block
from ..log import Ids
from .disk import Disk, File
from .found_segments import corrupt
from .recovery import next_header
from .segment import Segment, create_segment, load_index, seal_segment
from .segment_layout import SEGMENT_HEADER_BYTES, SegmentHeader
from .walk import CHUNK_BYTES, DamagedAt, Found, walk_blocks, walk_indexes

INDEXES_MAX = 256
"""Indexes of sealed segments in memory, 24 KiB each at most."""
READ_BYTES_MAX = 4 << 20
READ_BLOCKS_MAX = 256
"""However small: parsing them takes the loop about 5 ms."""
HINTS_MAX = 1_024
ATTEMPTS = 8
"""How often retention or compaction may take a segment away from under one search."""


class Segments:
    """Sorted by offset; the last is the active one, whose file is open."""

    def __init__(self, disk: Disk, folder: str, segments: list[Segment], file: File, rng: Rng) -> None:
        self.disk = disk
        self.folder = folder
        self.all = segments
        self.file = file
        self._rng = rng
        self._last_id = 0
        """The highest that was given out: a compaction and a roll may both be making segments."""
        self._loaded: OrderedDict[int, Segment] = OrderedDict()
        self._hints: OrderedDict[int, tuple[int, int]] = OrderedDict()

    @property
    def active(self) -> Segment:
        """The segment that is appended to."""
        return self.all[-1]

    @property
    def bytes(self) -> int:
        """Bytes of all segments up to their last blocks."""
        return sum(segment.size for segment in self.all)

    def holding(self, offset: int) -> int:
        """Index of the segment that stands for an offset."""
        return max(bisect_right(self.all, offset, key=lambda segment: segment.first_offset) - 1, 0)

    # Reading.

    async def read(self, offset: int, *, max_bytes: int, index_only: bool = False) -> list[Block]:
        """Blocks from `offset` on, of one segment; [] behind the last. FileNotFoundError if retention was faster."""
        for segment in self.all[self.holding(offset) :]:
            blocks = await self._read_in(segment, offset, max_bytes, index_only)
            if blocks:
                return blocks
        return []

    async def _read_in(self, segment: Segment, offset: int, max_bytes: int, index_only: bool) -> list[Block]:
        position, end = await self._position(segment, offset), segment.size
        chunk = min(max(max_bytes, CHUNK_BYTES), READ_BYTES_MAX)
        blocks: list[Block] = []
        size = 0
        if index_only:
            walking = walk_indexes(self.disk, segment.path, position, end, segment=segment.header)
        else:
            walking = walk_blocks(self.disk, segment.path, position, end, segment=segment.header, chunk_bytes=chunk)
        try:
            async for found in walking:
                position = found.position
                if found.header.end_offset <= offset:
                    continue
                size += found.header.index_size if index_only else found.header.size
                if blocks and size > max_bytes:
                    break
                blocks.append(found.index() if index_only else found.block())
                position = found.end
                if size >= max_bytes or len(blocks) >= READ_BLOCKS_MAX:
                    break
        except DamagedAt as damage:
            if not blocks:
                raise self._corrupt(segment, damage, offset) from damage
        if blocks:
            self._hint(blocks[-1].end_offset, segment.id, position)
        return blocks

    def _corrupt(self, segment: Segment, damage: DamagedAt, offset: int) -> JournalCorrupt:
        first, end = max(offset, segment.first_offset), segment.end_offset
        if damage.header is not None:
            first, end = damage.header.base_offset, damage.header.end_offset
        return corrupt(segment, damage.position, first, end, damage.reason)

    async def _position(self, segment: Segment, offset: int) -> int:
        """Where to begin to look for an offset. One who reads on begins where the last read ended."""
        hint = self._hints.get(offset)
        if hint is not None and hint[0] == segment.id:
            return hint[1]
        await self._load_index(segment)
        assert segment.index is not None
        return segment.index.before_offset(offset)

    def _hint(self, offset: int, segment_id: int, position: int) -> None:
        self._hints[offset] = segment_id, position
        if len(self._hints) > HINTS_MAX:
            self._hints.popitem(last=False)

    async def _load_index(self, segment: Segment) -> None:
        """Have the segment's index in memory, and let that of another go when there are many."""
        if segment is self.active or segment.trailer is None:
            return
        try:
            await load_index(self.disk, segment)
        except DamagedAt as damage:
            raise self._corrupt(segment, damage, segment.first_offset) from damage
        self._loaded[segment.id] = segment
        self._loaded.move_to_end(segment.id)
        if len(self._loaded) > INDEXES_MAX:
            _, forgotten = self._loaded.popitem(last=False)
            if forgotten is not self.active:
                forgotten.index = None

    async def offset_at(self, time_ns: int) -> int | None:
        """The first offset of this time or later; None when there is none."""
        for _ in range(ATTEMPTS):
            with suppress(FileNotFoundError):  # retention or compaction was faster: look again
                return await self._offset_at(time_ns)
        raise StreamClosed(f"the segments of {self.folder} change faster than they can be read")

    async def _offset_at(self, time_ns: int) -> int | None:
        for segment in self.all:
            if segment.blocks and segment.last_time_ns >= time_ns:
                await self._load_index(segment)
                assert segment.index is not None
                position = segment.index.before_time(time_ns)
                async for found in self._walk_ids(segment, position):
                    if found.time_ns >= time_ns:
                        return found.base_offset
        return None

    async def ids(self, from_offset: int, from_time_ns: int) -> AsyncIterator[Ids]:
        """Ids of the blocks that hold `from_offset` and more, and are not older than a time."""
        for _ in range(ATTEMPTS):
            try:
                async for ids in self._ids(from_offset, from_time_ns):
                    yield ids
                    from_offset = ids.base_offset + len(ids.id_hashes) // 2
                return
            except FileNotFoundError:
                continue  # retention or compaction was faster: go on where the offset is now
        raise StreamClosed(f"the segments of {self.folder} change faster than they can be read")

    async def _ids(self, from_offset: int, from_time_ns: int) -> AsyncIterator[Ids]:
        for segment in self.all[self.holding(from_offset) :]:
            if not segment.blocks or segment.last_time_ns < from_time_ns:
                continue
            await self._load_index(segment)
            assert segment.index is not None
            position = max(segment.index.before_offset(from_offset), segment.index.before_time(from_time_ns))
            async for found in self._walk_ids(segment, position):
                end_offset = found.base_offset + len(found.id_hashes) // 2
                if end_offset > from_offset and found.time_ns >= from_time_ns:
                    yield found

    async def walk(self, segment: Segment) -> AsyncIterator[Found]:
        """Every block of a segment. JournalCorrupt where there is none."""
        start, end = SEGMENT_HEADER_BYTES, segment.size
        try:
            async for found in walk_blocks(self.disk, segment.path, start, end, segment=segment.header):
                yield found
        except DamagedAt as damage:
            raise self._corrupt(segment, damage, segment.first_offset) from damage

    def block(self, segment: Segment, found: Found) -> Block:
        """The block that was found. JournalCorrupt when it is not whole."""
        try:
            return found.block()
        except DamagedAt as damage:
            raise self._corrupt(segment, damage, segment.first_offset) from damage

    async def _walk_ids(self, segment: Segment, position: int) -> AsyncIterator[Ids]:
        end = segment.size
        try:
            async for found in walk_indexes(self.disk, segment.path, position, end, segment=segment.header):
                for ids in found.ids():
                    yield ids
        except DamagedAt as damage:
            raise self._corrupt(segment, damage, segment.first_offset) from damage

    # The newest segment.

    async def seal_active(self, *, synced: bool) -> None:
        """Put index and trailer into the active segment. `synced`: its blocks are synced."""
        await seal_segment(self.disk, self.active, self.file, synced=synced)

    async def begin_next(self, incarnation: int, first_offset: int) -> None:
        """Make a segment that stands for everything from an offset on the active one, durably."""
        header = self._numbered(next_header(self.all, incarnation, first_offset, self._rng))
        segment, file = await create_segment(self.disk, self.folder, header)
        old, self.file = self.file, file
        replaced = self.all.pop() if self.active.first_offset >= first_offset else None
        self.all.append(segment)
        with suppress(TrunklineError):  # the new segment is there and stands for all that may go wrong here
            await self.disk.close(old)
            if replaced is not None:
                await self.disk.unlink(replaced.path)

    async def remove_first(self) -> None:
        """Let the oldest segment go, durably: another that went before it would leave a hole."""
        segment = self.all[0]
        with suppress(FileNotFoundError):  # it is gone if the folder's sync failed the last time
            await self.disk.unlink(segment.path)
        await self.disk.sync_folder(self.folder)
        self.all.remove(segment)
        self._loaded.pop(segment.id, None)

    async def replace(self, at: int, gone: list[Segment], outcome: Segment) -> None:
        """Put the outcome of a compaction in the place of segments that lie in a row."""
        assert self.all[at : at + len(gone)] == gone
        self.all[at : at + len(gone)] = [outcome]
        for segment in gone:
            self._loaded.pop(segment.id, None)
            await self.disk.unlink(segment.path)

    def header_for_compaction(self, incarnation: int, first_offset: int, covers_end: int) -> SegmentHeader:
        """The header of a segment that stands for old ones."""
        header = self._numbered(next_header(self.all, incarnation, first_offset, self._rng, covers_end=covers_end))
        return header._replace(floor_time_ns=0)

    def _numbered(self, header: SegmentHeader) -> SegmentHeader:
        """With an id that no other segment has, placed or not: hints and indexes go by it."""
        self._last_id = max(self._last_id + 1, header.segment_id)
        return header._replace(segment_id=self._last_id)
