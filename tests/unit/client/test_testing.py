"""What users' tests stand on behaves as it says."""

from __future__ import annotations

import asyncio

import pytest

from trunkline.client import Event
from trunkline.client.testing import FakeControlPlane, FakeTrunkline
from trunkline.core.errors import InstanceNotFound


async def test_a_users_test_in_ten_lines() -> None:
    async with FakeTrunkline() as trunkline:
        async with await trunkline.register("orders", id="o-1", port=50051):
            view = await trunkline.watch("orders")
            assert [one.instance.id for one in view.instances] == ["o-1"]
        await trunkline.publish(Event(type="order.placed", data="7"))
        async for delivery in trunkline.subscribe("billing", start="earliest"):
            assert delivery.event.data == "7"
            delivery.ack()
            break
        assert trunkline.plane.stream().next_offset == 1


async def test_time_moves_when_the_test_says_so() -> None:
    async with FakeTrunkline() as trunkline:
        await trunkline.publish(Event(type="a"))
        subscription = trunkline.subscribe("billing", start="earliest", ack_deadline_s=10)
        first = await subscription.next()
        assert first is not None
        waiting = asyncio.ensure_future(subscription.next())
        trunkline.plane.advance(9)
        await asyncio.sleep(0.01)
        assert not waiting.done()
        waiting.cancel()


async def test_a_deadline_that_passes_brings_the_event_to_another_consumer() -> None:
    plane = FakeControlPlane()
    async with plane.connect() as one, plane.connect() as other:
        await one.publish(Event(type="a"))
        held = await one.subscribe("billing", start="earliest", ack_deadline_s=10, credit=1).next()
        assert held is not None
        rescue = other.subscribe("billing")
        await rescue.opened()
        plane.advance(11)
        again = await rescue.next()
        assert again is not None
        assert (again.offset, again.attempt) == (held.offset, 2)


async def test_a_lease_that_nobody_keeps_lapses_and_the_last_one_turns_stale() -> None:
    plane = FakeControlPlane()
    async with plane.connect() as trunkline:
        for index in range(2):
            await trunkline.register("orders", id=f"o-{index}", port=index + 1, ttl_s=10)
        view = await trunkline.watch("orders")
        plane._registrations.kept.clear()  # as if the process had died
        plane.advance(11)
        async for _ in view.changes():
            if len(view.instances) == 1:
                break
        assert view.instances[0].status.name == "STALE"


async def test_ending_what_is_not_there_says_so() -> None:
    with pytest.raises(InstanceNotFound):
        FakeControlPlane().end_lease("orders", "nobody")
