"""A registry of its own, brought to a revision of the past: the newest snapshot before it, and the records since."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from trunkline.core.errors import JournalCorrupt, JournalTooNew, PositionOutOfRange, RevisionCompacted
from trunkline.core.records import Record
from trunkline.server.journal.control.admission import NODE_STARTED, Admission
from trunkline.server.journal.control.fold import Folds
from trunkline.server.journal.control.requests import RecentRequests
from trunkline.server.journal.control.snapshot import decode, restore

from ..registry.changes import RegistryChange, RegistryStep
from ..registry.fold import RegistryFold

READ_BYTES = 256 * 1024
SLICE_RECORDS = 100
"""Records folded, a few milliseconds, before the loop gets its turn."""
THREAD_BYTES = 1024 * 1024
"""Snapshots from this size on are loaded in a thread: decoding cannot be interrupted otherwise."""


class SnapshotSource(Protocol):
    """Where snapshots are kept."""

    def load_snapshots(self) -> AsyncIterator[tuple[int, bytes]]:
        """(revision, data), newest first."""


class RecordBlock(Protocol):
    """Records that were folded in one step."""

    base_offset: int
    count: int
    time_ns: int

    def record(self, index: int) -> Record: ...


class ControlRecords(Protocol):
    """The control stream."""

    @property
    def first_offset(self) -> int: ...
    @property
    def next_offset(self) -> int: ...

    async def read(self, offset: int, *, max_bytes: int) -> Sequence[RecordBlock]: ...

    async def offset_at(self, time_ns: int) -> int: ...


class Replay:
    """A fold that nobody else sees."""

    def __init__(self, records: ControlRecords) -> None:
        self.fold = RegistryFold()
        self.revision = -1
        """Position of the last record taken in."""
        self.time_ns = 0
        self._records = records
        self._admission = Admission()
        self._taken = 0

    async def load(self, snapshots: SnapshotSource, revision: int) -> None:
        """Become the newest snapshot at or before `revision`, or empty if the records go back to the first.

        RevisionCompacted when neither leads there.
        """
        async for at, data in snapshots.load_snapshots():
            if at > revision:
                continue
            try:
                await (
                    asyncio.to_thread(self._restore, data) if len(data) >= THREAD_BYTES else self._restore_here(data)
                )
            except (JournalCorrupt, JournalTooNew):
                continue
            break
        if self.revision + 1 < self._records.first_offset and self.revision < revision:
            raise RevisionCompacted(f"revision {revision} lies before the oldest that is kept")

    async def _restore_here(self, data: bytes) -> None:
        self._restore(data)

    def _restore(self, data: bytes) -> None:
        snapshot = decode(data)
        restore(snapshot, Folds([self.fold]), self._admission, RecentRequests())
        self.revision = snapshot.revision
        self.time_ns = snapshot.time_ns

    async def steps(self, until: int, *, collect_after: int) -> AsyncIterator[RegistryStep]:
        """Take in the records up to and with `until`; tell the steps that lie after `collect_after`.

        RevisionCompacted when records went while they were read.
        """
        while self.revision < until:
            for block in await self._read():
                changes: list[RegistryChange] = []
                skipped = 0
                for index in range(max(0, self.revision + 1 - block.base_offset), block.count):
                    record = block.record(index)
                    if record.offset > until:
                        break
                    self.fold.collecting = record.offset > collect_after
                    skipped += not self._take(record)
                    changes += self._drain()
                    self._taken += 1
                    if self._taken % SLICE_RECORDS == 0:
                        await asyncio.sleep(0)
                if self.revision > collect_after:
                    yield RegistryStep(revision=self.revision, time_ns=self.time_ns, changes=changes, skipped=skipped)
                if self.revision >= until:
                    return

    async def _read(self) -> Sequence[RecordBlock]:
        try:
            blocks = await self._records.read(self.revision + 1, max_bytes=READ_BYTES)
        except PositionOutOfRange:
            blocks = []
        if not blocks:
            raise RevisionCompacted(f"the records after revision {self.revision} are not kept any more")
        return blocks

    def _take(self, record: Record) -> bool:
        """Fold a record if it counts. Only the registry's keys matter here, so only they are followed."""
        self.revision = record.offset
        self.time_ns = record.time_ns
        if record.topic == NODE_STARTED:
            return self._admission.admit(record)
        if record.topic.partition(".")[0] not in self.fold.topics:
            return True
        if not self._admission.admit(record):
            return False
        self.fold.apply(record)
        if self.fold.get(record.key) is None:
            self._admission.forget(record.key)
        return True

    def _drain(self) -> list[RegistryChange]:
        changes, self.fold.changes = self.fold.changes, []
        self.fold.lease_changes.clear()
        return changes
