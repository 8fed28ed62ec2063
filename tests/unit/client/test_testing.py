"""What users' tests stand on behaves as it says."""

from __future__ import annotations

import asyncio

import pytest

from trunkline.api.v1 import events_pb2
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


async def test_the_latest_of_each_key_and_then_all_that_is_new() -> None:
    async with FakeTrunkline() as trunkline:
        keys = ["a", "b", "", "a"]
        await trunkline.publish([Event(type="price", key=key, data=str(n)) for n, key in enumerate(keys)])
        async with trunkline.subscribe("billing", start="last_per_key", acknowledge=True) as prices:
            assert [one.offset for one in [await prices.next() for _ in range(2)] if one] == [1, 3]
            await trunkline.publish([Event(type="price", key="a"), Event(type="price")])
            assert [one.offset for one in [await prices.next() for _ in range(2)] if one] == [4, 5]
        async with trunkline.subscribe(start="last_per_key", acknowledge=False, filters=["price"]) as prices:
            assert [one.offset for one in [await prices.next() for _ in range(2)] if one] == [1, 4]


async def test_a_stream_that_is_to_be_compacted_keeps_everything_as_a_young_one_does() -> None:
    async with FakeTrunkline() as trunkline:
        config = events_pb2.StreamConfig(namespace="default", name="prices")
        config.compaction.SetInParent()
        await trunkline.call(
            lambda stubs: stubs.events.CreateStream,
            events_pb2.CreateStreamRequest(stream=config),
            events_pb2.CreateStreamResponse,
        )
        await trunkline.publish([Event(type="price", key="a") for _ in range(3)], stream="prices")
        async with trunkline.subscribe(stream="prices", start="earliest", acknowledge=False) as prices:
            assert [one.offset for one in [await prices.next() for _ in range(3)] if one] == [0, 1, 2]
