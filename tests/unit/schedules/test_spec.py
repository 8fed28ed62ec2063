"""What a schedule may be: every refusal names field, rule and value."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from reference.events_world import event
from reference.registry_world import virtual
from reference.schedules_world import NAMESPACE, Schedule, World
from trunkline.api.rules import checker
from trunkline.api.v1 import schedules_pb2
from trunkline.core.cloudevent import scan_event
from trunkline.core.errors import (
    InvalidArgument,
    LimitExceeded,
    NotSupported,
    ScheduleExists,
    StreamNotFound,
    TrunklineError,
)
from trunkline.server.journal.control.sequencer import Origin
from trunkline.server.schedules.spec import AT_LATE_MS_MAX, EVENT_BYTES_MAX, Spec, check, check_times, topic_of

NOW = 1_795_730_000_000
BY = Origin(author="tests")


def schedule(text: str, **more: Any) -> Schedule:
    """One with these fields in JSON beside those that every schedule has."""
    made = Schedule(namespace=NAMESPACE, name="s", event=event("x"), **more)
    return json_format.Parse(text, made)


def refused(message: Schedule, *, now_ms: int = NOW) -> InvalidArgument:
    """As a call is checked: the contract's rules, then what they cannot say."""

    def create() -> None:
        checker(schedules_pb2.CreateScheduleRequest.DESCRIPTOR)(schedules_pb2.CreateScheduleRequest(schedule=message))
        check(message, interval_ms_min=10_000)
        check_times(Spec.of(message), now_ms)

    with pytest.raises(InvalidArgument) as caught:
        create()
    return caught.value


