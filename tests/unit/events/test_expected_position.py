"""A publish that expects a position: appended there or not at all, whatever is on its way."""

from __future__ import annotations

import asyncio

import pytest

from reference.events_world import World, places
from reference.registry_world import virtual
from trunkline.core.errors import OutcomeUnknown, PositionMismatch


def test_it_is_appended_where_it_was_expected_or_not_at_all() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            assert places(await world.publish("a", "b", expected_offset=0)) == [(0, 2, False)]
            with pytest.raises(PositionMismatch) as refused:
                await world.publish("c", expected_offset=1)
            assert refused.value.fields["next"] == "2"
            with pytest.raises(PositionMismatch):
                await world.publish("c", expected_offset=3)
            assert places(await world.publish("c", expected_offset=2)) == [(2, 1, False)]

    virtual(main)


def test_a_repeat_is_answered_with_the_first_ones_place() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await world.publish("a", "b", expected_offset=0)
            assert places(await world.publish("a", "b", expected_offset=0)) == [(0, 2, True)]
            with pytest.raises(PositionMismatch):
                await world.publish("b", "new", expected_offset=1)
            assert places(await world.publish("b", "new", expected_offset=2)) == [(1, 1, True), (2, 1, False)]

    virtual(main)


def test_of_many_that_expect_the_same_place_one_gets_it() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            await world.publish("first")
            tried = await asyncio.gather(
                *(world.publish(f"e{n}", expected_offset=1) for n in range(20)), return_exceptions=True
            )
            assert sum(isinstance(one, PositionMismatch) for one in tried) == 19
            stream = bus.streams.peek("shop", "events")
            assert stream is not None
            assert stream.dispatcher.end == 2

    virtual(main)


def test_it_is_not_refused_for_one_that_fails() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            await world.publish("first")
            stream = bus.streams.peek("shop", "events")
            assert stream is not None
            log = stream.event_log
            ahead = asyncio.ensure_future(world.publish("ahead", expected_offset=1))
            behind = asyncio.ensure_future(world.publish("behind", expected_offset=1))
            await asyncio.sleep(0)
            [pending] = log._pending.values()
            assert not behind.done()
            queued = log.log._queue  # type: ignore[attr-defined]
            for one in queued.drop(1, queued.last_time_ns):
                one.refuse(OutcomeUnknown("the disk failed"))
            assert pending.future.done()
            with pytest.raises(OutcomeUnknown):
                await ahead
            assert places(await behind) == [(1, 1, False)]

    virtual(main)
