"""What watches cost and did, counted since the start; for metrics and for AdminService.Status."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class WatchCounts:
    """Plain integers, written by one loop."""

    events: int = 0
    """Events told, of every kind but ENDED."""
    bookmarks: int = 0
    snapshots: int = 0
    """Snapshots begun: new watches and resyncs."""
    left_behind: int = 0
    """Times that a watch ran out of credit or its connection was full, so that it was coalesced."""
    backlogs_dropped: int = 0
    """Times that steps came faster than they could be told."""
    ended: int = 0
    """Watches that the server ended with an error."""
    watches: int = 0
    """Open now."""
    connections: int = 0
    """Open now."""
    staleness_ns_max: int = 0
    """The furthest that any watch was behind when they were last looked through."""
