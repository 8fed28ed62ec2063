"""Compaction: sealed segments are written anew with only some of their records in them.

Each new segment stands for a whole number of old ones, is synced before it gets its name, and says in its header what
it stands for; so at every instant either it or the old ones count. Older ones are replaced first: of what goes because
something newer stands, the newer is durable all the while, and nothing that went comes back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress

from trunkline.core.errors import TrunklineError

from ..block import Block, Encoded, encode_block
from ..block_layout import HEADER_BYTES, pack_header
from ..key_compaction import Thinned
from ..thinning import Keep, batches_of, kept_records, note_latest
from .disk import File
from .segment import Segment, begin_segment, place_segment, seal_segment
from .segments import Segments
from .small_file import TEMPORARY_SUFFIX
from .walk import Found

_WRITE_BYTES = 256 << 10

Thin = Callable[[Block], Awaitable[AsyncIterator[Thinned] | None]]
"""What stays of a block; None if all does."""


async def compact_segments(
    segments: Segments, count: int, *, incarnation: int, segment_bytes: int, keep: Keep | None
) -> None:
    """Keep of each key the latest record, unless it has no body: then it ended its key's life, and everything older of that
    key goes with it. Of the `count` oldest segments, all of them sealed. Holds the keys in memory."""
    latest: dict[str, int] = {}
    for source in segments.all[:count]:
        async for block in blocks_of(segments, source):
            note_latest(latest, block)

    async def thin(block: Block) -> AsyncIterator[Thinned] | None:
        kept = kept_records(block, latest, keep)
        return None if len(kept) == block.count else _each(batches_of(kept))

    await rewrite_segments(segments, count, thin, incarnation=incarnation, segment_bytes=segment_bytes)


async def _each(thinned: Iterable[Thinned]) -> AsyncIterator[Thinned]:
    for one in thinned:
        yield one


async def rewrite_segments(
    segments: Segments,
    count: int,
    thin: Thin,
    *,
    incarnation: int,
    segment_bytes: int,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Write the `count` oldest segments anew, all of them sealed; `check` raises when that is to end.

    What it raises, or the disk does, leaves some segments as they were, and nothing half done.
    """
    sources = segments.all[:count]
    done = 0
    while sources:
        taken = _take(sources, segment_bytes)
        sources = sources[len(taken) :]
        await segments.replace(done, taken, await _rewrite(segments, taken, thin, incarnation, check))
        done += 1


async def _rewrite(
    segments: Segments, taken: list[Segment], thin: Thin, incarnation: int, check: Callable[[], None]
) -> Segment:
    writer = await _Rewriting.begin(segments, taken, incarnation)
    try:
        for source in taken:
            async for found in segments.walk(source):
                check()
                block = segments.block(source, found)
                await writer.add(found, block, await thin(block))
        await writer.finish()
    except BaseException:
        await writer.abandon()
        raise
    await segments.disk.close(writer.file)
    return writer.segment


def _take(sources: list[Segment], segment_bytes: int) -> list[Segment]:
    """Sources for one new segment: at most about `segment_bytes`, at least one."""
    size = sources[0].size
    for number, source in enumerate(sources[1:], 1):
        size += source.size
        if size > segment_bytes:
            return sources[:number]
    return list(sources)


async def blocks_of(segments: Segments, source: Segment) -> AsyncIterator[Block]:
    """Every block of a segment. JournalCorrupt where there is none."""
    async for found in segments.walk(source):
        yield segments.block(source, found)


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

    async def add(self, found: Found, block: Block, thinned: AsyncIterator[Thinned] | None) -> None:
        """Take over what stays of a block."""
        header = self.segment.header
        if thinned is None:
            copied = found.header._replace(segment_id=header.segment_id, salt=header.salt)
            body = found.data[found.at + HEADER_BYTES : found.at + copied.size]
            self._note(Encoded(copied, pack_header(copied) + body))
        else:
            async for base_offset, batch in thinned:
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

    def _note(self, encoded: Encoded) -> None:
        self.segment.note(encoded.header, self.segment.size)
        self._pieces.append(encoded.data)

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

    async def abandon(self) -> None:
        """It comes to nothing: give the disk its room back. What it was to stand for is there, with or without it."""
        await self._segments.disk.close(self.file)
        for path in (self.segment.path + TEMPORARY_SUFFIX, self.segment.path):
            with suppress(TrunklineError, FileNotFoundError):
                await self._segments.disk.unlink(path)
