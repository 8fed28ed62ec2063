"""What a schedule publishes and when, as a value: made of the contract's message, which is held to its rules here."""

from __future__ import annotations

from dataclasses import dataclass

from trunkline.api import convert
from trunkline.api.v1 import events_pb2, schedules_pb2
from trunkline.core.cloudevent import EventScan, scan_event
from trunkline.core.errors import InvalidArgument, Violation
from trunkline.server.events.settings import DEFAULT_STREAM

from .rule import TIME_MS_MAX, At, Cron, Every, Rule, Times

EVENT_BYTES_MAX = 64 << 10
AT_LATE_MS_MAX = 60_000
"""How far back the one time of a new schedule may lie."""
UTC = "UTC"
SCHEDULED_TIME = "scheduledtime"
"""The attribute that says for which time an event was published."""
_MS = 1_000_000
_LONGEST_ID = "x" * 165
"""Of a name of 128 characters, a revision of 20 and a time of 15 digits."""

Schedule = schedules_pb2.Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A schedule's configuration."""

    namespace: str
    name: str
    stream: str
    event: bytes
    """A CloudEvent without an id, encoded so that equal ones have equal bytes."""
    topic: str
    at_ms: int | None = None
    interval_ms: int = 0
    start_ms: int | None = None
    """None: when the schedule was made."""
    expression: str = ""
    time_zone: str = UTC
    until_ms: int | None = None
    max_count: int = 0
    """0: no end."""
    skips: bool = False
    """What was missed is not published."""

    @property
    def key(self) -> str:
        """What names it in the control stream."""
        return schedule_key(self.namespace, self.name)

    def times(self, created_ms: int) -> Times:
        """When it publishes. InvalidArgument for an expression or a zone that this program does not know."""
        return Times(self._rule(created_ms), self.until_ms)

    def first_behind(self, created_ms: int) -> int:
        """Behind which the first time of a schedule lies that is made now: times before are not its own."""
        return created_ms if self.at_ms is None else self.at_ms - 1

    def _rule(self, created_ms: int) -> Rule:
        if self.at_ms is not None:
            return At(at_ms=self.at_ms)
        if self.interval_ms:
            start_ms = created_ms if self.start_ms is None else self.start_ms
            return Every(interval_ms=self.interval_ms, start_ms=start_ms)
        return Cron(self.expression, self.time_zone)

    @classmethod
    def of(cls, message: Schedule) -> Spec:
        """What a message asks for, which only the contract's own checks have seen, or what was kept of one."""
        every, cron = message.every, message.cron
        return cls(
            namespace=message.namespace,
            name=message.name,
            stream=message.stream or DEFAULT_STREAM,
            event=_without_id(message.event),
            topic=topic_of(message.event),
            at_ms=_ms_from(message, "at"),
            interval_ms=convert.ms_from(every, "interval", 0),
            start_ms=_ms_from(every, "start"),
            expression=cron.expression,
            time_zone=cron.time_zone or UTC,
            until_ms=_ms_from(message, "until"),
            max_count=message.max_count,
            skips=message.misfire == Schedule.MISFIRE_SKIP,
        )

    def message(self) -> Schedule:
        """The message that asks for all of this."""
        message = Schedule(
            namespace=self.namespace,
            name=self.name,
            stream=self.stream,
            event=events_pb2.CloudEvent.FromString(self.event),
            max_count=self.max_count,
        )
        if self.at_ms is not None:
            message.at.CopyFrom(convert.time_ns_to(self.at_ms * _MS))
        elif self.interval_ms:
            message.every.interval.CopyFrom(convert.ms_to(self.interval_ms))
            if self.start_ms is not None:
                message.every.start.CopyFrom(convert.time_ns_to(self.start_ms * _MS))
        else:
            message.cron.expression, message.cron.time_zone = self.expression, self.time_zone
        if self.until_ms is not None:
            message.until.CopyFrom(convert.time_ns_to(self.until_ms * _MS))
        if self.at_ms is None:
            message.misfire = Schedule.MISFIRE_SKIP if self.skips else Schedule.MISFIRE_FIRE_ONCE
        return message

    def event_at(self, event_id: str, due_ms: int) -> events_pb2.CloudEvent:
        """What is published for a time."""
        event = events_pb2.CloudEvent.FromString(self.event)
        event.id = event_id
        event.attributes[SCHEDULED_TIME].ce_timestamp.CopyFrom(convert.time_ns_to(due_ms * _MS))
        return event


