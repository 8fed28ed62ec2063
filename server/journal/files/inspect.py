"""Reading a journal's folder without opening it: nothing is locked, nothing is written, a running server is not disturbed.

What a running server is writing at this moment may look like a torn tail.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from trunkline.core.errors import JournalCorrupt, StreamNotFound
from trunkline.core.records import Record

from ..engine import check_log_name
from . import small_file
from .disk import Disk
from .found_segments import find_segments, learn_sealed, split_dead
from .log_meta import LogMeta, load_mark, load_meta
from .scan_tail import TailScan, scan_tail
from .segment import Segment
from .segment_engine import JOURNAL, SNAPSHOTS, STREAMS, stream_folder, stream_of_folder
from .segment_layout import SEGMENT_HEADER_BYTES
from .snapshot_files import SnapshotFiles
from .walk import DamagedAt, Found, walk_blocks

ATTEMPTS = 5
"""How often a running server may take a segment away from under the reading of one stream."""


@dataclass(slots=True, kw_only=True)
class StreamReport:
    """What a stream's files hold. Offsets are half-open: next_offset is behind the last record."""

    name: str
    sync: str = ""
    incarnation: int = 0
    first_offset: int = 0
    next_offset: int = 0
    segments: int = 0
    blocks: int = 0
    records: int = 0
    bytes: int = 0
    first_time_ns: int = 0
    last_time_ns: int = 0
    clean: bool = False
    """It was closed in good order."""
    torn_bytes: int = 0
    """At the end, never known to be synced: the next start will cut them."""
    problems: list[str] = field(default_factory=list)
    """Damage to what was synced."""


@dataclass(slots=True, kw_only=True)
class JournalReport:
    """What a journal's folder holds."""

    folder: str
    journal_id: str = ""
    node_id: int = 0
    streams: list[StreamReport] = field(default_factory=list)
    snapshots: list[int] = field(default_factory=list)
    """Revisions, newest first."""
    problems: list[str] = field(default_factory=list)
    """Of the folder itself; streams have their own."""

    @property
    def sound(self) -> bool:
        """Whether nothing that was synced is damaged."""
        return not self.problems and not any(stream.problems for stream in self.streams)


async def check(disk: Disk, folder: str) -> JournalReport:
    """Read every byte and verify every checksum. FileNotFoundError when there is no folder, JournalTooNew."""
    report = JournalReport(folder=folder)
    names = await disk.list(folder)
    try:
        content = await small_file.load(disk, folder, JOURNAL)
        if content is None:
            report.problems.append(f"{folder} has no file '{JOURNAL}'")
        else:
            report.journal_id, report.node_id = content["journal_id"], int(content["node_id"], 16)
    except JournalCorrupt as error:
        report.problems.append(error.message)
    for entry in await disk.list(f"{folder}/{STREAMS}") if STREAMS in names else []:
        stream = await check_stream(disk, f"{folder}/{STREAMS}/{entry}", stream_of_folder(entry))
        if stream is not None:
            report.streams.append(stream)
    if SNAPSHOTS in names:
        snapshots = SnapshotFiles(disk, f"{folder}/{SNAPSHOTS}")
        report.snapshots = [revision async for revision, _ in snapshots.load()]
        damaged = len(await snapshots.listed()) - len(report.snapshots)
        if damaged:
            report.problems.append(f"{folder}/{SNAPSHOTS}: {damaged} damaged")
    return report


async def check_stream(disk: Disk, folder: str, name: str) -> StreamReport | None:
    """Verify one stream's folder; None for one that is deleted or was never finished."""
    for _ in range(ATTEMPTS):
        try:
            return await _check_stream(disk, folder, name)
        except FileNotFoundError:
            continue  # a running server let a segment go: look again at what is there
    return StreamReport(name=name, problems=[f"{folder} changes faster than it can be read"])


async def _check_stream(disk: Disk, folder: str, name: str) -> StreamReport | None:
    report = StreamReport(name=name)
    try:
        found = await _find(disk, folder)
        if found is None:
            return None
        meta, segments = found
        report.sync, report.incarnation = meta.sync.name, meta.incarnations[-1].id
        report.clean = await load_mark(disk, folder) is not None
        await learn_sealed(disk, segments)
    except JournalCorrupt as error:
        report.problems.append(error.message)
        return report
    for segment in segments[:-1]:
        report.problems += await _verify(disk, segment)
    try:
        scan = await _scan_newest(disk, folder, segments[-1])
        report.torn_bytes = 0 if scan.damage is None else scan.file_size - scan.damage.position
    except JournalCorrupt as error:
        report.problems.append(error.message)
    _count(report, segments)
    return report


