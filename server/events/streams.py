"""Every stream of this installation: made, opened, listed, trimmed, deleted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from trunkline.api import convert
from trunkline.api.journal.v1 import control_pb2
from trunkline.api.v1 import events_pb2
from trunkline.core.clock import Clock, Rng
from trunkline.core.errors import (
    DurabilityUnmet,
    LimitExceeded,
    NotReady,
    NotSupported,
    StreamExists,
    StreamNotFound,
    TrunklineError,
)
from trunkline.core.model import Sync
from trunkline.core.records import Change, Record
from trunkline.server.journal.control.fold import Decide, View
from trunkline.server.journal.control.sequencer import Origin, Written
from trunkline.server.journal.engine import Engine
from trunkline.server.journal.log import LogConfig

from .feed import Feed
from .fold import STREAM_CREATED, STREAM_DELETED, SUBSCRIPTION_DELETED, EventsFold, StreamEntity, stream_key
from .settings import CHANGES, DEFAULT_STREAM, StreamSettings
from .stream import EventStream, open_stored, recover_log
from .tasks import Tasks

log = logging.getLogger(__name__)

JOURNAL_LOGS = "trunkline."
"""Logs with this prefix are the journal's own."""


class Writer(Protocol):
    """The sequencer, from here."""

    async def write(self, decide: Decide, origin: Origin, *, deadline_ns: int | None = None) -> Written: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsConfig:
    """Bounds and paces of streams."""

    streams_max: int = 10_000
    """Of all namespaces. As many derived ones may be in use."""
    streams_per_namespace_max: int = 1_000
    """Of one namespace."""
    producers_per_stream_max: int = 1_000
    """Producers that a stream remembers, each with the offsets of up to 256 requests: 40 KB at most. A new one is refused
    until the dedupe window has left another."""
    trim_interval_s: float = 10.0
    """Between two looks at what retention lets go."""
    recovery_interval_s: float = 1.0
    """Between two looks at which streams' disks have failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What the engine offers."""

    sync: Sync = Sync.FSYNCED
    copies: int = 1