def schedule_key(namespace: str, name: str) -> str:
    """What names a schedule in the control stream. Only its name may have a '/'."""
    return f"schedule/{namespace}/{name}"


def topic_of(event: events_pb2.CloudEvent) -> str:
    """An event's topic: the attribute of that name, else its type."""
    return event.attributes["topic"].ce_string if "topic" in event.attributes else event.type


def check(message: Schedule, *, interval_ms_min: int) -> None:
    """What the contract's own rules cannot say. InvalidArgument."""
    _check_event(message.event)
    kind = message.WhichOneof("rule")
    if kind == "at":
        for name, given in (
            ("until", message.HasField("until")), ("max_count", message.max_count), ("misfire", message.misfire)
        ):  # fmt: skip
            if given:
                raise InvalidArgument.of(f"schedule.{name}", "only with every or cron", getattr(message, name))
    elif kind == "every" and not message.every.HasField("interval"):
        raise InvalidArgument.of("schedule.every.interval", "must be set", "nothing")
    elif kind == "every" and (interval_ms := convert.ms_from(message.every, "interval", 0)) < interval_ms_min:
        rule = f"must be at least {interval_ms_min} ms, the control plane's schedules.interval_s_min"
        raise InvalidArgument.of("schedule.every.interval", rule, f"{interval_ms} ms")
    for where, holder, name in (
        ("at", message, "at"), ("every.start", message.every, "start"), ("until", message, "until")
    ):  # fmt: skip
        time_ms = _ms_from(holder, name)
        if time_ms is not None and not 0 <= time_ms < TIME_MS_MAX:
            raise InvalidArgument.of(f"schedule.{where}", "must be a time from 1970 until before 2100", time_ms)


def check_times(spec: Spec, created_ms: int) -> None:
    """Refuse a schedule that would never publish anything. InvalidArgument, naming the field."""
    try:
        times = spec.times(created_ms)
    except InvalidArgument as error:
        raise _within(error, "schedule.cron.") from error
    if spec.at_ms is not None:
        if spec.at_ms < created_ms - AT_LATE_MS_MAX:
            rule = f"must not lie more than {AT_LATE_MS_MAX // 1_000} s in the past"
            raise InvalidArgument.of("schedule.at", rule, f"{(created_ms - spec.at_ms) // 1_000} s ago")
    elif times.rule.after(created_ms) is None:
        field, value = ("cron.expression", spec.expression) if spec.expression else ("every", f"{spec.interval_ms} ms")
        raise InvalidArgument.of(f"schedule.{field}", "must have a time between now and the year 2100", value)
    elif times.after(created_ms) is None:
        raise InvalidArgument.of("schedule.until", "must not lie before the first time", spec.until_ms)


def _check_event(event: events_pb2.CloudEvent) -> EventScan:
    """Hold it to what holds for a published event, with the id and the attribute that it will have."""
    if SCHEDULED_TIME in event.attributes:
        raise InvalidArgument.of(
            f"schedule.event.attributes[{SCHEDULED_TIME}]", "is set by the control plane", "it in the event"
        )
    size = event.ByteSize()
    if size > EVENT_BYTES_MAX:
        raise InvalidArgument.of("schedule.event", f"must have at most {EVENT_BYTES_MAX} bytes", f"{size} bytes")
    published = events_pb2.CloudEvent()
    published.CopyFrom(event)
    published.id = _LONGEST_ID
    published.attributes[SCHEDULED_TIME].ce_timestamp.FromSeconds(0)
    try:
        return scan_event(published.SerializeToString())
    except InvalidArgument as error:
        raise _within(error, "schedule.") from error


def _within(error: InvalidArgument, prefix: str) -> InvalidArgument:
    return InvalidArgument(*(Violation(prefix + one.field, one.rule, one.value) for one in error.violations))


def _without_id(event: events_pb2.CloudEvent) -> bytes:
    kept = events_pb2.CloudEvent()
    kept.CopyFrom(event)
    kept.ClearField("id")
    return kept.SerializeToString(deterministic=True)


def _ms_from(message: Schedule | Schedule.Interval, field: str) -> int | None:
    """The time in a field, rounded up to milliseconds: nothing is published before it."""
    if not message.HasField(field):  # type: ignore[arg-type]
        return None
    return -(-convert.time_ns_from(getattr(message, field)) // _MS)
