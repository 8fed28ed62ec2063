"""Compaction by key: sealed segments are written anew with only the latest record of each key in them.

Each new segment stands for a whole number of old ones, is synced before it gets its name, and says in its header what
it stands for; so at every instant either it or the old ones count. A record that ends its key's life (its body is empty)
goes too: everything older of that key goes with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from ..block import Block, encode_block
from ..block_layout import HEADER_BYTES, pack_header, parse_header
from ..thinning import Keep, batches_of, kept_records, note_latest
from .disk import File
from .segment import Segment, begin_segment, place_segment, seal_segment
from .segments import Segments
from .walk import Found

_WRITE_BYTES = 256 << 10


async def compact_segments(
    segments: Segments, count: int, *, incarnation: int, segment_bytes: int, keep: Keep | None
) -> None:
    """Compact the `count` oldest segments, all of them sealed. Holds the keys in memory."""
    sources = segments.all[:count]
    latest: dict[str, int] = {}
    for source in sources:
        async for _, block in _blocks(segments, source):
            note_latest(latest, block)
    done = 0
    while sources:
        taken = _take(sources, segment_bytes)
        sources = sources[len(taken) :]
        writer = await _Rewriting.begin(segments, taken, incarnation)
        try:
            for source in taken:
                async for found, block in _blocks(segments, source):
                    await writer.add(found, block, latest, keep)
            await writer.finish()
        finally:
            await segments.disk.close(writer.file)
        await segments.replace(done, taken, writer.segment)
        done += 1


def _take(sources: list[Segment], segment_bytes: int) -> list[Segment]:
    """Sources for one new segment: at most about `segment_bytes`, at least one."""
    size = sources[0].size
    for number, source in enumerate(sources[1:], 1):
        size += source.size
        if size > segment_bytes:
            return sources[:number]
    return list(sources)


async def _blocks(segments: Segments, source: Segment) -> AsyncIterator[tuple[Found, Block]]:
    async for found in segments.walk(source):
        yield found, segments.block(source, found)


class _Rewriting:
    """A segment that is being written in the place of others."""

    def __init__(self, segments: Segments, segment: Segment, file: File, covers_end: int) -> None:
        self.segment = segment
        self.file = file
        self._segments = segments
        self._covers_end = covers_end
        self._start = segment.size
        self._pieces: list[bytes] = []

    @staticmethod
    async def begin(segments: Segments, taken: list[Segment], incarnation: int) -> _Rewriting:
        header = segments.header_for_compaction(incarnation, taken[0].first_offset, taken[-1].end_offset)
        segment, file = await begin_segment(segments.disk, segments.folder, header)
        return _Rewriting(segments, segment, file, taken[-1].end_offset)

    async def add(self, found: Found, block: Block, latest: dict[str, int], keep: Keep | None) -> None:
        """Take over what stays of a block."""
        header = self.segment.header
        kept = kept_records(block, latest, keep)
        if len(kept) == block.count:
            copied = found.header._replace(segment_id=header.segment_id, salt=header.salt)
            self._note(pack_header(copied) + found.data[found.at + HEADER_BYTES : found.at + copied.size])
        else:
            for base_offset, batch in batches_of(kept):
                encoded = encode_block(
                    batch,
                    segment_id=header.segment_id,
                    salt=header.salt,
                    incarnation=block.incarnation,
                    base_offset=base_offset,
                    durable_end=self._covers_end,
                    time_ns=block.time_ns,
                )
                self._note(encoded)
        if self.segment.size - self._start >= _WRITE_BYTES:
            await self._write()

    def _note(self, encoded: bytes) -> None:
        self.segment.note(parse_header(encoded), self.segment.size)
        self._pieces.append(encoded)

    async def _write(self) -> None:
        pieces, self._pieces = self._pieces, []
        start, self._start = self._start, self.segment.size
        await self._segments.disk.write(self.file, start, pieces)

    async def finish(self) -> None:
        """Sync it and put it in its place."""
        if self._pieces:
            await self._write()
        self.segment.end_offset = self._covers_end
        await seal_segment(self._segments.disk, self.segment, self.file, synced=False)
        await place_segment(self._segments.disk, self.segment)