class Streams:
    """By namespace and name. `derive` makes the derived stream of a namespace."""

    def __init__(
        self,
        engine: Engine,
        fold: EventsFold,
        writer: Writer,
        clock: Clock,
        rng: Rng,
        tasks: Tasks,
        config: StreamsConfig,
        *,
        promise: Promise,
        derive: Callable[[str], EventStream] | None = None,
    ) -> None:
        self.promise = promise
        self._engine = engine
        self._fold = fold
        self._writer = writer
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._config = config
        self._derive = derive
        self._open: dict[tuple[str, str], EventStream] = {}
        self._opening: dict[tuple[str, str], asyncio.Lock] = {}
        self._deleting: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._undeleted: set[tuple[str, str]] = set()
        """Streams that were deleted and whose logs could not be: nothing of the name is opened before they are."""
        self._recovering: set[tuple[str, str]] = set()

    def opened(self) -> list[EventStream]:
        """Those that are open."""
        return list(self._open.values())

    def peek(self, namespace: str, name: str) -> EventStream | None:
        """A stream if it is open."""
        return self._open.get((namespace, name))

    # Opening.

    async def start(self) -> None:
        """Remove logs whose stream was deleted, and open those there are."""
        wanted = {f"{entity.namespace}/{entity.name}" for entity in self._fold.streams()}
        for name in await self._engine.list_logs():
            if not name.startswith(JOURNAL_LOGS) and name not in wanted:
                await self._engine.delete_log(name)
        for entity in list(self._fold.streams()):
            await self._opened(entity)

    async def get(self, namespace: str, name: str, origin: Origin, *, make: bool = True) -> EventStream:
        """A stream by name. StreamNotFound.

        The default one is made when it is first asked for, with `make`: whoever may only read makes nothing.
        """
        name = name or DEFAULT_STREAM
        found = self._open.get((namespace, name))
        if found is not None:
            return found
        if name == CHANGES and self._derive is not None:
            self._refuse_too_many(sum(stream.derived for stream in self._open.values()))
            return self._open.setdefault((namespace, name), self._derive(namespace))
        entity = self._fold.stream(namespace, name)
        if entity is None:
            if name != DEFAULT_STREAM or not make:
                raise not_found(namespace, name)
            # The caller's request id stands for what it asks for, which comes after this.
            making = origin._replace(request_id="")
            await self._write_created(namespace, name, StreamSettings(sync=self.promise.sync), making, exact=False)
            entity = self._fold.stream(namespace, name)
            if entity is None:
                raise not_found(namespace, name)
        return await self._opened(entity)

    async def _opened(self, entity: StreamEntity) -> EventStream:
        key = (entity.namespace, entity.name)
        lock = self._opening.setdefault(key, asyncio.Lock())
        async with lock:
            await self._gone(key)
            found = self._open.get(key)
            if found is None:
                found = await self._open_log(entity)
                current = self._fold.stream(*key)
                if current is None or current.created_revision != entity.created_revision:  # deleted meanwhile
                    found.end(not_found(*key))
                    raise not_found(*key)
                self._open[key] = found
                self._configure(found)
        self._opening.pop(key, None)
        return found

    def _configure(self, stream: EventStream) -> None:
        """Let a stream keep what its configuration says by now."""
        entity = self._fold.stream(stream.namespace, stream.name)
        if entity is not None and stream.settings != entity.settings:
            stream.configure(entity.settings)

    async def _open_log(self, entity: StreamEntity) -> EventStream:
        settings = entity.settings
        opened = await self._engine.open_log(
            f"{entity.namespace}/{entity.name}", LogConfig(sync=settings.sync, retention=settings.retention)
        )
        return await open_stored(
            entity,
            opened,
            self._clock,
            self._rng,
            self._tasks,
            journal_id=self._engine.journal_id,
            producers_max=self._config.producers_per_stream_max,
        )

    # Making and deleting.

    async def create(
        self, config: events_pb2.StreamConfig, origin: Origin, *, deadline_ns: int | None = None
    ) -> tuple[EventStream, bool]:
        """Make a stream, and whether it was not there. StreamExists, NotSupported, DurabilityUnmet, LimitExceeded."""
        settings = StreamSettings.of(config)
        namespace, name = config.namespace, config.name
        if name == CHANGES:
            raise NotSupported(f"stream {CHANGES} is in every namespace, derived from control")
        if settings.sync > self.promise.sync:
            raise DurabilityUnmet(
                f"the engine promises {self.promise.sync.name}", required=settings.sync.name, field="stream.sync"
            )
        created = await self._write_created(namespace, name, settings, origin, exact=True, deadline_ns=deadline_ns)
        return await self.get(namespace, name, origin), created

    async def _write_created(
        self,
        namespace: str,
        name: str,
        settings: StreamSettings,
        origin: Origin,
        *,
        exact: bool,
        deadline_ns: int | None = None,
    ) -> bool:
        """`exact`: a stream with other settings is refused.

        Nothing is written before what had the name is gone: after a crash the new stream would have the old one's log.
        """
        key, place = stream_key(namespace, name), (namespace, name)
        body = control_pb2.StreamCreated(config=settings.message(namespace, name)).SerializeToString()

        def decide(view: View) -> Sequence[Change]:
            found = view.get(key)
            if found is None:
                if self._is_there_still(place):
                    raise NotReady(f"the log of what was {name} in {namespace} is not deleted yet")
                self._refuse_too_many_in(namespace)
                return [Change(topic=STREAM_CREATED, key=key, body=body, namespace=namespace)]
            if exact and found.settings != settings:
                raise StreamExists(f"stream {name} of {namespace} is there with another configuration")
            return []

        while True:
            await self._gone(place)
            try:
                written = await self._writer.write(decide, origin, deadline_ns=deadline_ns)
                break
            except NotReady:
                if not self._is_there_still(place):
                    raise
        if written.repeated:
            entity = self._fold.stream(namespace, name)
            return entity is not None and entity.created_revision == written.revision
        return bool(written.records)

    def _refuse_too_many(self, there: int) -> None:
        if there >= self._config.streams_max:
            raise LimitExceeded("streams_max", self._config.streams_max)

    def _refuse_too_many_in(self, namespace: str) -> None:
        streams = list(self._fold.streams())
        self._refuse_too_many(len(streams))
        limit = self._config.streams_per_namespace_max
        if sum(entity.namespace == namespace for entity in streams) >= limit:
            raise LimitExceeded("streams_per_namespace_max", limit)

    async def delete(self, namespace: str, name: str, origin: Origin, *, deadline_ns: int | None = None) -> None:
        """Delete a stream, its events and its subscriptions. StreamNotFound, NotSupported."""
        if name == CHANGES:
            raise NotSupported(f"stream {CHANGES} is derived from control and cannot be deleted")
        key = stream_key(namespace, name)
        body = control_pb2.StreamDeleted().SerializeToString()
        empty = control_pb2.SubscriptionDeleted().SerializeToString()

        def decide(view: View) -> Sequence[Change]:
            if view.get(key) is None:
                raise not_found(namespace, name)
            # Its subscriptions go with it; a record of each lets the journal forget their keys, too.
            gone = [one.key for one in self._fold.subscriptions_of(namespace, name) if view.get(one.key) is not None]
            subscriptions = [
                Change(topic=SUBSCRIPTION_DELETED, key=one, body=empty, namespace=namespace) for one in gone
            ]
            return [Change(topic=STREAM_DELETED, key=key, body=body, namespace=namespace), *subscriptions]

        await self._writer.write(decide, origin, deadline_ns=deadline_ns)
        await self._deleted((namespace, name))

    def apply(self, record: Record) -> list[Feed]:
        """A record was folded: let go of a stream that is not there any more; returns what its subscriptions were."""
        _, namespace, name = record.key.split("/", 2)
        key = (namespace, name)
        if record.topic != STREAM_DELETED:
            if key in self._open:  # it may have been changed
                self._configure(self._open[key])
            return []
        stream = self._open.pop(key, None)
        feeds = [] if stream is None else list(stream.feeds.values())
        if stream is not None:
            stream.end(not_found(namespace, name))
        self._start_deleting(key)
        return feeds

    async def _delete_log(self, key: tuple[str, str]) -> None:
        self._undeleted.add(key)
        try:
            await self._engine.delete_log("/".join(key))
            self._undeleted.discard(key)
        except TrunklineError as error:
            log.warning("log not deleted", extra={"stream": "/".join(key), "reason": error.code})
        finally:
            self._deleting.pop(key, None)

    async def _deleted(self, key: tuple[str, str]) -> None:
        """Wait until the deletion of what had this name before has ended, well or not."""
        task = self._deleting.get(key)
        if task is not None:
            await asyncio.shield(task)

    async def _gone(self, key: tuple[str, str]) -> None:
        """Wait until what had this name before is gone. NotReady when its log cannot be deleted now, either."""
        await self._deleted(key)
        if key in self._undeleted:
            self._start_deleting(key)
            await self._deleted(key)
            if key in self._undeleted:
                raise NotReady(f"the log of what was {key[1]} in {key[0]} cannot be deleted")

    def _is_there_still(self, key: tuple[str, str]) -> bool:
        """What had this name before was deleted, and its log was not, yet."""
        return key in self._deleting or key in self._undeleted

    def _start_deleting(self, key: tuple[str, str]) -> None:
        if key not in self._deleting:
            self._deleting[key] = self._tasks.spawn(self._delete_log(key), f"events: delete {'/'.join(key)}")

    # Listing.

    def states(self, namespace: str, namespaces: Iterable[str] = ()) -> list[events_pb2.StreamState]:
        """The streams of a namespace, or of all (`namespaces` besides those that have streams), sorted.

        The default stream and the derived one are listed in every namespace, also before they are used.
        """
        known = {entity.namespace for entity in self._fold.streams()} | set(namespaces)
        shown: list[events_pb2.StreamState] = []
        for one in [namespace] if namespace else sorted(known):
            names = {entity.name for entity in self._fold.streams() if entity.namespace == one} | {DEFAULT_STREAM}
            if self._derive is not None:
                names.add(CHANGES)
            shown.extend(self._state(one, name) for name in sorted(names))
        return shown

    def _state(self, namespace: str, name: str) -> events_pb2.StreamState:
        stream = self._open.get((namespace, name))
        if stream is not None:
            return stream.state(copies=self.promise.copies)
        entity = self._fold.stream(namespace, name)
        settings = StreamSettings(sync=self.promise.sync) if entity is None else entity.settings
        return events_pb2.StreamState(
            config=settings.message(namespace, name),
            durability=convert.durability_to(settings.sync, self.promise.copies),
            derived=name == CHANGES,
        )

    # Keeping.

    async def keep(self) -> None:
        """Trim and recover, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._trim_forever(), name="events: trim streams")
            tasks.create_task(self._recover_forever(), name="events: recover streams")

    async def _trim_forever(self) -> None:
        while True:
            await asyncio.sleep(self._config.trim_interval_s)
            for stream in self.opened():
                if not stream.derived:
                    await self._trim(stream)

    async def _recover_forever(self) -> None:
        while True:
            await asyncio.sleep(self._config.recovery_interval_s)
            for key, stream in list(self._open.items()):
                if not stream.derived:
                    self._look_after(key, stream)

    async def _trim(self, stream: EventStream) -> None:
        if stream.is_compacting:  # others are not to wait for the end of that
            return
        try:
            await stream.event_log.log.trim(stream.settings.retention, now_ns=self._clock.time_ns())
        except TrunklineError as error:
            log.warning("stream not trimmed", extra={"stream": stream.name, "reason": error.code})

    def _look_after(self, key: tuple[str, str], stream: EventStream) -> None:
        if stream.event_log.failed and key not in self._recovering:
            self._recovering.add(key)
            task = self._tasks.spawn(recover_log(stream), f"events: recover {'/'.join(key)}")
            task.add_done_callback(lambda _: self._recovering.discard(key))


def not_found(namespace: str, name: str) -> StreamNotFound:
    """No such stream."""
    return StreamNotFound(f"no stream {name} in {namespace}", namespace=namespace, stream=name)
