"""Opening a stream's folder: what is kept, what is cut, what is reported.

After a clean stop the log goes on where the mark says. After any other stop the newest segment is checked whole. A bad
block at or above the highest durable_end seen is the torn tail: it is cut with all after it. Below, it is corruption.
What is good but was never known to be synced is copied to a new segment, and that is synced with its folder before any
of it is used: the page cache may hold what the disk does not.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from dataclasses import dataclass, field, replace

from trunkline.core.clock import Rng
from trunkline.core.errors import JournalCorrupt
from trunkline.core.model import Sync

from ..block_layout import HEADER_BYTES, pack_header
from ..key_compaction import CompactionRecord
from ..log import Incarnation
from .compaction_record import load_record
from .disk import Disk, File
from .found_segments import corrupt, find_segments, learn_sealed, split_dead
from .log_meta import LogMeta, load_mark, load_meta, remove_mark, save_meta
from .scan_tail import TailScan, scan_tail
from .segment import Mark, Segment, begin_segment, create_segment, load_index, load_trailer, place_segment, seal_segment
from .segment_layout import SEGMENT_HEADER_BYTES, SegmentHeader
from .small_file import TEMPORARY_SUFFIX
from .walk import DamagedAt, walk_blocks

log = logging.getLogger(__name__)

_COPY_BYTES = 1 << 20


@dataclass(slots=True)
class Opened:
    """A log's files, ready for reading and appending. The last segment is the active one; everything is synced."""

    meta: LogMeta
    segments: list[Segment]
    file: File
    """The active segment's."""
    compacted: CompactionRecord = field(default_factory=CompactionRecord)


async def open_files(disk: Disk, folder: str, name: str, sync: Sync, rng: Rng) -> Opened:
    """Open a stream's folder, making it if it is not there, recovering it if it was not closed."""
    await disk.open_folder(folder, create=True)
    for entry in await disk.list(folder):
        if entry.endswith(TEMPORARY_SUFFIX):
            await disk.unlink(f"{folder}/{entry}")
    meta = await load_meta(disk, folder)
    segments = await find_segments(disk, folder)
    if meta is None or meta.deleted:
        return await _create(disk, folder, name, sync, rng, segments, meta)
    alive, dead = split_dead(segments)
    if not alive:
        raise JournalCorrupt(f"{folder}: the segments of stream {name} are gone", path=folder)
    await learn_sealed(disk, alive)
    for segment in dead:
        await disk.unlink(segment.path)
    opened = await _open_newest(disk, folder, alive, meta, sync, rng)
    if any(segment.header.covers_end for segment in alive):
        opened.compacted = await load_record(disk, folder, meta.incarnations[0].id)
    return opened


async def _create(
    disk: Disk, folder: str, name: str, sync: Sync, rng: Rng, segments: list[Segment], old: LogMeta | None
) -> Opened:
    """A new stream. What was begun and never finished, or deleted and not quite gone, is swept away."""
    for segment in segments:
        if old is None and await disk.size(segment.path) > SEGMENT_HEADER_BYTES:
            raise JournalCorrupt(f"{folder} has segments with records and no file 'meta'", path=folder)
        await disk.unlink(segment.path)
    if old is not None and await load_mark(disk, folder) is not None:
        await remove_mark(disk, folder)
    incarnation = rng.u64()
    header = next_header([], incarnation, 0, rng)
    segment, file = await create_segment(disk, folder, header)
    meta = LogMeta(name=name, sync=sync, incarnations=(Incarnation(incarnation, 0),))
    await save_meta(disk, folder, meta)
    return Opened(meta, [segment], file)


def next_header(
    segments: list[Segment], incarnation: int, first_offset: int, rng: Rng, *, covers_end: int = 0
) -> SegmentHeader:
    """The header of a segment that is newer than all others."""
    return SegmentHeader(
        segment_id=max((segment.id for segment in segments), default=0) + 1,
        incarnation=incarnation,
        first_offset=first_offset,
        covers_end=covers_end,
        floor_time_ns=max((max(s.last_time_ns, s.header.floor_time_ns) for s in segments[-1:]), default=0),
        salt=rng.u64() & 0xFFFFFFFF,
    )


