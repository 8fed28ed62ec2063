"""A lane that is stuck is parked: the others go on, memory stays bounded, and its events come in their order later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from reference.events_world import BY, Ack, Client, World, event, publish_request
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2
from trunkline.server.events.bounds import LookAhead
from trunkline.server.events.explain import Cause, explain
from trunkline.server.events.feed import Feed

CONFIG = events_pb2.SubscriptionConfig(
    start=events_pb2.StartPosition(earliest=True), ordering=events_pb2.SubscriptionConfig.ORDERING_KEYED
)
EVENTS = 3_000


def low(**more: int) -> World:
    return World(look_ahead=LookAhead(look_ahead_max=500, ready_max=100, readmit_max=16, **more))


def feed_of(world: World) -> Feed:
    stream = world.bus.streams.peek("shop", "events")
    assert stream is not None
    return stream.feeds["billing"]


async def publish(world: World, key_of: Callable[[int], str], *, first: int = 0, count: int = EVENTS) -> None:
    for start in range(first, first + count, 100):
        events = [event(f"e{n}", key=key_of(n)) for n in range(start, start + 100)]
        await world.publishing.publish(publish_request(events), BY, lambda _: None)


class Worker:
    """Acknowledges what comes, but for what it is to be stuck with."""

    def __init__(self, world: World, client: Client, stuck: set[int]) -> None:
        self.client = client
        self.done: list[int] = []
        self._world = world
        self._stuck = stuck
        self._seen = 0

    async def work(self) -> None:
        """Until nothing comes for a while."""
        quiet = 0
        while quiet < 20:
            new = self.client.deliveries[self._seen :]
            self._seen += len(new)
            good = [d.offset for d in new if d.offset not in self._stuck]
            self.done += good
            if good:
                await self.client.ack(*good)
            if new:
                await self.client.give(len(new))
            quiet = 0 if new else quiet + 1
            await asyncio.sleep(0.02)


def hot(n: int) -> str:
    return "hot" if n % 2 == 0 else f"k{n % 50}"


async def opened(world: World) -> Client:
    client = world.connect()
    await client.open(name="billing", config=CONFIG)
    return client


@pytest.mark.parametrize("crash", [None, True, False])
def test_a_stuck_key_holds_nobody_and_comes_in_order_later(crash: bool | None) -> None:
    async def main() -> None:
        world = low()
        hots = [n for n in range(EVENTS) if n % 2 == 0]
        async with world.running(crash=crash is True):
            client = await opened(world)
            await publish(world, hot)
            worker = Worker(world, client, {0})
            await worker.work()
            for key in range(1, 50, 2):
                mine = [n for n in worker.done if n % 50 == key]
                assert mine == sorted(mine)
            assert set(worker.done) == set(range(EVENTS)) - set(hots)
            state = feed_of(world).state
            assert (state.parked, state.floor) == (1, EVENTS)
            assert state.held < 500, "what is parked is in memory"
            if crash is None:
                await client.ack(0)
                await worker.work()
                assert [n for n in worker.done if n in hots] == hots[1:]
                assert (state.parked, state.floor, state.waiting) == (0, EVENTS, 0)
                return
        async with world.running():
            client = await opened(world)
            worker = Worker(world, client, set())
            await worker.work()
            assert [n for n in worker.done if n % 2 == 0] == hots
            state = feed_of(world).state
            assert (state.parked, state.floor, state.waiting) == (0, EVENTS, 0)

    virtual(main)


def test_a_lane_that_is_stuck_for_a_minute_is_parked_however_short_it_is() -> None:
    async def main() -> None:
        world = low()
        async with world.running() as bus:
            client = await opened(world)
            await publish(world, lambda n: "a" if n < 3 else "", count=100)
            worker = Worker(world, client, {0})
            await worker.work()
            state = feed_of(world).state
            for _ in range(4):
                await asyncio.sleep(20)
                await client.settle(Ack.OUTCOME_PROGRESS, 0)
            assert (state.parked, state.held, state.floor) == (1, 0, 100)
            await publish(world, lambda n: "a", first=100, count=100)
            await worker.work()
            stream = bus.streams.peek("shop", "events")
            assert stream is not None
            found = explain(feed_of(world), bus.moment(stream, feed_of(world)))
            assert [(f.cause, f.offset) for f in found] == [(Cause.CAUSE_LANE_PARKED, 0)]
            await client.ack(0)
            await worker.work()
            assert worker.done[-102:] == [1, 2, *range(100, 200)]
            assert (state.parked, state.floor) == (0, 200)

    virtual(main)


def test_lanes_that_are_stuck_again_with_what_was_readmitted_hold_nobody() -> None:
    """What was readmitted lies below the floor: it fills what may be held, and the floor tells nothing of it."""

    async def main() -> None:
        world = World(look_ahead=LookAhead(look_ahead_max=500, ready_max=100, readmit_max=100))
        async with world.running():
            client = await opened(world)
            await publish(world, lambda n: f"stuck-{n % 10}" if n % 2 == 0 else f"k{n % 50}")
            worker = Worker(world, client, set(range(0, 20, 2)))  # the first two events of five lanes
            await worker.work()
            state = feed_of(world).state
            assert (state.parked, state.floor) == (5, EVENTS)
            await client.ack(*range(0, 10, 2))
            await worker.work()  # each lane has come to its second event, and holds a hundred behind it
            await publish(world, lambda n: f"k{n % 50}", first=EVENTS, count=1_000)
            began = asyncio.get_running_loop().time()
            await worker.work()
            assert set(range(EVENTS, EVENTS + 1_000)) <= set(worker.done)
            assert asyncio.get_running_loop().time() - began < 10, "they waited for the look at what is stuck"

    virtual(main)


def test_more_stuck_keys_than_may_be_parked_stop_the_subscription_and_it_says_so() -> None:
    async def main() -> None:
        world = low(parked_max=2)
        async with world.running() as bus:
            client = await opened(world)
            await publish(world, lambda n: f"k{n % 4}")
            worker = Worker(world, client, {0, 1, 2})
            await worker.work()
            state = feed_of(world).state
            assert state.parked == 2
            assert len(worker.done) < EVENTS / 4
            stream = bus.streams.peek("shop", "events")
            assert stream is not None
            causes = [f.cause for f in explain(feed_of(world), bus.moment(stream, feed_of(world)))]
            assert causes[0] == Cause.CAUSE_PARKED_LIMIT
            await client.ack(0, 1, 2)
            await worker.work()
            for lane in range(4):
                mine = [n for n in worker.done if n % 4 == lane]
                assert mine == [n for n in range(EVENTS) if n % 4 == lane and n > 2]

    virtual(main)


def test_in_parallel_one_that_is_put_off_for_long_keeps_nobody_from_going_on() -> None:
    async def main() -> None:
        world = low()
        config = events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(earliest=True))
        async with world.running(crash=True):
            client = world.connect()
            await client.open(name="billing", config=config)
            await publish(world, lambda n: "")
            await client.received(1)
            await client.settle(Ack.OUTCOME_NACK, 0, delay_s=3_600)
            worker = Worker(world, client, {0})
            await worker.work()
            assert sorted(worker.done) == list(range(1, EVENTS))
            await asyncio.sleep(1)
            assert feed_of(world).state.floor == EVENTS
        async with world.running():
            late = await reopened(world)
            await late.received(1, seconds=4_000)
            assert late.attempts == [(0, 2)]

    virtual(main)


async def reopened(world: World) -> Client:
    client = world.connect()
    await client.open(name="billing")
    return client


def test_retention_takes_what_is_parked_and_the_lane_goes_on_behind_it() -> None:
    async def main() -> None:
        world = low()
        async with world.running():
            client = await opened(world)
            await publish(world, hot)
            worker = Worker(world, client, {0})
            await worker.work()
            feed: Any = feed_of(world)
            assert feed.state.parked == 1
            feed.missing(1_000)
            await client.ack(0)
            await worker.work()
            assert [n for n in worker.done if n % 2 == 0] == list(range(1_000, EVENTS, 2))
            assert feed.state.counts.missed >= 1

    virtual(main)
