"""Which segments may go, and when one is closed."""

from __future__ import annotations

from ..log import LogConfig, Retention
from .segment import Segment

SEGMENT_BLOCKS_MAX = 1 << 16
"""A segment of many small blocks is closed early: the newest is read whole after an unclean stop."""


def expired(segments: list[Segment], retention: Retention, *, now_ns: int) -> int:
    """How many of the oldest segments may go. The active one, the last, always stays."""
    size = sum(segment.size for segment in segments)
    records = sum(segment.records for segment in segments)
    count = 0
    for segment in segments[:-1]:
        if not _is_over(segment, retention, now_ns, size, records):
            break
        size -= segment.size
        records -= segment.records
        count += 1
    return count


def _is_over(segment: Segment, retention: Retention, now_ns: int, size: int, records: int) -> bool:
    """Whether the oldest segment may go, when the log has `size` bytes and so many records with it."""
    if retention.max_bytes is not None and size > retention.max_bytes:
        return True
    if retention.max_records is not None and records - segment.records >= retention.max_records:
        return True
    if retention.max_offset is not None and segment.end_offset <= retention.max_offset:
        return True
    return retention.max_age_ns is not None and segment.last_time_ns < now_ns - retention.max_age_ns


def is_due_to_roll(active: Segment, retention: Retention, *, now_ns: int) -> bool:
    """Whether the active segment should be closed, so that a stream with little traffic ages too."""
    return (
        retention.max_age_ns is not None and active.blocks > 0 and active.first_time_ns < now_ns - retention.max_age_ns
    )


def is_full(active: Segment, config: LogConfig, *, coming: int) -> bool:
    """Whether the active segment should not take so many bytes more."""
    records = config.segment_records_limit
    return active.blocks > 0 and (
        active.size + coming > config.segment_bytes_limit
        or active.blocks >= SEGMENT_BLOCKS_MAX
        or (records is not None and active.records >= records)
    )