async def _open_newest(disk: Disk, folder: str, segments: list[Segment], meta: LogMeta, sync: Sync, rng: Rng) -> Opened:
    newest = segments[-1]
    mark = await load_mark(disk, folder)
    changed = replace(meta, sync=sync)
    if mark is not None:
        await _check_closed(disk, newest, mark.next_offset)
        await remove_mark(disk, folder)
        opened = Opened(changed, segments, await _reopen(disk, newest))
    else:
        scan = await scan_tail(disk, newest, durable_end=newest.first_offset)
        if meta.sync < Sync.FSYNCED or sync < Sync.FSYNCED:
            changed = changed.with_incarnation(Incarnation(rng.u64(), newest.end_offset))
        _report_cut(scan, newest)
        opened = await _secure_tail(disk, segments, scan, changed, rng)
    if changed != meta:
        await save_meta(disk, folder, changed)
    return opened


async def _check_closed(disk: Disk, newest: Segment, next_offset: int) -> None:
    """The clean mark says that everything below `next_offset` was synced: it must be there."""
    trailer = await load_trailer(disk, newest.path, newest.id)
    if trailer is not None and trailer.end_offset == next_offset:
        newest.take_trailer(trailer)
        try:
            await load_index(disk, newest)
        except DamagedAt as damage:
            raise corrupt(newest, damage.position, newest.first_offset, next_offset, damage.reason) from damage
    else:  # the blocks may be whole although the trailer is not
        await scan_tail(disk, newest, durable_end=next_offset)


async def _reopen(disk: Disk, newest: Segment) -> File:
    """Go on behind the last block. A trailer is taken away first: with blocks behind it, it would not be true."""
    file = await disk.open(newest.path)
    await disk.truncate(file, newest.size)
    await disk.sync(file)
    newest.trailer = None
    return file


def _report_cut(scan: TailScan, newest: Segment) -> None:
    if scan.damage is not None:
        details = {
            "segment": newest.path,
            "position": scan.damage.position,
            "bytes": scan.file_size - scan.damage.position,
            "next_offset": newest.end_offset,
            "reason": scan.damage.reason,
        }
        log.warning("torn tail cut: it was never known to be synced", extra=details)


async def _secure_tail(disk: Disk, segments: list[Segment], scan: TailScan, meta: LogMeta, rng: Rng) -> Opened:
    """Make everything that was accepted durable, whatever the page cache and the disk hold now."""
    newest = segments[-1]
    first_unsure = bisect_left(scan.bases, scan.durable_end)
    if first_unsure == len(scan.bases):
        return Opened(meta, segments, await _reopen(disk, newest))
    header = next_header(segments, meta.incarnations[-1].id, scan.bases[first_unsure], rng)
    fresh, file = await _copy_blocks(disk, newest, scan.positions[first_unsure], header)
    kept = segments[:-1]
    if first_unsure == 0:
        await disk.unlink(newest.path)
    else:
        kept.append(newest)
        await _seal_at(disk, newest, scan, first_unsure)
    return Opened(meta, [*kept, fresh], file)


async def _copy_blocks(disk: Disk, source: Segment, position: int, header: SegmentHeader) -> tuple[Segment, File]:
    """A new segment with the blocks of another from `position` on, synced before it gets its name."""
    fresh, file = await begin_segment(disk, source.folder, header)
    start, pieces = fresh.size, []
    async for found in walk_blocks(disk, source.path, position, source.size, segment=source.header):
        copied = found.header._replace(segment_id=header.segment_id, salt=header.salt)
        pieces += [pack_header(copied), found.data[found.at + HEADER_BYTES : found.at + found.header.size]]
        fresh.note(copied, fresh.size)
        if fresh.size - start >= _COPY_BYTES:
            await disk.write(file, start, pieces)
            start, pieces = fresh.size, []
    await disk.write(file, start, pieces, sync=True)
    await place_segment(disk, fresh)
    return fresh, file


async def _seal_at(disk: Disk, segment: Segment, scan: TailScan, blocks: int) -> None:
    """Close a segment behind its first so many blocks; what follows them stands in a newer segment."""
    end_offset = scan.bases[blocks]
    records = end_offset - segment.first_offset
    segment.cut(Mark(end_offset, scan.positions[blocks], scan.times[blocks - 1], blocks, records))
    file = await disk.open(segment.path)
    try:
        await disk.truncate(file, segment.size)
        await seal_segment(disk, segment, file, synced=True)
    finally:
        await disk.close(file)
