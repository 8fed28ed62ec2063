"""Finding the segments of a log: which are alive, and what each holds."""

from __future__ import annotations

from itertools import pairwise

from trunkline.core.errors import JournalCorrupt

from ..block_layout import BlockDamaged
from .disk import Disk
from .segment import Segment, load_trailer
from .segment_layout import SEGMENT_HEADER_BYTES, SegmentHeader, parse_segment_header, parse_segment_name
from .walk import DamagedAt, walk_blocks


async def find_segments(disk: Disk, folder: str) -> list[Segment]:
    """Every segment in the folder by its header, sorted by offset. JournalCorrupt when a header is damaged."""
    segments = []
    for name in await disk.list(folder):
        named = parse_segment_name(name)
        if named is not None:
            path = f"{folder}/{name}"
            header = await _load_header(disk, path)
            if (header.first_offset, header.segment_id) != named:
                raise JournalCorrupt(f"{path} is not what its name says: offset {header.first_offset}", path=path)
            segments.append(Segment(folder, header, header.first_offset))
    return segments


async def _load_header(disk: Disk, path: str) -> SegmentHeader:
    try:
        return parse_segment_header(await disk.read(path, 0, SEGMENT_HEADER_BYTES))
    except BlockDamaged as error:
        raise JournalCorrupt(f"{path}: the header of the segment is damaged: {error}", path=path) from error


def split_dead(segments: list[Segment]) -> tuple[list[Segment], list[Segment]]:
    """(alive, dead), sorted by offset. Dead is what a segment of a higher id stands for."""
    alive: list[Segment] = []
    dead: list[Segment] = []
    for segment in sorted(segments, key=lambda s: s.id, reverse=True):
        (dead if any(_stands_for(newer, segment) for newer in alive) else alive).append(segment)
    alive.sort(key=lambda s: s.first_offset)
    return alive, dead


def _stands_for(newer: Segment, older: Segment) -> bool:
    end = newer.header.covers_end
    return newer.first_offset <= older.first_offset and (end == 0 or older.first_offset < end)


async def learn_sealed(disk: Disk, segments: list[Segment]) -> None:
    """Fill in what all but the newest segment hold, from trailers; one without a trailer is walked.

    JournalCorrupt when offsets are missing between segments, or when such a walk meets damage.
    """
    for segment, following in pairwise(segments):
        trailer = await load_trailer(disk, segment.path, segment.id)
        end = segment.header.covers_end or following.first_offset
        if trailer is not None and trailer.end_offset <= end:
            segment.take_trailer(trailer)
        else:
            await _walk_sealed(disk, segment, end)
        held_end = segment.header.covers_end or segment.end_offset
        if held_end != following.first_offset:
            raise JournalCorrupt(
                f"{segment.folder}: offsets {held_end} to {following.first_offset - 1} are missing between segments "
                f"{segment.id:x} and {following.id:x}",
                path=segment.folder,
            )
        segment.end_offset = following.first_offset


async def _walk_sealed(disk: Disk, segment: Segment, end_offset: int) -> None:
    size = await disk.size(segment.path)
    position = SEGMENT_HEADER_BYTES
    try:
        async for found in walk_blocks(disk, segment.path, position, size, segment=segment.header):
            if found.header.base_offset >= end_offset:
                return
            segment.note(found.header, found.position)
            if found.header.end_offset >= end_offset:
                return
    except DamagedAt as damage:
        raise corrupt(segment, damage.position, segment.end_offset, end_offset, damage.reason) from damage


def corrupt(segment: Segment, position: int, first: int, end: int, reason: str) -> JournalCorrupt:
    """Say which records cannot be read any more."""
    return JournalCorrupt(
        f"{segment.path} is damaged at byte {position}: {reason}. It held records {first} to {end - 1}, "
        f"which were synced",
        path=segment.path,
        position=str(position),
        first_offset=str(first),
        end_offset=str(end),
    )