def _count(report: StreamReport, segments: list[Segment]) -> None:
    report.first_offset, report.next_offset = segments[0].first_offset, segments[-1].end_offset
    for segment in segments:
        report.segments += 1
        report.blocks += segment.blocks
        report.records += segment.records
        report.bytes += segment.size
        if segment.blocks:
            report.first_time_ns = report.first_time_ns or segment.first_time_ns
            report.last_time_ns = segment.last_time_ns


async def _find(disk: Disk, folder: str) -> tuple[LogMeta, list[Segment]] | None:
    """Meta and living segments; None if the stream is deleted or was never finished."""
    meta = await load_meta(disk, folder)
    found = await find_segments(disk, folder)
    if meta is None or meta.deleted:
        if meta is None and any([await disk.size(segment.path) > SEGMENT_HEADER_BYTES for segment in found]):
            raise JournalCorrupt(f"{folder} has segments with records and no file 'meta'", path=folder)
        return None
    segments, _ = split_dead(found)
    if not segments:
        raise JournalCorrupt(f"{folder}: the segments of stream {meta.name} are gone", path=folder)
    return meta, segments


async def _scan_newest(disk: Disk, folder: str, newest: Segment) -> TailScan:
    mark = await load_mark(disk, folder)
    known = newest.first_offset if mark is None else mark.next_offset
    return await scan_tail(disk, newest, durable_end=known)


async def _verify(disk: Disk, segment: Segment) -> list[str]:
    """Problems of a sealed segment."""
    expected, blocks, last_time_ns = segment.first_offset, 0, 0
    try:
        async for found in _walk(disk, segment):
            found.block()
            header = found.header
            gap_allowed = segment.header.covers_end
            if header.base_offset < expected or (header.base_offset > expected and not gap_allowed):
                raise DamagedAt(found.position, f"offset {header.base_offset} where {expected} is due")
            if header.time_ns < last_time_ns:
                raise DamagedAt(found.position, "time goes back")
            expected, last_time_ns, blocks = header.end_offset, header.time_ns, blocks + 1
            await asyncio.sleep(0)
    except DamagedAt as damage:
        return [f"{segment.path}: byte {damage.position}, offset {expected} on: {damage.reason}"]
    if blocks != segment.blocks:
        return [f"{segment.path}: {blocks} blocks where {segment.blocks} were counted"]
    return []


async def _walk(disk: Disk, segment: Segment) -> AsyncIterator[Found]:
    start, end = SEGMENT_HEADER_BYTES, segment.size
    async for found in walk_blocks(disk, segment.path, start, end, segment=segment.header):
        if found.header.base_offset >= segment.end_offset:
            return
        yield found


async def show(disk: Disk, folder: str, stream: str, *, from_offset: int, count: int) -> AsyncIterator[Record]:
    """Up to `count` records of a stream from an offset on. StreamNotFound, JournalCorrupt, JournalTooNew.

    Records of event streams have no head: all there is to say stands in the body, a CloudEvent.
    """
    check_log_name(stream)
    path = stream_folder(folder, stream)
    try:
        found = await _find(disk, path)
    except FileNotFoundError:
        found = None
    if found is None:
        raise StreamNotFound(f"{folder} has no stream {stream}", stream=stream)
    _, segments = found
    await learn_sealed(disk, segments)
    await _scan_newest(disk, path, segments[-1])
    for segment in segments:
        if segment.end_offset > from_offset:
            async for record in _records(disk, segment, from_offset):
                if count <= 0:
                    return
                count -= 1
                yield record


async def _records(disk: Disk, segment: Segment, from_offset: int) -> AsyncIterator[Record]:
    try:
        async for found in _walk(disk, segment):
            if found.header.end_offset > from_offset:
                block = found.block()
                for index in range(bisect_left(block.offsets, from_offset), block.count):
                    yield block.record(index)
    except DamagedAt as damage:
        raise JournalCorrupt(
            f"{segment.path} is damaged at byte {damage.position}: {damage.reason}", path=segment.path
        ) from damage
