"""Events that the control plane publishes later, as users write and read them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.api import convert
from trunkline.api.v1 import schedules_pb2
from trunkline.core.errors import InvalidArgument

from ._edge import Edge
from ._event import Event, event_from, event_to
from ._link import Link

PAGE_SIZE = 1_000
_MS = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """The times of a schedule: `at`, or `every`, or `cron`."""

    at: datetime | None = None
    every: timedelta | float | None = None
    """A number is of seconds."""
    cron: str = ""
    time_zone: str = ""
    start: datetime | None = None
    until: datetime | None = None
    max_count: int = 0
    skip_missed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule as the control plane holds it. Times are UTC."""

    name: str
    namespace: str
    stream: str
    event: Event
    """What is published, but for its id."""
    at: datetime | None
    every: timedelta | None
    start: datetime | None
    """Of `every`; None: when it was made."""
    cron: str
    time_zone: str
    until: datetime | None
    max_count: int
    """0: no end."""
    skip_missed: bool
    next_time: datetime | None
    """None: nothing is left to publish."""
    last_time: datetime | None
    """What the last event was published for; None before the first."""
    last_offset: int | None
    """Where that event is."""
    fired_count: int
    last_error: str
    """Why what is due was not published yet."""


async def create(
    link: Link, edge: Edge, event: Event, when: When, *, namespace: str, stream: str, name: str
) -> Schedule:
    """See Trunkline.schedule. `event` has a source."""
    wanted = schedules_pb2.Schedule(
        namespace=namespace, name=name, stream=stream, max_count=when.max_count, event=event_to(event)
    )
    _set_rule(wanted, when)
    answer = await link.call(
        lambda stubs: stubs.schedules.CreateSchedule,
        schedules_pb2.CreateScheduleRequest(schedule=wanted, request_id=edge.entropy(16).hex()),
        schedules_pb2.CreateScheduleResponse,
    )
    return _schedule_from(answer.schedule)


async def list_all(link: Link, *, namespace: str) -> tuple[Schedule, ...]:
    """See Trunkline.schedules."""
    found: list[Schedule] = []
    token = ""
    while True:
        page = await link.call(
            lambda stubs: stubs.schedules.ListSchedules,
            schedules_pb2.ListSchedulesRequest(namespace=namespace, page_size=PAGE_SIZE, page_token=token),
            schedules_pb2.ListSchedulesResponse,
        )
        found += map(_schedule_from, page.schedules)
        token = page.next_page_token
        if not token:
            return tuple(found)


async def delete(link: Link, edge: Edge, *, namespace: str, name: str) -> None:
    """See Trunkline.unschedule."""
    await link.call(
        lambda stubs: stubs.schedules.DeleteSchedule,
        schedules_pb2.DeleteScheduleRequest(namespace=namespace, name=name, request_id=edge.entropy(16).hex()),
        schedules_pb2.DeleteScheduleResponse,
    )


def _set_rule(wanted: schedules_pb2.Schedule, when: When) -> None:
    """InvalidArgument unless exactly one rule is given, with what belongs to it."""
    given = [
        name
        for name, value in (("at", when.at), ("every", when.every), ("cron", when.cron or None))
        if value is not None
    ]
    if len(given) != 1:
        raise InvalidArgument.of("at, every, cron", "one of them", ", ".join(given) or "none")
    for name, value, rule in (("start", when.start, "every"), ("time_zone", when.time_zone, "cron")):
        if value and rule not in given:
            raise InvalidArgument.of(name, f"only with {rule}", value)
    if when.at is not None:
        _set_time(wanted.at, "at", when.at)
    elif when.every is not None:
        every = when.every if isinstance(when.every, timedelta) else timedelta(seconds=when.every)
        wanted.every.interval.FromTimedelta(every)
        if when.start is not None:
            _set_time(wanted.every.start, "start", when.start)
    else:
        wanted.cron.expression, wanted.cron.time_zone = when.cron, when.time_zone
    if when.until is not None:
        _set_time(wanted.until, "until", when.until)
    if when.skip_missed:
        wanted.misfire = schedules_pb2.Schedule.MISFIRE_SKIP


def _set_time(into: Timestamp, name: str, value: datetime) -> None:
    if value.tzinfo is None:
        raise InvalidArgument.of(name, "a time with its zone", value)
    into.FromDatetime(value)


def _schedule_from(state: schedules_pb2.ScheduleState) -> Schedule:
    said = state.schedule
    kind = said.WhichOneof("rule")
    return Schedule(
        name=said.name,
        namespace=said.namespace,
        stream=said.stream,
        event=event_from(said.event),
        at=_time(said, "at"),
        every=convert.ms_from(said.every, "interval", 0) * _MS if kind == "every" else None,
        start=_time(said.every, "start"),
        cron=said.cron.expression,
        time_zone=said.cron.time_zone,
        until=_time(said, "until"),
        max_count=said.max_count,
        skip_missed=said.misfire == schedules_pb2.Schedule.MISFIRE_SKIP,
        next_time=_time(state, "next_time"),
        last_time=_time(state, "last_time"),
        last_offset=state.last_offset if state.fired_count else None,
        fired_count=state.fired_count,
        last_error=state.last_error,
    )


def _time(message: Message, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    return stamp.ToDatetime(tzinfo=UTC)
