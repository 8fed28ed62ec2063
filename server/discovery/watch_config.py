"""Limits and paces of watches."""

from __future__ import annotations

from dataclasses import dataclass

CREDIT_DEFAULT = 16
"""What a credit of 0 stands for."""
CREDIT_MAX = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """Bounds and paces of watches."""

    watches_max: int = 200_000
    """Watches on this node; more are refused."""
    watches_per_connection_max: int = 1_024
    """Watches on one stream; more are refused."""
    connections_max: int = 50_000
    """Watch streams on this node; more are refused."""
    part_bytes_max: int = 240 * 1024
    """Instances of one part of a snapshot; leaves room for what stands around them in a message of 256 KiB."""
    part_instances_max: int = 256
    """Bounds the time that encoding one part takes."""
    scan_instances_max: int = 2_000
    """Instances looked at in one step when few of them match."""
    event_bytes_max: int = 1024 * 1024
    """One event with changes; where it would be larger, the watch is told to resync, part by part."""
    event_changes_max: int = 500
    """Changes looked at to make one event; with more the watch is told to resync."""
    offer_bytes_max: int = 240 * 1024
    """Gathered for one connection before they are given to its sink."""
    slice_watches: int = 1_000
    """Watches that are told in one go before the loop gets its turn."""
    backlog_steps_max: int = 1_024
    """Registry steps that wait to be told; beyond it all watches catch up from the latest state."""
    since_cached_max: int = 1_024
    """Catch-up events of one group that are kept until the next revision."""
    since_bytes_max: int = 4 * 1024 * 1024
    """Their size in all."""
    bookmark_interval_ms: int = 5_000
    """Silence towards a watch that is up to date is broken after this long, give or take a tenth."""
    tick_ms: int = 100
    """How often it is looked who is owed a bookmark."""
    waits_max: int = 1_000
    """Callers that wait for watchers at one time; more are refused."""
    recent_changes_max: int = 4_096
    """Instances whose state before their last change is remembered, to tell who could route to them."""

    def __post_init__(self) -> None:
        assert self.part_bytes_max <= self.event_bytes_max
        assert 0 < self.tick_ms <= self.bookmark_interval_ms // 10
        assert self.watches_per_connection_max <= self.watches_max

    @property
    def buckets(self) -> int:
        """A watch is visited once in so many ticks: five times in a bookmark interval."""
        return max(1, self.bookmark_interval_ms // (5 * self.tick_ms))

    @property
    def visit_interval_ns(self) -> int:
        """Time between two visits of one watch."""
        return self.buckets * self.tick_ms * 1_000_000
