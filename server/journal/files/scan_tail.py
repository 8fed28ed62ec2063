"""Reading the newest segment after an unclean stop: how far it is good, and how far it is known to have been synced."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from ..block_layout import MAGIC
from .disk import Disk
from .found_segments import corrupt
from .segment import Segment, load_trailer
from .segment_layout import SEGMENT_HEADER_BYTES
from .walk import CHUNK_BYTES, DamagedAt, header_at, walk_blocks


@dataclass(slots=True)
class TailScan:
    """What the newest segment holds; its Segment has taken in every good block."""

    durable_end: int
    """Everything below was known to be synced by someone who wrote later."""
    file_size: int
    damage: DamagedAt | None = None
    """Where it stops being good before its end, if so."""
    bases: array[int] = field(default_factory=lambda: array("Q"))
    positions: array[int] = field(default_factory=lambda: array("Q"))
    times: array[int] = field(default_factory=lambda: array("q"))
    """Of each good block."""


async def scan_tail(disk: Disk, segment: Segment, *, durable_end: int) -> TailScan:
    """Walk the segment and check everything. `durable_end` is what is known from elsewhere.

    JournalCorrupt when a block is bad below the highest durable_end that is seen anywhere in the segment.
    """
    trailer = await load_trailer(disk, segment.path, segment.id)
    scan = TailScan(durable_end, await disk.size(segment.path))
    end = scan.file_size
    if trailer is not None:
        end = trailer.data_end
        scan.durable_end = max(scan.durable_end, trailer.durable_end)
    try:
        async for found in walk_blocks(disk, segment.path, SEGMENT_HEADER_BYTES, end, segment=segment.header):
            header = found.header
            if header.base_offset != segment.end_offset:
                raise DamagedAt(found.position, f"a block of offset {header.base_offset} is not the next")
            found.block()
            segment.note(header, found.position)
            scan.bases.append(header.base_offset)
            scan.positions.append(found.position)
            scan.times.append(header.time_ns)
            scan.durable_end = max(scan.durable_end, header.durable_end)
    except DamagedAt as damage:
        scan.damage = damage
        await _look_behind(disk, segment, scan, damage.position)
    if segment.end_offset < scan.durable_end:
        position = segment.size if scan.damage is None else scan.damage.position
        reason = "the segment ends" if scan.damage is None else scan.damage.reason
        raise corrupt(segment, position, segment.end_offset, scan.durable_end, reason)
    return scan


async def _look_behind(disk: Disk, segment: Segment, scan: TailScan, position: int) -> None:
    """Look for later blocks behind a bad one: what they say was synced was no torn tail.

    Only headers count, at multiples of 8 bytes; their checksum and salt keep chance and forgery out.
    """
    while position < scan.file_size:
        data = await disk.read(segment.path, position, CHUNK_BYTES + 128)
        at = data.find(MAGIC)
        while 0 <= at < CHUNK_BYTES:
            if (position + at) % 8 == 0:
                scan.durable_end = max(scan.durable_end, _durable_end(data, at, segment))
            at = data.find(MAGIC, at + 1)
        position += CHUNK_BYTES


def _durable_end(data: bytes, at: int, segment: Segment) -> int:
    """What a block of this segment says was synced before it; 0 when there is no such block."""
    try:
        return header_at(data, at, at, segment.header).durable_end
    except DamagedAt:
        return 0
