"""The stream `changes` of each namespace: control's changes as events, derived when they are read.

Recent changes of all namespaces are kept as values; older ones come from control's history. Offsets are revisions, and
the incarnations are the control stream's.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from trunkline.core.errors import PositionOutOfRange
from trunkline.core.model import Sync
from trunkline.core.records import Record
from trunkline.server.journal.control.sequencer import Group
from trunkline.server.journal.log import Incarnation, Log
from trunkline.server.registry.changes import RegistryChange, RegistryStep

from .change_events import ChangeBlock, DerivedEvent, in_blocks, of_instance, of_record, told_of_release, wrap_changes
from .dispatcher import Dispatcher
from .settings import CHANGES, StreamSettings
from .stream import EventStream
from .tasks import Tasks

RECENT_CHANGES_MAX = 16_384
"""Of all namespaces. Who is further behind reads control's history."""
READ_EVENTS_MAX = 256
"""Derived at a time; some ms of work."""
OLDER_EVENTS_MAX = 4_096
"""The same from control's history, which begins with a replay each time."""
READ_BYTES = 1 << 20

Change = RegistryChange | Record


class ControlHistory(Protocol):
    """The registry's past."""

    def steps(self, after: int, until: int) -> AsyncIterator[RegistryStep]:
        """What happened to the registry after a revision, up to and with another one."""


class Changes:
    """Told of every group of control records; makes the derived streams."""

    def __init__(self, control: Log, history: ControlHistory, tasks: Tasks, *, journal_id: str, revision: int) -> None:
        """`revision` is the last one that is folded now."""
        self.end = revision + 1
        """Every change below is known."""
        self._control = control
        self._history = history
        self._tasks = tasks
        self._journal_id = journal_id
        self._recent: deque[Change] = deque()
        self._recent_from = self.end
        self._logs: dict[str, ChangesLog] = {}
        self._changes: list[Change] = []
        self._records_to = revision
        self._instances_to = revision

    # What happened. Both are told of every group, in whichever order.

    def on_group(self, group: Group) -> None:
        """Records were folded: those of streams, subscriptions, schedules, policies and releases are changes."""
        self._changes += [_without_body(record) for record in group.applied if _is_shown(record)]
        self._records_to = group.revision
        self._publish()

    def on_step(self, step: RegistryStep) -> None:
        """The registry folded the same group."""
        self._changes += step.changes
        self._instances_to = step.revision
        self._publish()

    def _publish(self) -> None:
        if self._records_to != self._instances_to:
            return
        self.end = self._records_to + 1
        changes, self._changes = sorted(self._changes, key=_revision_of), []
        self._recent.extend(changes)
        while len(self._recent) > RECENT_CHANGES_MAX:
            self._recent_from = _revision_of(self._recent.popleft()) + 1
        touched = {_namespace_of(change) for change in changes}
        for namespace in touched & self._logs.keys():
            self._logs[namespace].tell([change for change in changes if _namespace_of(change) == namespace])

    def advance(self) -> None:
        """Let the streams in which nothing happened know that nothing did, so that bookmarks move on."""
        for log in self._logs.values():
            log.tell([])

    # The streams.

    def stream(self, namespace: str) -> EventStream:
        """Make the derived stream of a namespace; once for each."""
        assert namespace not in self._logs
        log = self._logs[namespace] = ChangesLog(namespace, self, self._control)
        dispatcher = Dispatcher(log, wrap_changes, self._tasks)
        dispatcher.start()
        settings = StreamSettings(sync=self._control.sync, dedupe_window_ns=0)
        return EventStream(namespace, CHANGES, settings, log, dispatcher, journal_id=self._journal_id, event_log=None)

    async def read(self, namespace: str, from_revision: int) -> tuple[list[DerivedEvent], int]:
        """Some changes of a namespace from a revision on, and the revision below which these are all."""
        if from_revision >= self._recent_from:
            recent = self._recent
            first = bisect_left(recent, from_revision, key=_revision_of)
            found = [recent[i] for i in range(first, len(recent)) if _namespace_of(recent[i]) == namespace]
            return self._derived(found, self.end)
        end = self.end
        older: list[Change] = []
        async with aclosing(self._steps(from_revision - 1, end - 1)) as steps:
            async for step in steps:
                older += [change for change in step.changes if change.namespace == namespace]
                if len(older) >= OLDER_EVENTS_MAX:
                    end = step.revision + 1
                    break
        older += await self._records(namespace, from_revision, end)
        older.sort(key=_revision_of)
        derived: list[DerivedEvent] = []
        for at in range(0, len(older), READ_EVENTS_MAX):
            derived += [self.derive(change) for change in older[at : at + READ_EVENTS_MAX]]
            await asyncio.sleep(0)
        return derived, end

    async def _steps(self, after: int, until: int) -> AsyncGenerator[RegistryStep, None]:
        async for step in self._history.steps(after, until):
            yield step

    async def _records(self, namespace: str, begin: int, end: int) -> list[Change]:
        """The records about a namespace's streams, subscriptions, schedules, policies and releases."""
        found: list[Change] = []
        while begin < end:
            blocks = await self._control.read(begin, max_bytes=READ_BYTES)
            for block in blocks:
                records = map(block.record, range(block.count))
                found += [
                    _without_body(r)
                    for r in records
                    if _is_shown(r) and _namespace_of(r) == namespace and begin <= r.offset < end
                ]
                await asyncio.sleep(0)
            if not blocks:
                break
            begin = blocks[-1].end_offset
        return found

    def _derived(self, changes: Sequence[Change], end: int) -> tuple[list[DerivedEvent], int]:
        if len(changes) > READ_EVENTS_MAX:
            end = _revision_of(changes[READ_EVENTS_MAX])
        return [self.derive(change) for change in changes[:READ_EVENTS_MAX]], end

    def derive(self, change: Change) -> DerivedEvent:
        """The event of a change."""
        incarnation = self._control.incarnation
        return of_record(change, incarnation) if isinstance(change, Record) else of_instance(change, incarnation)


