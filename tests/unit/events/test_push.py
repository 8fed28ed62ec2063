"""Publish, subscribe, acknowledge: a client's stream against the whole bus on the memory engine."""

from __future__ import annotations

import asyncio

from google.protobuf import duration_pb2

from reference.events_world import Ack, Client, Notice, World, places
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2

EARLIEST = events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(earliest=True))


def test_what_is_published_is_delivered_and_done_when_acknowledged() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            client = world.connect()
            await client.open(name="billing", config=EARLIEST)
            assert places(await world.publish("a", "b")) == [(0, 2, False)]
            await world.publish("c")
            got = await client.received(3)
            assert [(d.subscription_id, d.offset, d.attempt, d.event.id) for d in got] == [
                (1, 0, 1, "a"),
                (1, 1, 1, "b"),
                (1, 2, 1, "c"),
            ]
            assert [d.credit for d in got] == [999, 998, 997]
            assert client.kinds() == [Notice.KIND_OPENED]
            await client.ack(0, 1, 2)
            [state] = bus.subscriptions.states("shop", "events")
            assert (state.floor, state.in_flight, state.lag) == (3, 0, 0)

    virtual(main)


def test_done_stays_done_across_a_crash_and_the_rest_comes_again() -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=True):
            client = world.connect()
            await client.open(name="billing", config=EARLIEST)
            await world.publish("a", "b", "c", "d")
            await client.received(4)
            await client.ack(0, 2)
            await asyncio.sleep(0.2)
        async with world.running():
            client = world.connect()
            await client.open(name="billing")
            await client.received(2)
            await asyncio.sleep(1)
            assert client.attempts == [(1, 2), (3, 2)]

    virtual(main)


def test_what_is_not_acknowledged_in_time_is_delivered_again() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            client = world.connect()
            config = events_pb2.SubscriptionConfig(ack_deadline=duration_pb2.Duration(seconds=2))
            await client.open(name="billing", config=config)
            await world.publish("a")
            await client.received(1)
            await asyncio.sleep(1.9)
            assert client.attempts == [(0, 1)]
            await asyncio.sleep(0.2)
            assert client.attempts == [(0, 1), (0, 2)]

    virtual(main)


def test_refused_events_come_again_after_their_delay() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            client = world.connect()
            await client.open(name="billing", config=EARLIEST)
            await world.publish("a", "b")
            await client.received(2)
            await client.settle(Ack.OUTCOME_NACK, 0, delay_s=10)
            await client.settle(Ack.OUTCOME_NACK, 1)
            await asyncio.sleep(9)
            assert client.attempts == [(0, 1), (1, 1), (1, 2)]
            await asyncio.sleep(1.2)
            assert client.attempts[3:] == [(0, 2)]

    virtual(main)


def test_a_stall_of_the_server_redelivers_nothing_and_moves_deadlines_by_its_length() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            client = world.connect()
            config = events_pb2.SubscriptionConfig(ack_deadline=duration_pb2.Duration(seconds=2))
            await client.open(name="billing", config=config)
            await world.publish("a", "b", "c")
            await client.received(3)
            await asyncio.sleep(1)
            world.clock.skip(60_000_000_000)
            await client.ack(1)
            await asyncio.sleep(0.7)
            assert client.attempts == [(0, 1), (1, 1), (2, 1)], "the stall is nobody's fault"
            assert 59.5e9 < bus.attention.stood_still_ns <= 60e9
            await client.ack(2)
            await client.received(4)
            assert client.attempts[3:] == [(0, 2)]
            assert await later(client, 2.1) == [(0, 3)], "the clock of deadlines goes on as before"

    virtual(main)


async def later(client: Client, seconds: float) -> list[tuple[int, int]]:
    """What comes within a time."""
    had = len(client.attempts)
    await asyncio.sleep(seconds)
    return client.attempts[had:]


def test_what_has_to_be_read_again_before_it_is_sent_keeps_its_place() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            client = world.connect()
            await client.open(name="billing", config=EARLIEST, credit=0)
            for number in range(6):
                await world.publish(f"e{number}")
            await asyncio.sleep(1)
            await client.give(1)
            await client.received(1)  # so that the others have been looked at
            stream = bus.streams.peek("shop", "events")
            assert stream is not None
            cache = stream.dispatcher.cache
            blocks = [block for offset in range(3, 6) if (block := cache.find(offset)) is not None]
            cache.clear()
            for block in blocks:  # of those that come next the first have gone from memory
                cache.put(block)
            await client.give(5)
            await client.received(6)
            assert client.offsets == list(range(6))

    virtual(main)
