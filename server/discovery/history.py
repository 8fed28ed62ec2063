"""The registry as it was: at a revision or a time, and what changed up to there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from trunkline.core.clock import Clock
from trunkline.core.errors import InvalidArgument, LimitExceeded, RevisionInFuture
from trunkline.core.model import RegisteredInstance

from ..registry.changes import RegistryChange, RegistryStep
from .replay import ControlRecords, Replay, SnapshotSource


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryConfig:
    """Bounds of looking back; each look holds a registry of its own."""

    replays_max: int = 2
    """Looks at one time; more wait their turn."""
    waiting_max: int = 16
    """Those that wait; more are refused."""
    changes_max: int = 10_000
    """Changes of one answer."""
    scan_instances: int = 2_000
    """Instances looked through before the loop gets its turn."""

    def __post_init__(self) -> None:
        assert self.replays_max > 0
        assert self.waiting_max >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRegistry:
    """What the registry was at a revision."""

    revision: int
    time_ns: int
    """When its last record was written; nanoseconds since the epoch."""
    instances: Sequence[RegisteredInstance]
    """Ordered by service and id."""
    changes: Sequence[RegistryChange]
    """Oldest first; none unless they were asked for."""
    truncated: bool
    """There were more changes than were asked for."""


class History:
    """Replays into a registry of its own, slice by slice, so that nothing else has to wait for it."""

    def __init__(
        self, snapshots: SnapshotSource, records: ControlRecords, clock: Clock, config: HistoryConfig | None = None
    ) -> None:
        self._snapshots = snapshots
        self._records = records
        self._clock = clock
        self._config = config or HistoryConfig()
        self._turns = asyncio.Semaphore(self._config.replays_max)
        self._waiting = 0

    @property
    def revision(self) -> int:
        """The latest that can be asked for."""
        return self._records.next_offset - 1

    async def at(
        self,
        namespace: str,
        service: str = "",
        *,
        revision: int | None = None,
        time_ns: int | None = None,
        since_revision: int | None = None,
        max_changes: int = 1_000,
    ) -> PastRegistry:
        """The instances of a service, or of every service of a namespace when it is empty, as of a revision or a time.

        Neither means now. With a `since_revision` also what changed after it.

        Raises RevisionCompacted (further back than what is kept), RevisionInFuture, InvalidArgument (`since_revision`
        lies after the revision), LimitExceeded (too many look back at once).
        """
        until = await self._revision_of(revision, time_ns)
        since = until if since_revision is None else since_revision
        if since > until:
            raise InvalidArgument.of("since_revision", f"at most the revision that is asked for, {until}", since)
        max_changes = min(max_changes, self._config.changes_max)
        changes: list[RegistryChange] = []
        async with self._turn():
            replay = Replay(self._records)
            await replay.load(self._snapshots, since)
            async for step in replay.steps(until, collect_after=since):
                if len(changes) <= max_changes:
                    changes += [one for one in step.changes if _is_of(one.namespace, one.service, namespace, service)]
            instances = await self._instances(replay, namespace, service)
        return PastRegistry(
            revision=replay.revision,
            time_ns=replay.time_ns,
            instances=instances,
            changes=changes[:max_changes],
            truncated=len(changes) > max_changes,
        )

    async def steps(self, after: int, until: int) -> AsyncIterator[RegistryStep]:
        """What happened to the registry after a revision, up to and with another one. Raises as `at` does."""
        if until > self.revision:
            raise RevisionInFuture(f"revision {until} is asked for, the registry is at {self.revision}")
        async with self._turn():
            replay = Replay(self._records)
            await replay.load(self._snapshots, after)
            async for step in replay.steps(until, collect_after=after):
                yield step

    async def _revision_of(self, revision: int | None, time_ns: int | None) -> int:
        current = self.revision
        if time_ns is not None:
            if time_ns > self._clock.time_ns():
                raise RevisionInFuture("a time is asked for that has not come yet")
            return min(current, await self._records.offset_at(time_ns + 1) - 1)
        if revision is not None and revision > current:
            raise RevisionInFuture(f"revision {revision} is asked for, the registry is at {current}")
        return current if revision is None else revision

    async def _instances(self, replay: Replay, namespace: str, service: str) -> list[RegisteredInstance]:
        found: list[RegisteredInstance] = []
        scanned = 0
        for name in sorted([service] if service else replay.fold.services(namespace)):
            state = replay.fold.service(namespace, name)
            if state is None:
                continue
            found += sorted(state.instances.values(), key=lambda registered: registered.instance.id)
            scanned += 1 + len(state.instances)
            if scanned >= self._config.scan_instances:
                scanned = 0
                await asyncio.sleep(0)
        return found

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for one of the few looks that there may be."""
        if self._turns.locked() and self._waiting >= self._config.waiting_max:
            raise LimitExceeded("history_waiting_max", self._config.waiting_max)
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()


def _is_of(namespace: str, service: str, wanted_namespace: str, wanted_service: str) -> bool:
    return namespace == wanted_namespace and wanted_service in ("", service)
