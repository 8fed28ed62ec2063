"""Compaction by key of a stream on disk: when it is due, and which segments it takes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from itertools import takewhile

from ..key_compaction import CompactionRecord, KeyPolicy, LatestEvents
from .compaction import blocks_of, rewrite_segments
from .segment import Segment
from .segments import Segments

log = logging.getLogger(__name__)


async def compact_keys(
    segments: Segments,
    policy: KeyPolicy,
    record: CompactionRecord,
    *,
    time_ns: Callable[[], int],
    roll: Callable[[], Awaitable[None]],
    check: Callable[[], None],
    incarnation: int,
    segment_bytes: int,
) -> CompactionRecord | None:
    """One pass, if it is worth one: what is known after it. `roll` closes the active segment; see rewrite_segments."""
    began_ns = time_ns()
    cutoff_ns = began_ns - policy.min_lag_ns
    if _is_due_to_roll(segments.all, policy, cutoff_ns):
        await roll()
    clean = len(clean_segments(segments.all))
    dirty = _old_enough(segments.all[clean:-1], cutoff_ns)
    if not _is_due(segments.all[:clean], dirty, policy, cutoff_ns):
        dirty = []
        if not record.waits_for_tombstones(began_ns, policy.tombstone_retention_ns):
            return None
    latest = LatestEvents(policy, tombstones_below=record.tombstones_below(began_ns, policy.tombstone_retention_ns))
    count = clean + await _note(segments, dirty, latest, check)
    if not count:
        return None
    end_offset = segments.all[count - 1].end_offset
    size = sum(segment.size for segment in segments.all[:count])
    await rewrite_segments(
        segments, count, latest.thin, incarnation=incarnation, segment_bytes=segment_bytes, check=check
    )
    saved = size - sum(segment.size for segment in clean_segments(segments.all))
    details = {"folder": segments.folder, "end_offset": end_offset, "removed": latest.removed, "saved_bytes": saved}
    log.info("stream compacted", extra=details)
    return record.after(
        end_offset=end_offset,
        began_ns=began_ns,
        now_ns=time_ns(),
        removed=latest.removed,
        saved_bytes=saved,
        first_tombstone=latest.first_tombstone,
        retention_ns=policy.tombstone_retention_ns,
    )


async def _note(segments: Segments, dirty: list[Segment], latest: LatestEvents, check: Callable[[], None]) -> int:
    """Take down where keys were last written, in as many of these as find room; how many that are."""
    for number, segment in enumerate(dirty, 1):
        async for block in blocks_of(segments, segment):
            check()
            await latest.note(block)
        if latest.is_full:
            return number
    return len(dirty)


def clean_segments(segments: list[Segment]) -> list[Segment]:
    """The oldest ones in which each key stands once: the outcomes of passes, none of which leaves a later one out."""
    return list(takewhile(lambda segment: segment.header.covers_end, segments))


def _old_enough(segments: list[Segment], cutoff_ns: int) -> list[Segment]:
    return list(takewhile(lambda segment: segment.last_time_ns <= cutoff_ns, segments))


def _is_due_to_roll(segments: list[Segment], policy: KeyPolicy, cutoff_ns: int) -> bool:
    """Whether the active segment should be closed, so that what is old in it can be compacted."""
    active, clean = segments[-1], clean_segments(segments)
    if not active.blocks or active.first_time_ns > cutoff_ns:
        return False
    return _is_due(clean, segments[len(clean) :], policy, cutoff_ns)


def _is_due(clean: list[Segment], dirty: list[Segment], policy: KeyPolicy, cutoff_ns: int) -> bool:
    """Whether so much came that a pass is worth its reading and writing, or it has waited for long enough."""
    size, kept = sum(one.size for one in dirty if one.blocks), sum(one.size for one in clean)
    oldest_ns = next((one.first_time_ns for one in dirty if one.blocks), None)
    return policy.is_due(size, size + kept, oldest_ns, cutoff_ns)
