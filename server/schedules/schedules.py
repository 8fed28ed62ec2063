"""Every schedule of this installation: made, listed, deleted, and kept going."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from trunkline.api import convert
from trunkline.api.journal.v1 import control_pb2
from trunkline.api.v1 import schedules_pb2
from trunkline.core.clock import Clock
from trunkline.core.errors import InvalidArgument, LimitExceeded, NotSupported, ScheduleExists, ScheduleNotFound
from trunkline.core.records import Change, Record
from trunkline.server.events.settings import DEFAULT_STREAM
from trunkline.server.events.streams import Streams, Writer
from trunkline.server.journal.control.fold import View
from trunkline.server.journal.control.sequencer import Origin

from .config import SchedulesConfig
from .firing import Firing
from .fold import SCHEDULE_CREATED, SCHEDULE_DELETED, ScheduleEntity, SchedulesFold
from .planner import Live
from .spec import Spec, check, check_times, schedule_key

PAGE_SIZE_DEFAULT = 100
PAGE_BYTES = 1 << 20
"""Of events, by which the last of a page may be too much."""
SLICE_SCHEDULES = 100
"""Looked at between two looks at the loop."""
PAGE_SLICES_MAX = 100
"""Of one page; what the caller may not see makes it shorter."""
FAILING_ATTEMPTS = 3
"""Attempts after which a schedule that cannot publish is an alarm."""
_MS = 1_000_000
_PREFIX = "schedule/"

MayTouch = Callable[[Spec], bool]
Allow = Callable[[Spec], None]
"""Raises PermissionDenied unless the caller may publish what the schedule publishes."""


class Page(NamedTuple):
    """Some schedules, by namespace and name."""

    schedules: Sequence[schedules_pb2.ScheduleState]
    next_page_token: str
    """Empty on the last page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulesAlarm:
    """Schedules of one stream that cannot publish."""

    name: str
    namespace: str
    subject: str
    message: str
    since_ns: int


