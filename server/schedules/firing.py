"""Schedules at work: looks at the clock, publishes what is due, and has control told of it.

What is due is published to each stream in turn, in batches, while other streams go on. A publish that failed is tried again
with the same ids, once the stream has been searched for what may have come through; so is, after a start, what control
does not know of.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence

from trunkline.api.v1 import events_pb2
from trunkline.core.clock import Clock
from trunkline.core.errors import InvalidArgument, TrunklineError
from trunkline.core.records import Record
from trunkline.core.wire import scan_publish
from trunkline.server.events.stream import EventStream
from trunkline.server.events.streams import Streams, Writer
from trunkline.server.events.tasks import Tasks

from .config import SchedulesConfig
from .fold import SCHEDULE_CREATED, SCHEDULE_DELETED, ScheduleEntity, SchedulesFold
from .planner import Live, Pace, Planner
from .published import Identity, find_published
from .remembering import BY, Remembering

log = logging.getLogger(__name__)

BATCH_EVENTS = 100
"""Published in one append, and prepared in one turn of the loop; some ms of work."""
BATCH_BYTES = 1 << 20
"""Of events, by which the last of a batch may be too much."""
GO_ON_SCHEDULES = 20
"""Schedules that a start goes on with between two looks at the loop."""
TAKE_MAX = 500
"""Due schedules that are dealt out between two looks at the loop."""
_MS = 1_000_000

Place = tuple[str, str]
"""Namespace and stream."""


class Firing:
    """`start` when the streams are open, then `run`; told of every group of control records by `on_records`."""

    def __init__(
        self, fold: SchedulesFold, streams: Streams, writer: Writer, clock: Clock, config: SchedulesConfig
    ) -> None:
        self.fired = 0
        self.failures = 0
        """Attempts that failed."""
        self.failing: dict[Live, int] = {}
        """Those whose last attempt failed, and since when; milliseconds since the epoch."""
        self.planner = Planner(
            Pace(
                misfire_after_ms=int(config.misfire_after_s * 1_000),
                remember_ms=int(config.remember_interval_s * 1_000),
                retry_ms_max=int(config.retry_s_max * 1_000),
            )
        )
        self._fold = fold
        self._streams = streams
        self._clock = clock
        self._config = config
        self.remembering = Remembering(writer, clock)
        self._tasks = Tasks()
        self._due: dict[Place, deque[Live]] = {}
        """What is due of each stream; a task works on each."""
        self._begun_ms: dict[Place, int] = {}
        """The time of each stream's last record when the server started."""
        self._changed = asyncio.Event()
        """What is due first may be another one now."""

    # What schedules there are.

    def start(self) -> None:
        """What the streams hold now may have been published by the schedules that there are."""
        for stream in self._streams.opened():
            self._begun_ms[stream.namespace, stream.name] = stream.history.last_time_ns // _MS

    async def _go_on(self) -> None:
        """With every schedule that was there at the start, some at a time: to find when each comes next takes up to 1 ms."""
        for index, entity in enumerate(list(self._fold.schedules())):
            if index % GO_ON_SCHEDULES == 0:
                await asyncio.sleep(0)
            if self._fold.get(entity.key) is entity:
                self.live_of(entity)

    def live_of(self, entity: ScheduleEntity) -> Live:
        """A schedule that is there, at work; from now on if it was not before."""
        live = self.planner.get(entity.key)
        if live is None:
            begun_ms = self._begun_ms.get((entity.spec.namespace, entity.spec.stream), 0)
            live = self.planner.add(entity, attempted_ms=begun_ms)
            self._added(live)
        return live

    def on_records(self, records: Sequence[Record]) -> None:
        """Records of control were folded: schedules come and go."""
        for record in records:
            if record.topic == SCHEDULE_DELETED:
                live = self.planner.remove(record.key)
                if live is not None:
                    self.failing.pop(live, None)
            elif record.topic == SCHEDULE_CREATED:
                entity = self._fold.get(record.key)
                if entity is not None and entity.created_revision == record.offset:
                    self._added(self.planner.add(entity))

    def _added(self, live: Live) -> None:
        self._changed.set()
        if live.remember(self._now_ms()):
            self.remembering.add(live)

    def _now_ms(self) -> int:
        return self._clock.time_ns() // _MS

    # Looking.

    async def run(self) -> None:
        """Publish what is due, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._go_on(), name="schedules: go on")
                tasks.create_task(self._look_forever(), name="schedules: look")
                tasks.create_task(self.remembering.run(), name="schedules: remember")
        finally:
            await self._tasks.cancel()

    async def _look_forever(self) -> None:
        while True:
            self._changed.clear()
            while taken := self.planner.take_due(self._now_ms(), limit=TAKE_MAX):
                self._deal(taken)
                await asyncio.sleep(0)
            await self._until_due()

    async def _until_due(self) -> None:
        """Until the first one is due by a clock that is not set, until that may be another one, or for the longest wait."""
        first_ms = self.planner.first_ms()
        wait_s = self._config.look_interval_s
        if first_ms is not None:
            wait_s = min(wait_s, max(0, first_ms * _MS - self._clock.time_ns()) / 1e9)
        try:
            async with asyncio.timeout(wait_s):
                await self._changed.wait()
        except TimeoutError:
            return

    def _deal(self, taken: Sequence[Live]) -> None:
        for live in taken:
            place = (live.entity.spec.namespace, live.entity.spec.stream)
            waiting = self._due.get(place)
            if waiting is not None:
                waiting.append(live)
                continue
            self._due[place] = deque([live])
            self._tasks.spawn(self._serve(place), name=f"schedules: {'/'.join(place)}")

    # Publishing.

    async def _serve(self, place: Place) -> None:
        """Publish what is due of one stream until nothing is."""
        waiting = self._due[place]
        batch: list[Live] = []
        try:
            while waiting:
                batch = _batch_of(waiting)
                await self._try(place, batch)
        except Exception:
            self._failed([*batch, *waiting], "a fault of the program, whose log has more")
            raise
        finally:
            del self._due[place]

    async def _try(self, place: Place, batch: Sequence[Live]) -> None:
        """Publish these, or put them off."""
        why = ""
        try:
            async with asyncio.timeout(self._config.publish_timeout_s):
                await self._publish(place, batch)
        except InvalidArgument as error:  # one of them, though it was valid when it was made
            why = str(error)
            if len(batch) > 1:
                for live in batch:
                    await self._try(place, [live])
                return
        except TrunklineError as error:
            why = str(error)
        except TimeoutError:
            why = f"not published within {self._config.publish_timeout_s:g} s"
        if why:
            self._failed(batch, why)
        else:
            self._settle(batch)

    def _failed(self, batch: Sequence[Live], why: str) -> None:
        if not batch:
            return
        self.failures += 1
        now_ms = self._now_ms()
        for live in batch:
            live.failed(why, now_ms)
            self.failing.setdefault(live, now_ms)
        log.warning("schedules not fired", extra={"schedules": len(batch), "first": batch[0].entity.key, "reason": why})
        self._settle(batch)

    def _settle(self, batch: Sequence[Live]) -> None:
        now_ms = self._now_ms()
        for live in batch:
            if live.is_gone or not live.failures:
                self.failing.pop(live, None)
            if not live.is_gone and live.remember(now_ms):
                self.remembering.add(live)
            self.planner.put_back(live)
        self._changed.set()

    async def _publish(self, place: Place, batch: Sequence[Live]) -> None:
        stream = await self._streams.get(*place, BY)
        await _look_up(stream, batch)
        now_ms = self._now_ms()
        chosen = [(live, due_ms) for live in batch if not live.is_gone and (due_ms := live.choose(now_ms)) is not None]
        if not chosen:
            return
        events = [live.entity.spec.event_at(live.entity.event_id(due_ms), due_ms) for live, due_ms in chosen]
        request = events_pb2.PublishRequest(namespace=place[0], stream=place[1], events=events)
        scan = scan_publish(request.SerializeToString(deterministic=True), stream_request=False)
        for live, due_ms in chosen:
            live.attempted_ms = due_ms
        published = await stream.publish(scan, require_sync=0)
        offsets = (offset for run in published.ranges for offset in range(run.offset, run.offset + run.count))
        for (live, due_ms), offset in zip(chosen, offsets, strict=True):
            live.published(due_ms, offset)
        self.fired += len(chosen)


async def _look_up(stream: EventStream, batch: Sequence[Live]) -> None:
    """Learn which events of attempts that nobody knows the end of are in the stream."""
    wanted: dict[Live, dict[int, Identity]] = {}
    for live in batch:
        if live.attempted_ms:
            source = events_pb2.CloudEvent.FromString(live.entity.spec.event).source.encode()
            wanted[live] = {due_ms: (source, live.entity.event_id(due_ms).encode()) for due_ms in live.attempted()}
    names = {identity for times in wanted.values() for identity in times.values()}
    found: dict[Identity, int] = {}
    if names:
        from_ms = min(due_ms for times in wanted.values() for due_ms in times)
        found.update(await find_published(stream, names, from_ms=from_ms))
    for live, times in wanted.items():
        live.found({due_ms: found[identity] for due_ms, identity in times.items() if identity in found})


def _batch_of(waiting: deque[Live]) -> list[Live]:
    batch: list[Live] = []
    size = 0
    while waiting and len(batch) < BATCH_EVENTS and size < BATCH_BYTES:
        batch.append(waiting.popleft())
        size += len(batch[-1].entity.spec.event)
    return batch
