"""An engine keeps the logs of one journal. Two exist: SegmentEngine (a folder) and MemoryEngine."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Protocol

from trunkline.core.errors import InvalidArgument

from .log import Log, LogConfig

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}(/[a-z0-9][a-z0-9.-]{0,127})?")

SNAPSHOTS_KEPT_MIN = 2
SNAPSHOT_SPACING_NS = 12 * 3_600 * 1_000_000_000
"""Of older snapshots one per half day is kept, so that history can be replayed from near."""


class Engine(Protocol):
    """One journal."""

    journal_id: str
    node_id: int
    """64 random bits, kept with the journal."""

    async def open_log(self, name: str, config: LogConfig) -> Log:
        """Open a stream's log, making it if it is not there. One that is open is returned as it is.

        Raises DurabilityUnmet (the engine does not promise config.sync), JournalCorrupt, JournalTooNew, DiskFull, ...
        """

    async def delete_log(self, name: str) -> None:
        """Close and remove a log, if it is there."""

    async def list_logs(self) -> list[str]:
        """Names of the logs there are, sorted."""

    async def save_snapshot(self, revision: int, data: bytes) -> None:
        """Keep a snapshot durably."""

    def load_snapshots(self) -> AsyncIterator[tuple[int, bytes]]:
        """Snapshots as (revision, data), newest first. Damaged ones are logged and left out."""

    async def prune_snapshots(self, *, before_time_ns: int) -> int | None:
        """Let snapshots go that history does not need from `before_time_ns` on.

        Returns the revision of the newest snapshot taken at or before that time: records up to it are not needed to
        rebuild any state since. None when there is no such snapshot.
        """

    async def close(self) -> None:
        """Close all logs, mark the journal as cleanly stopped, let the folder go."""


def check_log_name(name: str) -> None:
    """InvalidArgument unless this is `trunkline.<word>` or `<namespace>/<stream>`."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument.of("stream", "lower-case letters, digits, '.', '-' and at most one '/'", name)


def superfluous_snapshots(snapshots: list[tuple[int, int]], before_time_ns: int) -> tuple[list[int], int | None]:
    """Which of the (revision, time_ns) to delete, and the base: the newest revision at or before the time.

    Kept are the base and what is newer: the newest two, and of the others the first of each half day.
    """
    ordered = sorted(snapshots)
    base = max((revision for revision, time_ns in ordered if time_ns <= before_time_ns), default=None)
    kept = {revision for revision, _ in ordered[-SNAPSHOTS_KEPT_MIN:]}
    spans: set[int] = set()
    for revision, time_ns in ordered:
        if base is not None and revision < base:
            continue
        span = time_ns // SNAPSHOT_SPACING_NS
        if revision == base or span not in spans:
            kept.add(revision)
        spans.add(span)
    return [revision for revision, _ in ordered if revision not in kept], base
