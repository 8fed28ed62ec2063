"""What control is told of schedules, and what of them is found in a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from reference.events_world import BY
from reference.registry_world import LoopClock, virtual
from reference.schedules_world import NAMESPACE, World
from trunkline.core.errors import NotReady
from trunkline.core.records import Change
from trunkline.server.journal.control.sequencer import Written
from trunkline.server.schedules import published
from trunkline.server.schedules.fold import Fired, ScheduleEntity
from trunkline.server.schedules.planner import Live, Pace
from trunkline.server.schedules.published import find_published
from trunkline.server.schedules.remembering import Remembering
from trunkline.server.schedules.spec import Spec

PACE = Pace(misfire_after_ms=10_000, remember_ms=60_000, retry_ms_max=30_000)


class Writer:
    """Takes what is decided, or refuses."""

    def __init__(self, there: ScheduleEntity | None) -> None:
        self.there = there
        self.refusals = 0
        self.written: list[Change] = []
        self.revision = 1

    def get(self, key: str) -> ScheduleEntity | None:
        return self.there

    async def write(self, decide: Any, origin: Any, *, deadline_ns: int | None = None) -> Written:
        if self.refusals:
            self.refusals -= 1
            raise NotReady("the control stream is being recovered")
        changes: Sequence[Change] = decide(self)
        self.written += changes
        return Written(1)


def entity(revision: int = 7, **more: Any) -> ScheduleEntity:
    spec = Spec(namespace="shop", name="s", stream="events", event=b"", topic="t", interval_ms=10_000, **more)
    return ScheduleEntity(spec=spec, created_ms=0, created_revision=revision, fired=Fired(handled_ms=0))


def told(live: Live, writer: Writer, *, for_s: float = 30) -> list[str]:
    async def main() -> list[str]:
        remembering = Remembering(writer, LoopClock())
        if live.remember(0):
            remembering.add(live)
        task = asyncio.create_task(remembering.run())
        await asyncio.sleep(for_s)
        task.cancel()
        return [change.topic for change in writer.written]

    return virtual(main)


def test_it_is_told_until_it_is_written_and_then_not_again() -> None:
    live = Live(entity(), PACE, attempted_ms=0)
    live.published(10_000, 3)
    writer = Writer(live.entity)
    writer.refusals = 4
    assert told(live, writer) == ["schedule.fired"]
    assert not live.owes


def test_the_end_is_told_by_deleting() -> None:
    live = Live(entity(max_count=1), PACE, attempted_ms=0)
    live.published(10_000, 3)
    assert told(live, Writer(live.entity)) == ["schedule.deleted"]


@pytest.mark.parametrize("there", [None, entity(8)])
def test_nothing_is_told_of_one_that_is_gone_or_another_by_now(there: ScheduleEntity | None) -> None:
    live = Live(entity(max_count=1), PACE, attempted_ms=0)
    live.published(10_000, 3)
    assert told(live, Writer(there)) == []


def test_an_event_with_the_hash_of_another_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        world = World()
        async with world.running() as plane:
            await world.create("s", at_ms=world.now_ms)
            await asyncio.sleep(1)
            [one] = await world.events()
            stream = await plane.events.streams.get(NAMESPACE, "", BY)
            mine, other = (one.source.encode(), one.id.encode()), (b"/others", b"id")
            assert await find_published(stream, {mine, other}, from_ms=0) == {mine: 0}
            assert await find_published(stream, {mine}, from_ms=world.now_ms) == {}
            real = published._hash_of
            monkeypatch.setattr(published, "_hash_of", lambda identity: real(mine if identity == other else identity))
            assert await find_published(stream, {other}, from_ms=0) == {}

    virtual(main)


def test_a_schedule_of_the_same_name_publishes_its_own_events() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            at_ms = world.now_ms + 1_000
            for _ in range(2):
                await world.create("s", at_ms=at_ms)
                await asyncio.sleep(2)
            first, second = [one.id for one in await world.events()]
            assert first != second

    virtual(main)


def test_a_live_schedule_is_asked_for_nothing_when_its_fired_times_are_known() -> None:
    known = replace(entity(), fired=Fired(handled_ms=40_000, fired_ms=40_000, count=4))
    assert Live(known, PACE, attempted_ms=40_000).attempted() == []
    assert Live(known, PACE, attempted_ms=65_000).attempted() == [50_000, 60_000]