class ChangesLog:
    """The reading half of a log, made of one namespace's changes."""

    def __init__(self, namespace: str, changes: Changes, control: Log) -> None:
        self.next_offset = changes.end
        self._namespace = namespace
        self._changes = changes
        self._control = control
        self._listeners: list[Callable[[ChangeBlock], None]] = []
        self._told: list[Callable[[], None]] = []

    @property
    def first_offset(self) -> int:
        return self._control.first_offset

    @property
    def incarnations(self) -> tuple[Incarnation, ...]:
        return self._control.incarnations

    @property
    def incarnation(self) -> int:
        return self._control.incarnation

    @property
    def sync(self) -> Sync:
        return self._control.sync

    @property
    def bytes(self) -> int:
        """Nothing is stored."""
        return 0

    @property
    def first_time_ns(self) -> int:
        return self._control.first_time_ns

    @property
    def last_time_ns(self) -> int:
        return self._control.last_time_ns

    def on_durable(self, listener: Callable[[ChangeBlock], None], told: Callable[[], None]) -> None:
        """Call `listener` with each group's changes, and `told` when control is done with the group."""
        self._listeners.append(listener)
        self._told.append(told)

    def tell(self, changes: Sequence[Change]) -> None:
        """Changes of this namespace, or that there were none so far."""
        end = self._changes.end
        if end == self.next_offset:
            return
        self.next_offset = end
        if not self._listeners:
            return
        events = [self._changes.derive(change) for change in changes]
        for block in in_blocks(events, end=end) or [ChangeBlock((), end=end)]:
            for listener in self._listeners:
                listener(block)
        for told in self._told:
            asyncio.get_running_loop().call_soon(told)

    async def read(self, offset: int, *, max_bytes: int, index_only: bool = False) -> Sequence[ChangeBlock]:
        """Changes from a revision on; PositionOutOfRange when control's history does not reach back so far."""
        if offset < self.first_offset:
            raise PositionOutOfRange(f"changes are kept from revision {self.first_offset} on", first=str(offset))
        if offset >= self.next_offset:
            return []
        events, end = await self._changes.read(self._namespace, offset)
        return in_blocks(events, end=end) or [ChangeBlock((), end=end)]

    async def offset_at(self, time_ns: int) -> int:
        return await self._control.offset_at(time_ns)

    def resume_offset(self, incarnation: int, offset: int) -> int | None:
        return self._control.resume_offset(incarnation, offset)


def _is_shown(record: Record) -> bool:
    """Of schedules only that they come and go: what they publish is seen where they publish it."""
    shown = ("stream.", "subscription.", "schedule.created", "schedule.deleted", "policy.", "release.")
    return record.topic.startswith(shown)


def _without_body(record: Record) -> Record:
    """What is told of a record: its body may be large, and many are kept. Of a release it is small, and told."""
    body = told_of_release(record) if record.topic.startswith("release.") else b""
    return Record(
        record.offset, record.time_ns, record.topic, body, key=record.key, author=record.author, reason=record.reason
    )


def _revision_of(change: Change) -> int:
    return change.offset if isinstance(change, Record) else change.revision


def _namespace_of(change: Change) -> str:
    return change.key.split("/", 2)[1] if isinstance(change, Record) else change.namespace