class Schedules:
    """`start` when the streams are open, then `run`; told of every group of control records by `on_records`."""

    def __init__(
        self, fold: SchedulesFold, streams: Streams, writer: Writer, clock: Clock, config: SchedulesConfig
    ) -> None:
        self._fold = fold
        self._streams = streams
        self._writer = writer
        self._clock = clock
        self._config = config
        self._firing = Firing(fold, streams, writer, clock, config)

    def start(self) -> None:
        """The streams are open, and nothing was published to them since the server started."""
        self._firing.start()

    async def run(self) -> None:
        """Go on with every schedule and publish what is due, until cancelled."""
        await self._firing.run()

    def on_records(self, records: Sequence[Record]) -> None:
        """Records of control were folded."""
        self._firing.on_records(records)

    # Making and deleting.

    async def create(
        self, message: schedules_pb2.Schedule, origin: Origin, *, allow: Allow, deadline_ns: int | None = None
    ) -> tuple[schedules_pb2.ScheduleState, bool]:
        """Make a schedule, and whether it was not there.

        Raises InvalidArgument, PermissionDenied, StreamNotFound, NotSupported (a derived stream), ScheduleExists,
        LimitExceeded.
        """
        check(message, interval_ms_min=int(self._config.interval_s_min * 1_000))
        spec = Spec.of(message)
        allow(spec)
        if spec.stream != DEFAULT_STREAM:
            stream = await self._streams.get(spec.namespace, spec.stream, origin)
            if stream.derived:
                raise NotSupported(f"stream {spec.stream} is derived from control and takes no events")
        created_ms = self._clock.time_ns() // _MS
        body = control_pb2.ScheduleCreated(schedule=spec.message(), created_ms=created_ms).SerializeToString(
            deterministic=True
        )

        def decide(view: View) -> Sequence[Change]:
            found = view.get(spec.key)
            if found is None:
                check_times(spec, created_ms)
                self._refuse_too_many(spec)
                return [Change(topic=SCHEDULE_CREATED, key=spec.key, body=body, namespace=spec.namespace)]
            if found.spec != spec:
                raise ScheduleExists(
                    f"schedule {spec.name} of {spec.namespace} is there with another configuration", name=spec.name
                )
            return []

        written = await self._writer.write(decide, origin, deadline_ns=deadline_ns)
        entity = self._fold.get(spec.key)
        if entity is None:  # it has fired and is gone
            state = schedules_pb2.ScheduleState(schedule=spec.message(), created_revision=written.revision)
            return state, True
        is_new = entity.created_revision == written.revision if written.repeated else bool(written.records)
        return self._state(entity, self._firing.live_of(entity)), is_new

    def _refuse_too_many(self, spec: Spec) -> None:
        limits = self._config
        if self._fold.count(spec.namespace) >= limits.schedules_per_namespace_max:
            raise LimitExceeded("schedules_per_namespace_max", limits.schedules_per_namespace_max)
        if self._fold.event_bytes(spec.namespace) + len(spec.event) > limits.event_bytes_per_namespace_max:
            raise LimitExceeded("event_bytes_per_namespace_max", limits.event_bytes_per_namespace_max)

    async def delete(
        self, namespace: str, name: str, origin: Origin, *, allow: Allow, deadline_ns: int | None = None
    ) -> None:
        """Delete a schedule; what is being published at this moment may still come. ScheduleNotFound, PermissionDenied."""
        key = schedule_key(namespace, name)
        body = control_pb2.ScheduleDeleted().SerializeToString()

        def decide(view: View) -> Sequence[Change]:
            found = view.get(key)
            if found is None:
                raise ScheduleNotFound(f"no schedule {name} in {namespace}", namespace=namespace, name=name)
            allow(found.spec)
            return [Change(topic=SCHEDULE_DELETED, key=key, body=body, namespace=namespace)]

        await self._writer.write(decide, origin, deadline_ns=deadline_ns)

    # Showing.

    async def page(self, namespace: str, *, page_size: int, page_token: str, may_touch: MayTouch) -> Page:
        """A page of a namespace's schedules, or of all when it is empty: each as it is when it is looked at.

        Raises InvalidArgument for a token that is none of ours.
        """
        if page_token and not page_token.startswith(_PREFIX):
            raise InvalidArgument.of("page_token", "the next_page_token of an earlier answer", page_token)
        prefix = schedule_key(namespace, "") if namespace else _PREFIX
        page_size = page_size or PAGE_SIZE_DEFAULT
        shown: list[schedules_pb2.ScheduleState] = []
        size, last = 0, page_token
        for _ in range(PAGE_SLICES_MAX):
            some = list(islice(self._fold.behind(last, prefix=prefix), SLICE_SCHEDULES))
            for entity in some:
                if len(shown) >= page_size or size >= PAGE_BYTES:
                    return Page(shown, last)
                last = entity.key
                if may_touch(entity.spec) and not (live := self._firing.live_of(entity)).is_finished:
                    shown.append(self._state(entity, live))
                    size += len(entity.spec.event)
            if len(some) < SLICE_SCHEDULES:
                return Page(shown, "")
            await asyncio.sleep(0)
        return Page(shown, last)

    def _state(self, entity: ScheduleEntity, live: Live) -> schedules_pb2.ScheduleState:
        fired = live.fired
        state = schedules_pb2.ScheduleState(
            schedule=entity.spec.message(),
            created_revision=entity.created_revision,
            created_at=convert.time_ns_to(entity.created_ms * _MS),
            last_offset=fired.offset,
            fired_count=fired.count,
            last_error=live.last_error,
        )
        if fired.count:
            state.last_time.CopyFrom(convert.time_ns_to(fired.fired_ms * _MS))
        if live.next_ms is not None:
            state.next_time.CopyFrom(convert.time_ns_to(live.next_ms * _MS))
        return state

    def metrics(self) -> dict[str, float]:
        """Counts and gauges by name, for Prometheus."""
        return {
            "count": len(self._fold),
            "fired_total": self._firing.fired,
            "failing": len(self._firing.failing),
            "failed_attempts_total": self._firing.failures,
            "not_remembered_total": self._firing.remembering.failures,
        }

    def alarms(self) -> list[SchedulesAlarm]:
        """SCHEDULES_FAILED, one for each stream that schedules cannot publish to."""
        return list(self._alarms())

    def _alarms(self) -> Iterator[SchedulesAlarm]:
        by_stream: dict[tuple[str, str], list[tuple[Live, int]]] = {}
        for live, since_ms in self._firing.failing.items():
            if live.failures >= FAILING_ATTEMPTS:
                spec = live.entity.spec
                by_stream.setdefault((spec.namespace, spec.stream), []).append((live, since_ms))
        for (namespace, stream), some in sorted(by_stream.items(), key=lambda one: one[0]):
            yield SchedulesAlarm(
                name="SCHEDULES_FAILED",
                namespace=namespace,
                subject=stream,
                message=f"{len(some)} schedules cannot publish: {some[0][0].last_error}",
                since_ns=min(since_ms for _, since_ms in some) * _MS,
            )
