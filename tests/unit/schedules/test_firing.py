"""Schedules of a whole control plane in virtual time: fired, remembered, gone on with after crashes and disk faults."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reference.events_world import BY, event
from reference.registry_world import virtual
from reference.schedules_world import NAMESPACE, Schedule, World
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import OutcomeUnknown, StreamClosed
from trunkline.core.records import Record
from trunkline.server.events.stream import EventStream


def topics(records: list[Record]) -> list[str]:
    return [record.topic for record in records if record.topic.startswith("schedule.")]


async def told(world: World) -> list[str]:
    """What control was told of schedules."""
    found: list[Record] = []
    log = world.plane.control.log
    offset = log.first_offset
    while blocks := await log.read(offset, max_bytes=1 << 20):
        for block in blocks:
            found += map(block.record, range(block.count))
            offset = block.end_offset
    return topics(found)


def test_what_is_due_is_published_and_gone() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            at_ms = world.now_ms + 5_000
            state = await world.create("once", at_ms=at_ms)
            assert state.next_time.ToMilliseconds() == at_ms
            await asyncio.sleep(4.9)
            assert await world.events() == []
            await asyncio.sleep(0.2)
            [published] = await world.events()
            assert published.id == f"once/{state.created_revision}/{at_ms}"
            assert published.source == "/tests"
            assert published.type == "due.once"
            assert published.attributes["scheduledtime"].ce_timestamp.ToMilliseconds() == at_ms
            assert await world.states() == {}
            assert await told(world) == ["schedule.created", "schedule.deleted"]

    virtual(main)


def test_an_interval_counts_from_its_start_and_ends() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            made = world.now_ms
            await world.create("three", every_s=10, max_count=3)
            until = Schedule()
            until.until.FromMilliseconds(made + 45_000)
            await world.create("four", every_s=10, until=until.until)
            await asyncio.sleep(35)
            assert (await world.states()).keys() == {"four"}
            state = (await world.states())["four"]
            assert (state.fired_count, state.last_time.ToMilliseconds()) == (3, made + 30_000)
            assert (await world.events())[state.last_offset].type == "due.four"
            await asyncio.sleep(100)
            assert await world.states() == {}
            assert sorted(await world.due()) == [
                *(("four", made + n * 10_000) for n in range(1, 5)), *(("three", made + n * 10_000) for n in range(1, 4))
            ]  # fmt: skip

    virtual(main)


def test_the_next_time_is_not_waited_for_until_the_next_look() -> None:
    async def main() -> None:
        world = World(interval_s_min=0.1, look_interval_s=100)
        async with world.running():
            made = world.now_ms
            await world.create("fast", every_s=0.25)
            await asyncio.sleep(5.1)
            assert await world.due() == [("fast", made + n * 250) for n in range(1, 21)]

    virtual(main)


def test_a_calendar_rule_goes_by_the_zone() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            # It is 2023-11-14 22:13:20 UTC.
            cron = Schedule.Calendar(expression="30 4 * * *", time_zone="Asia/Kathmandu")
            state = await world.create("daily", cron=cron)
            assert state.next_time.ToDatetime().isoformat() == "2023-11-14T22:45:00"
            for _ in range(3):
                await world.jump(86_400)
            assert [due % 86_400_000 for _, due in await world.due()] == [(22 * 60 + 45) * 60_000] * 3

    virtual(main)


@pytest.mark.parametrize("window_ms", [0, 120_000])
@pytest.mark.parametrize("down_s", [0, 3_600])
def test_a_crash_between_publishing_and_remembering_publishes_nothing_twice(window_ms: int, down_s: int) -> None:
    """Whatever the stream recognises by itself, and however long the server was down."""

    async def main() -> None:
        world = World()
        async with world.running(crash=True) as plane:
            config = events_pb2.StreamConfig(namespace=NAMESPACE, name="jobs")
            config.dedupe_window.FromMilliseconds(window_ms)
            await plane.events.streams.create(config, BY)
            await world.create("once", at_ms=world.now_ms + 1_000, stream="jobs")
            await world.until_published(stream="jobs")
        await asyncio.sleep(down_s)
        async with world.running() as plane:
            assert plane.control.folds.get(f"schedule/{NAMESPACE}/once") is not None, (
                "it was remembered: nothing is tested"
            )
            await asyncio.sleep(5)
            assert len(await world.events("jobs")) == 1
            assert await world.states() == {}

    virtual(main)


def test_what_a_fast_schedule_fired_since_control_was_told_is_found_in_the_stream() -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=True):
            made = world.now_ms
            await world.create("fast", every_s=10)
            await asyncio.sleep(58)
            assert await told(world) == ["schedule.created", "schedule.fired"]
            before = (await world.states())["fast"]
            assert before.fired_count == 5
        async with world.running() as plane:
            assert plane.control.folds.get(f"schedule/{NAMESPACE}/fast").fired.count == 1  # type: ignore[union-attr]
            await asyncio.sleep(5)
            after = (await world.states())["fast"]
            assert after.fired_count == 6
            assert await world.due() == [("fast", made + n * 10_000) for n in range(1, 7)]

    virtual(main)


@pytest.mark.parametrize("skips", [False, True])
def test_what_was_missed_is_made_good_for_once_or_not_at_all(skips: bool) -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            made = world.now_ms
            misfire = Schedule.MISFIRE_SKIP if skips else Schedule.MISFIRE_FIRE_ONCE
            await world.create("often", every_s=60, misfire=misfire)
            await world.create("once", at_ms=made + 100_000)
        await asyncio.sleep(1_000)
        async with world.running():
            await asyncio.sleep(1)
            missed = [] if skips else [("often", made + 960_000)]
            assert sorted(await world.due()) == sorted([("once", made + 100_000), *missed])
            await asyncio.sleep(60)
            assert (await world.due())[-1] == ("often", made + 1_020_000)

    virtual(main)


def test_a_clock_that_is_set_forward_is_noticed_and_one_that_is_set_back_repeats_nothing() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            made = world.now_ms
            await world.create("late", at_ms=made + 3_600_000)
            await world.create("often", every_s=60)
            await world.jump(3_700)
            assert sorted(await world.due()) == [("late", made + 3_600_000), ("often", made + 3_660_000)]
            await world.jump(-3_700)
            await asyncio.sleep(130)
            assert len(await world.due()) == 2
            await world.jump(3_500)
            await asyncio.sleep(130)
            assert len(await world.due()) > 2
            assert len({one.id for one in await world.events()}) == len(await world.due())

    virtual(main)


def test_a_publish_whose_end_is_not_known_is_looked_for_before_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        world = World()
        publish, ends = EventStream.publish, ["lost", "refused", "lost"]

        async def losing(self: EventStream, scan: Any, *, require_sync: int) -> Any:
            end = ends.pop() if ends else ""
            if end != "refused":
                await publish(self, scan, require_sync=require_sync)
            if end:
                raise OutcomeUnknown("lost") if end == "lost" else StreamClosed("closed")
            return await publish(self, scan, require_sync=require_sync)

        monkeypatch.setattr(EventStream, "publish", losing)
        async with world.running() as plane:
            config = events_pb2.StreamConfig(namespace=NAMESPACE, name="jobs")
            config.dedupe_window.FromMilliseconds(0)
            await plane.events.streams.create(config, BY)
            await world.create("a", at_ms=world.now_ms + 1_000, stream="jobs")
            await world.create("b", at_ms=world.now_ms + 1_000, stream="jobs")
            await asyncio.sleep(30)
            assert sorted(name for name, _ in await world.due("jobs")) == ["a", "b"]
            assert await world.states() == {}

    virtual(main)


def test_a_stream_that_is_gone_is_told_and_published_to_when_it_is_there_again() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as plane:
            config = events_pb2.StreamConfig(namespace=NAMESPACE, name="jobs")
            await plane.events.streams.create(config, BY)
            await world.create("job", at_ms=world.now_ms + 1_000, stream="jobs")
            await world.create("other", at_ms=world.now_ms + 1_000)
            await plane.events.streams.delete(NAMESPACE, "jobs", BY)
            await asyncio.sleep(10)
            assert [name for name, _ in await world.due()] == ["other"]
            assert (await world.states())["job"].last_error == "no stream jobs in shop"
            [alarm] = plane.schedules.alarms()
            assert (alarm.name, alarm.namespace, alarm.subject) == ("SCHEDULES_FAILED", "shop", "jobs")
            assert plane.schedules.metrics()["failing"] == 1
            await plane.events.streams.create(config, BY)
            await asyncio.sleep(31)
            assert [name for name, _ in await world.due("jobs")] == ["job"]
            assert plane.schedules.alarms() == []

    virtual(main)


def test_one_that_cannot_be_published_any_more_does_not_hold_up_the_others() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as plane:
            for name in ("a", "bad", "c"):
                await world.create(name, at_ms=world.now_ms + 1_000)
            live = plane.schedules._firing.planner.get(f"schedule/{NAMESPACE}/bad")
            assert live is not None
            spec = live.entity.spec
            object.__setattr__(spec, "event", event("", topic="no topic").SerializeToString())
            await asyncio.sleep(5)
            assert sorted(name for name, _ in await world.due()) == ["a", "c"]
            assert "event" in (await world.states())["bad"].last_error

    virtual(main)


def test_what_is_deleted_is_not_published() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as plane:
            await world.create("gone", at_ms=world.now_ms + 1_000)
            await plane.schedules.delete(NAMESPACE, "gone", BY, allow=lambda _spec: None)
            await world.create("gone", at_ms=world.now_ms + 2_000)
            await asyncio.sleep(10)
            assert [due for _, due in await world.due()] == [world.now_ms - 8_000]

    virtual(main)


def test_thousands_that_are_due_at_once_are_published_in_a_few_appends() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as plane:
            at_ms = world.now_ms + 60_000
            await asyncio.gather(*(world.create(f"s-{n}", at_ms=at_ms) for n in range(2_000)))
            await asyncio.sleep(61)
            assert len({name for name, _ in await world.due()}) == 2_000
            stream = plane.events.streams.peek(NAMESPACE, "events")
            assert stream is not None
            blocks = await stream.event_log.log.read(0, max_bytes=1 << 24)
            assert len(blocks) <= 25
            assert await world.states() == {}
            assert len(plane.schedules._firing.planner._heap) < 100

    virtual(main)


def test_a_zone_that_a_later_program_does_not_know_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await world.create("daily", cron=Schedule.Calendar(expression="0 5 * * *", time_zone="Europe/Berlin"))
        monkeypatch.setattr("trunkline.server.schedules.rule._zone_names", lambda: frozenset({"UTC"}))
        async with world.running():
            await world.jump(2 * 86_400)
            state = (await world.states())["daily"]
            assert state.last_error.startswith("time_zone:")
            assert not state.HasField("next_time")
        monkeypatch.undo()
        async with world.running():
            assert len(await world.due()) == 0
            await asyncio.sleep(2)
            assert len(await world.due()) == 1
            await world.jump(86_400)
            assert len(await world.due()) == 2

    virtual(main)
