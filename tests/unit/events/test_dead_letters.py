"""Dead letters: each event once, whatever crashes between its publish and the checkpoint that says so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reference.events_world import BY, Ack, World, event, publish_request
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import InvalidArgument, StreamNotFound
from trunkline.server.events.feed import Feed
from trunkline.server.events.operations import redeliver

CONFIG = events_pb2.SubscriptionConfig(
    start=events_pb2.StartPosition(earliest=True), max_deliveries=2, dead_letter_stream="dead"
)


async def dead_stream(world: World, **config: Any) -> None:
    request = events_pb2.StreamConfig(namespace="shop", name="dead", **config)
    await world.bus.streams.create(request, BY)


async def letters(world: World) -> list[events_pb2.CloudEvent]:
    stream = await world.bus.streams.get("shop", "dead", BY)
    found = []
    for offset in range(stream.dispatcher.end):
        body = await stream.dispatcher.event_at(offset)
        assert body is not None
        found.append(events_pb2.CloudEvent.FromString(bytes(body)))
    return found


async def until_letters(world: World, count: int) -> list[events_pb2.CloudEvent]:
    async with asyncio.timeout(90):
        while True:
            found = await letters(world)
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


def feed_of(world: World) -> Feed:
    stream = world.bus.streams.peek("shop", "events")
    assert stream is not None
    return stream.feeds["billing"]


def text(event: events_pb2.CloudEvent, name: str) -> str:
    return event.attributes[name].ce_string


def test_a_dead_letter_is_the_event_and_says_what_became_of_it() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            await dead_stream(world)
            poison = event("poison", topic="shop.order.placed", key="customer-1", data=b"\x00")
            await world.publishing.publish(publish_request([poison, event("stop")]), BY, lambda _: None)
            client = world.connect()
            await client.open(name="billing", config=CONFIG)
            await client.received(2)
            await client.settle(Ack.OUTCOME_NACK, 0, reason="ValueError: no")
            await client.received(3)
            await client.settle(Ack.OUTCOME_NACK, 0, reason="ValueError: still no")
            await client.settle(Ack.OUTCOME_TERM, 1, reason="unwanted")
            first, second = await until_letters(world, 2)
            assert (first.type, first.binary_data, text(first, "partitionkey")) == (
                "shop.order.placed",
                b"\0",
                "customer-1",
            )
            assert (text(first, "dlsource"), text(first, "dlid")) == ("/tests", "poison")
            assert text(first, "dlreason").endswith("ValueError: still no")
            assert first.attributes["dlattempts"].ce_integer == 2
            assert (text(first, "dlstream"), text(first, "dlsubscription"), text(first, "dloffset")) == (
                "events",
                "billing",
                "0",
            )
            assert text(second, "dlreason") == "unwanted"
            assert first.source == second.source == "/trunkline/shop/events/billing"
            assert first.id != second.id
            await asyncio.sleep(1)
            [state] = bus.subscriptions.states("shop", "events")
            assert (state.floor, state.set_aside, state.dead_lettered, state.lag) == (2, 0, 2, 0)
            assert [alarm.name for alarm in bus.alarms()] == ["EVENTS_DEAD_LETTERED"]

    virtual(main)


@pytest.mark.parametrize("window_passes", [False, True])
@pytest.mark.parametrize("by", ["term", "deliveries"])
def test_a_crash_between_publish_and_checkpoint_makes_no_second_letter(by: str, window_passes: bool) -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=True) as bus:
            await dead_stream(world)
            await world.publish("poison", "good")
            client = world.connect()
            await client.open(name="billing", config=CONFIG)
            await client.received(2)
            if by == "deliveries":
                await client.settle(Ack.OUTCOME_NACK, 0)
                await client.received(3)
            await asyncio.sleep(1)
            feed_of(world)._checkpoint = None  # whatever comes now is lost in the crash
            await client.settle(Ack.OUTCOME_NACK if by == "deliveries" else Ack.OUTCOME_TERM, 0)
            await until_letters(world, 1)
        if window_passes:
            await asyncio.sleep(600)
        async with world.running() as bus:
            client = world.connect()
            await client.open(name="billing")
            if by == "term":  # no checkpoint knows of it
                await client.received(2)
                assert (0, 2) in client.attempts
                await client.settle(Ack.OUTCOME_TERM, 0)
            await asyncio.sleep(2)
            assert len(await letters(world)) == 1
            [state] = bus.subscriptions.states("shop", "events")
            assert (state.set_aside, state.dead_lettered) == (0, 1)

    virtual(main)


def test_what_is_redelivered_and_fails_again_gets_another_letter() -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=True) as bus:
            await dead_stream(world)
            await world.publish("poison", "good")
            client = world.connect()
            await client.open(name="billing", config=CONFIG)
            await client.received(2)
            await client.ack(1)
            await client.settle(Ack.OUTCOME_TERM, 0)
            await until_letters(world, 1)
            stream = await bus.streams.get("shop", "", BY)
            found = await redeliver(stream, feed_of(world), [0, 1, 7], bus.checkpoints, bus.dead_letters)
            assert found == ([0, 1], [7], [])
            assert bus.alarms() == []
            await client.received(4)
            assert client.attempts[2:] == [(0, 1), (1, 1)]
            found = await redeliver(stream, feed_of(world), [0], bus.checkpoints, bus.dead_letters)
            assert found == ([], [], [0])
        async with world.running():
            client = world.connect()
            await client.open(name="billing")
            await client.received(2)
            assert sorted(client.attempts) == [(0, 2), (1, 2)]
            await client.settle(Ack.OUTCOME_TERM, 0)
            await client.ack(1)
            first, second = await until_letters(world, 2)
            assert first.id != second.id
            assert text(first, "dloffset") == text(second, "dloffset") == "0"

    virtual(main)


def test_letters_wait_for_a_stream_that_takes_none_and_for_those_alone() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            await dead_stream(world)
            client = world.connect()
            await client.open(name="billing", config=CONFIG)
            await bus.streams.delete("shop", "dead", BY)
            await world.publish("poison")
            await client.received(1)
            await client.settle(Ack.OUTCOME_TERM, 0)
            await asyncio.sleep(10)
            assert [alarm.name for alarm in bus.alarms()] == ["EVENTS_SET_ASIDE"]
            assert bus.dead_letters.failures[feed_of(world)].code == "STREAM_NOT_FOUND"
            await dead_stream(world)
            assert len(await until_letters(world, 1)) == 1
            await asyncio.sleep(1)
            assert bus.dead_letters.failures == {}

    virtual(main)


def test_an_event_that_is_too_large_with_what_is_added_stays_set_aside() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            await dead_stream(world)
            large = event("large", data=bytes((1 << 20) - 200))
            crowded = event("crowded")
            for number in range(60):
                crowded.attributes[f"a{number}"].ce_integer = number
            await world.publishing.publish(publish_request([large, crowded, event("fits")]), BY, lambda _: None)
            client = world.connect()
            await client.open(name="billing", config=CONFIG)
            await client.received(3)
            await client.settle(Ack.OUTCOME_TERM, 0, 1, 2)
            [letter] = await until_letters(world, 1)
            assert text(letter, "dlid") == "fits"
            await asyncio.sleep(5)
            assert sorted(feed_of(world).state.set_aside) == [0, 1]
            assert {alarm.name for alarm in bus.alarms()} == {"EVENTS_SET_ASIDE", "EVENTS_DEAD_LETTERED"}

    virtual(main)


def test_a_stream_that_is_not_there_or_the_subscriptions_own_is_refused() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            stream = await bus.streams.get("shop", "", BY)
            with pytest.raises(StreamNotFound):
                await bus.subscriptions.create(stream, "billing", CONFIG, BY)
            for name in ("events", "changes"):
                config = events_pb2.SubscriptionConfig(dead_letter_stream=name)
                with pytest.raises(InvalidArgument) as refused:
                    await bus.subscriptions.create(stream, "billing", config, BY)
                assert refused.value.violations[0].field == "config.dead_letter_stream"
            assert bus.subscriptions.states("shop", "") == []

    virtual(main)


def test_a_stream_that_hangs_does_not_keep_another_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            await dead_stream(world)
            await bus.streams.create(events_pb2.StreamConfig(namespace="shop", name="hangs"), BY)
            hanging = await bus.streams.get("shop", "hangs", BY)
            monkeypatch.setattr(hanging.event_log, "publish", lambda *_, **__: asyncio.Event().wait())
            slow, quick = world.connect(), world.connect()
            config = events_pb2.SubscriptionConfig(dead_letter_stream="hangs")
            await slow.open(name="slow", config=config)
            await quick.open(name="billing", config=CONFIG)
            await world.publish("poison")
            await slow.received(1)
            await slow.settle(Ack.OUTCOME_TERM, 0)
            await asyncio.sleep(1)
            await quick.received(1)
            await quick.settle(Ack.OUTCOME_TERM, 0)
            assert len(await until_letters(world, 1)) == 1
            stream = await bus.streams.get("shop", "", BY)
            assert bus.dead_letters.failures[stream.feeds["slow"]].code == "DEADLINE_EXCEEDED"
            assert list(stream.feeds["slow"].state.set_aside) == [0]

    virtual(main)
