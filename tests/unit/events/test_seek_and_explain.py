"""A subscription is moved, events expire, words are told apart, and `explain` says why nothing comes."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from reference.events_world import BY, Ack, Client, Notice, World, event, publish_request
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import PositionOutOfRange
from trunkline.server.events import bounds
from trunkline.server.events.explain import Cause, explain
from trunkline.server.events.feed import Feed
from trunkline.server.events.operations import seek
from trunkline.server.events.stream import EventStream

Start = events_pb2.StartPosition
Config = events_pb2.SubscriptionConfig
EARLIEST = Config(start=Start(earliest=True))


def place(world: World) -> tuple[EventStream, Feed]:
    stream = world.bus.streams.peek("shop", "events")
    assert stream is not None
    return stream, stream.feeds["billing"]


def causes(world: World) -> list[int]:
    return [finding.cause for finding in explain(place(world)[1], world.bus.moment(*place(world)))]


def words(world: World) -> str:
    return explain(place(world)[1], world.bus.moment(*place(world)))[0].message


async def moved(world: World, to: events_pb2.StartPosition) -> int:
    stream, feed = place(world)
    return await seek(stream, feed, to, world.bus.subscriptions, world.bus.checkpoints)


@pytest.mark.parametrize("crash", [False, True])
def test_a_subscription_goes_back_and_forth_and_stays_there(crash: bool) -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=crash):
            client = world.connect()
            await client.open(name="billing", config=EARLIEST)
            await world.publish(*"abcdef")
            await client.received(6)
            await client.ack(0, 1, 2, 4)
            await client.settle(Ack.OUTCOME_TERM, 3)
            assert await moved(world, Start(offset=1)) == 5
            [ended] = [notice for notice in client.notices if notice.kind == Notice.KIND_ENDED]
            assert ended.error.reason == "SUBSCRIPTION_MOVED"
            again = world.connect()
            await again.open(name="billing")
            await again.received(5)
            assert again.attempts == [(offset, 1) for offset in range(1, 6)]
            await again.ack(1)
            assert await moved(world, Start(offset=4)) == 2
            assert place(world)[1].state.set_aside == {}
        async with world.running():
            last = world.connect()
            await last.open(name="billing")
            await last.received(2)
            await asyncio.sleep(60)
            assert {offset for offset, _ in last.attempts} == {4, 5}

    virtual(main)


def test_a_checkpoint_on_its_way_says_nothing_of_the_new_place() -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=True):
            client = world.connect()
            await client.open(name="billing", config=EARLIEST)
            await world.publish(*[str(n) for n in range(50)])
            await client.received(50)
            await client.ack(*range(50))
            _, feed = place(world)
            saving = feed.state.save(world.clock.now_ns(), world.clock.time_ns())
            await moved(world, Start(offset=10))
            reserved_to = feed.state.reserved_to
            feed.state.saved(saving)
            assert feed.state.reserved_to == reserved_to == 10

    virtual(main)


def test_a_place_that_is_not_there_changes_nothing() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            client = world.connect()
            await client.open(name="billing", config=EARLIEST)
            await world.publish("a")
            await client.received(1)
            with pytest.raises(PositionOutOfRange):
                await moved(world, Start(offset=2))
            await client.ack(0)
            assert place(world)[1].state.floor == 1
            assert await moved(world, Start(latest=True)) == 1
            assert await moved(world, Start(earliest=True)) == 1
            assert place(world)[1].state.floor == 0

    virtual(main)


def expiring(id: str, time_ns: int, **more: Any) -> events_pb2.CloudEvent:
    made: events_pb2.CloudEvent = event(id, **more)
    made.attributes["expirytime"].ce_timestamp.FromNanoseconds(time_ns)
    return made


def test_expired_events_are_not_delivered_first_or_again() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            now_ns = world.clock.time_ns()
            gone, soon = expiring("gone", now_ns - 1), expiring("soon", now_ns + 5_000_000_000)
            odd = event("odd")
            odd.attributes["expirytime"].ce_string = "tomorrow"
            text = event("text")
            text.attributes["expirytime"].ce_string = "1999-12-31T23:59:59Z"
            await world.publishing.publish(publish_request([gone, soon, event("plain"), odd, text]), BY, lambda _: None)
            client, tap = world.connect(), world.connect()
            await client.open(name="billing", config=EARLIEST, credit=3)
            await tap.open(no_acknowledgement=True, config=EARLIEST, credit=2)
            await client.received(3)
            assert client.offsets == [1, 2, 3]
            await asyncio.sleep(1)
            assert [(d.offset, d.credit) for d in tap.deliveries] == [(1, 1), (2, 0)]
            await tap.give(1)
            await tap.received(3)
            assert tap.offsets == [1, 2, 3]
            await client.settle(Ack.OUTCOME_NACK, 1, delay_s=6)
            await client.ack(2, 3)
            await client.give(3)
            await asyncio.sleep(30)
            assert len(client.deliveries) == 3
            [state] = bus.subscriptions.states("shop", "events")
            assert (state.floor, state.expired, state.in_flight) == (5, 3, 0)
            late = world.connect()
            await late.open(no_acknowledgement=True, config=EARLIEST)
            await late.received(2)
            await asyncio.sleep(1)
            assert late.offsets == [2, 3]

    virtual(main)


def test_an_expired_event_costs_no_credit() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            now_ns = world.clock.time_ns()
            gone = [expiring(f"gone{n}", now_ns - 1) for n in range(600)]
            await world.publishing.publish(publish_request([*gone, event("last")]), BY, lambda _: None)
            client = world.connect()
            await client.open(name="billing", config=EARLIEST, credit=1)
            await client.received(1)
            assert client.offsets == [600]

    virtual(main)


def test_backoff_is_kept_by_the_number_of_attempts_also_when_nobody_answers() -> None:
    async def main() -> None:
        world = World()
        config = Config(
            start=Start(earliest=True),
            backoff=[Duration(seconds=1), Duration(seconds=10)],
            ack_deadline=Duration(seconds=2),
        )
        async with world.running():
            client = world.connect()
            await client.open(name="billing", config=config)
            await world.publish("a")
            times = []
            for count in range(1, 6):
                await client.received(count, seconds=60)
                times.append(world.clock.now_ns() / 1e9)
                if count == 4:
                    await client.settle(Ack.OUTCOME_NACK, 0, delay_s=0.5)
                elif count != 3:
                    await client.settle(Ack.OUTCOME_NACK, 0)
            waits = [later - earlier for earlier, later in pairwise(times)]
            assert waits == pytest.approx([1, 10, 2 + 10, 0.5], abs=0.2)

    virtual(main)


async def opened(world: World, *, credit: int = 10, **config: Any) -> Client:
    client = world.connect()
    await client.open(
        name="billing", client="worker-1", credit=credit, config=Config(start=Start(earliest=True), **config)
    )
    return client


def test_explain_names_what_is_in_the_way() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            client = await opened(world, credit=0, filters=["shop.>"], max_in_flight=2)
            assert causes(world) == [Cause.CAUSE_NO_CREDIT]
            await client.give(10)
            await world.publish("x", topic="else")
            await asyncio.sleep(1)
            assert causes(world) == [Cause.CAUSE_FILTER_MATCHES_NOTHING, Cause.CAUSE_CAUGHT_UP]
            await world.publish("a", "b", "c")
            await client.received(2)
            assert causes(world) == [Cause.CAUSE_IN_FLIGHT_LIMIT]
            assert "2 at worker-1" in words(world)
            client.set_ready(False)
            await client.ack(1)
            await asyncio.sleep(0.1)
            assert causes(world) == [Cause.CAUSE_CONSUMERS_FULL]
            client.set_ready(True)
            await client.received(3)
            await client.settle(Ack.OUTCOME_NACK, 2, delay_s=30)
            await client.ack(3)
            await asyncio.sleep(1)
            assert causes(world) == [Cause.CAUSE_PUT_OFF]
            assert "29." in words(world)
            world.disconnect(client)
            assert causes(world)[0] == Cause.CAUSE_NO_CONSUMERS
            again = await opened(world, filters=["shop.>"], max_in_flight=2)
            await again.received(1, seconds=60)
            await again.ack(2)
            assert causes(world) == [Cause.CAUSE_CAUGHT_UP]
            [state] = await bus.subscriptions.states_with_lag("shop", "events")
            assert not state.HasField("lag_time")

    virtual(main)


def test_explain_names_the_event_that_a_lane_waits_for_and_who_has_it() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            client = await opened(world, ordering=Config.ORDERING_KEYED)
            events = [event(f"{n}", key=key) for n, key in enumerate("aabba")]
            await world.publishing.publish(publish_request(events), BY, lambda _: None)
            await client.received(2)
            await asyncio.sleep(20)
            found = explain(place(world)[1], bus.moment(*place(world)))
            assert [(f.cause, f.offset) for f in found] == [
                (Cause.CAUSE_LANE_BLOCKED, 0),
                (Cause.CAUSE_LANE_BLOCKED, 2),
            ]
            assert "2 events wait for the one at 0, which is with worker-1, attempt 1" in found[0].message
            assert world.clock.time_ns() - found[0].since.ToNanoseconds() == pytest.approx(20e9, rel=0.01)
            [state] = await bus.subscriptions.states_with_lag("shop", "events")
            assert state.lag_time.ToMilliseconds() == pytest.approx(20_000, abs=200)
            assert dict(state.in_flight_by_consumer) == {"worker-1": 2}
            await client.settle(Ack.OUTCOME_NACK, 0, delay_s=60)
            await asyncio.sleep(10)
            assert "was delivered 1 times and waits for 50.0 s" in words(world)

    virtual(main)


def test_explain_tells_that_too_much_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SET_ASIDE_MAX", 2)

    async def main() -> None:
        world = World()
        async with world.running():
            client = await opened(world)
            await world.publish("a", "b", "c")
            await client.received(3)
            await client.settle(Ack.OUTCOME_TERM, 0, 1)
            await asyncio.sleep(1)
            assert causes(world)[0] == Cause.CAUSE_SET_ASIDE_LIMIT

    virtual(main)