@pytest.mark.parametrize(
    ("text", "field", "rule"),
    [
        ("{}", "schedule.rule", "must be one of at, every, cron"),
        ('{"at": "2026-11-26T21:51:00Z"}', "schedule.at", "must not lie more than 60 s in the past"),
        ('{"at": "2100-01-01T00:00:00Z"}', "schedule.at", "must be a time from 1970 until before 2100"),
        ('{"at": "1969-12-31T00:00:00Z"}', "schedule.at", "must be a time from 1970 until before 2100"),
        ('{"at": "2027-01-01T00:00:00Z", "maxCount": 3}', "schedule.max_count", "only with every or cron"),
        ('{"at": "2027-01-01T00:00:00Z", "until": "2028-01-01T00:00:00Z"}', "schedule.until", "only with every or cron"),
        ('{"at": "2027-01-01T00:00:00Z", "misfire": 2}', "schedule.misfire", "only with every or cron"),
        ('{"every": {}}', "schedule.every.interval", "must be set"),
        ('{"every": {"interval": "9.999s"}}', "schedule.every.interval", "must be at least 10000 ms, the control plane's"),
        ('{"every": {"interval": "0.099s"}}', "schedule.every.interval", "must be at least 100 ms"),
        ('{"every": {"interval": "31622401s"}}', "schedule.every.interval", "must be at most 31622400000 ms"),
        ('{"every": {"interval": "60s", "start": "2100-01-01T00:00:00Z"}}', "schedule.every.start", "must be a time from"),
        ('{"every": {"interval": "60s"}, "until": "2026-11-26T00:00:00Z"}', "schedule.until", "must not lie before the first"),
        ('{"every": {"interval": "60s"}, "until": "2101-01-01T00:00:00Z"}', "schedule.until", "must be a time from"),
        ('{"cron": {}}', "schedule.cron.expression", "must not be empty"),
        ('{"cron": {"expression": "0 0 30 2 *"}}', "schedule.cron.expression", "must be a cron expression"),
        ('{"cron": {"expression": "0 0 */20 * 1L"}}', "schedule.cron.expression", "must have a time between now and"),
        ('{"cron": {"expression": "* * * *"}}', "schedule.cron.expression", "must have five fields"),
        ('{"cron": {"expression": "* * * * * *"}}', "schedule.cron.expression", "must have five fields"),
        ('{"cron": {"expression": "@daily"}}', "schedule.cron.expression", "must have five fields"),
        ('{"cron": {"expression": "61 * * * *"}}', "schedule.cron.expression", "must be a cron expression: Bad minute"),
        ('{"cron": {"expression": "* * * * *", "timeZone": "Mars/Base"}}', "schedule.cron.time_zone", "must be a name of the"),
        ('{"cron": {"expression": "* * * * *", "timeZone": "../UTC"}}', "schedule.cron.time_zone", "must be a name of the"),
        ('{"cron": {"expression": "* * * * *", "timeZone": "localtime"}}', "schedule.cron.time_zone", "must be a name of"),
        ('{"name": "no spaces", "every": {"interval": "60s"}}', "schedule.name", "must consist of"),
        ('{"stream": "No", "every": {"interval": "60s"}}', "schedule.stream", "must be DNS labels"),
        ('{"event": {"type": "no topic"}, "every": {"interval": "60s"}}', "schedule.event.type", "a topic, unless"),
        ('{"event": {"specVersion": ""}, "every": {"interval": "60s"}}', "schedule.event.spec_version", "must not be empty"),
        (
            '{"event": {"attributes": {"scheduledtime": {"ceString": "x"}}}, "every": {"interval": "60s"}}',
            "schedule.event.attributes[scheduledtime]",
            "is set by the control plane",
        ),
        (
            '{"event": {"attributes": {"notanattributenameatall": {"ceString": "x"}}}, "every": {"interval": "60s"}}',
            "schedule.event.attributes",
            "names have 1 to 20",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text: str, field: str, rule: str) -> None:
    message = schedule("{}")
    json_format.Parse(text, message)
    if '"specVersion": ""' in text:
        message.event.spec_version = ""
    [violation, *_] = refused(message).violations
    assert violation.field == field
    assert violation.rule.startswith(rule)
    assert violation.value


def test_an_event_is_bounded_by_bytes_and_attributes() -> None:
    message = schedule('{"every": {"interval": "60s"}}')
    message.event.binary_data = b"x" * EVENT_BYTES_MAX
    assert refused(message).violations[0].field == "schedule.event"
    message.event.binary_data = b"x" * (EVENT_BYTES_MAX - 100)
    check(message, interval_ms_min=10_000)
    message.event.binary_data = b""
    for n in range(64):
        message.event.attributes[f"a{n}"].ce_string = "x"
    assert "attributes" in refused(message).violations[0].field, "with scheduledtime it would have 65"


def test_one_minute_ago_is_taken() -> None:
    message = schedule("{}")
    message.at.FromMilliseconds(NOW - AT_LATE_MS_MAX)
    check_times(Spec.of(message), NOW)
    message.at.FromMilliseconds(NOW - AT_LATE_MS_MAX - 1)
    refused(message)


def test_a_time_between_two_milliseconds_is_the_later_one() -> None:
    message = schedule("{}")
    message.at.FromNanoseconds(NOW * 1_000_000 + 1)
    assert Spec.of(message).at_ms == NOW + 1


@given(
    rule=st.sampled_from([
        '{"at": "2027-01-01T00:00:00.250Z"}', '{"every": {"interval": "60s"}, "maxCount": 7, "misfire": 2}',
        '{"every": {"interval": "12.5s", "start": "2026-01-01T00:00:00Z"}, "until": "2030-01-01T00:00:00Z"}',
        '{"cron": {"expression": "*/5 * * * *", "timeZone": "Asia/Tokyo"}}', '{"cron": {"expression": "0 0 * * 1#2"}}',
    ]),
    source=st.text(min_size=1, max_size=5), key=st.text(max_size=5), stream=st.sampled_from(["", "events", "jobs"]),
)  # fmt: skip
def test_what_is_kept_of_a_schedule_says_the_same(rule: str, source: str, key: str, stream: str) -> None:
    message = schedule(rule, stream=stream)
    message.event.CopyFrom(event("an id that does not count", key=key, source=source))
    spec = Spec.of(message)
    assert Spec.of(spec.message()) == spec
    other = Schedule()
    other.CopyFrom(message)
    other.event.id = "another"
    assert Spec.of(other) == spec
    other.event.text_data = "other"
    assert Spec.of(other) != spec


@given(topic=st.one_of(st.none(), st.sampled_from(["a.b", "x"])))
def test_its_topic_is_what_the_stream_will_say(topic: str | None) -> None:
    one = event("x", topic="order.placed")
    if topic is not None:
        one.attributes["topic"].ce_string = topic
    assert topic_of(one) == scan_event(one.SerializeToString()).topic


@pytest.mark.parametrize("value", ["ce_integer", "ce_boolean"])
def test_a_topic_that_is_no_string_is_refused(value: str) -> None:
    message = schedule('{"every": {"interval": "60s"}}')
    setattr(message.event.attributes["topic"], value, 1 if value == "ce_integer" else True)
    assert refused(message).violations[0].field.startswith("schedule.event")


# Against what is there.


def refusal(world: World, kind: type[TrunklineError], make: Callable[[], Any]) -> Any:
    async def main() -> TrunklineError:
        async with world.running():
            with pytest.raises(kind) as caught:
                await make()
            return caught.value

    return virtual(main)


def test_another_configuration_is_refused_and_the_same_is_no_second_schedule() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as plane:
            every = Schedule.Interval()
            every.interval.FromSeconds(60)
            message = Schedule(namespace=NAMESPACE, name="s", event=event("a"), every=every)
            first, created = await plane.schedules.create(message, BY, allow=lambda _: None)
            message.event.id = "b"
            again, created_again = await plane.schedules.create(message, BY, allow=lambda _: None)
            assert (created, created_again, again) == (True, False, first)
            message.event.source = "/others"
            with pytest.raises(ScheduleExists):
                await plane.schedules.create(message, BY, allow=lambda _: None)

    virtual(main)


def test_a_repeated_request_is_answered_as_the_first_even_when_its_schedule_has_fired() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as plane:
            message = schedule("{}")
            message.at.FromMilliseconds(world.now_ms)
            origin = Origin(author="tests", request_id="once")
            first, created = await plane.schedules.create(message, origin, allow=lambda _: None)
            await asyncio.sleep(1)
            again, created_again = await plane.schedules.create(message, origin, allow=lambda _: None)
            assert (created, created_again) == (True, True)
            assert again.created_revision == first.created_revision
            await asyncio.sleep(5)
            assert len(await world.events()) == 1

    virtual(main)


def test_a_stream_has_to_be_there_and_to_take_events() -> None:
    async def missing() -> None:
        await world.create(at_ms=world.now_ms, stream="none")

    async def derived() -> None:
        await world.create(at_ms=world.now_ms, stream="changes")

    world = World()
    refusal(world, StreamNotFound, missing)
    refusal(world, NotSupported, derived)


def test_a_namespace_has_so_many_schedules_and_so_many_bytes() -> None:
    async def many() -> None:
        for n in range(4):
            await world.create(f"s-{n}", at_ms=world.now_ms + 60_000)

    world = World(schedules_per_namespace_max=3)
    assert refusal(world, LimitExceeded, many).fields == {"limit": "schedules_per_namespace_max", "value": "3"}
    world = World(event_bytes_per_namespace_max=90)
    assert refusal(world, LimitExceeded, many).fields["limit"] == "event_bytes_per_namespace_max"
