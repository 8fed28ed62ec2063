"""Pull, taps, sharing, give-back, set-aside, resuming: clients against the whole bus in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from reference.events_world import BY, TOPIC, Ack, Client, Notice, World
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import SubscriptionNotFound
from trunkline.core.token import EventToken
from trunkline.server.events.delivery import Settled
from trunkline.server.events.feed import Feed
from trunkline.server.events.operations import set_aside
from trunkline.server.journal.log import Retention

EARLIEST = events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(earliest=True))
S = 1_000_000_000


async def fetch(world: World, feed: Feed, **more: int) -> list[tuple[int, int]]:
    arguments = {"max_events": 0, "max_bytes": 0, "wait_ns": 0} | more
    pieces = await world.bus.subscriptions.fetch(feed, client="puller", **arguments)
    return [(d.offset, d.attempt) for d in events_pb2.FetchResponse.FromString(b"".join(pieces)).deliveries]


async def subscription(world: World, config: events_pb2.SubscriptionConfig = EARLIEST, name: str = "pulled") -> Feed:
    stream = await world.bus.streams.get("shop", "", BY)
    feed, _ = await world.bus.subscriptions.create(stream, name, config, BY)
    return feed


def errors(client: Client) -> list[str]:
    return [notice.error.reason for notice in client.notices if notice.kind == Notice.KIND_ENDED]


def test_fetch_takes_no_more_than_asked_and_acknowledge_tells_what_was_not_open() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            feed = await subscription(world)
            await world.publish("a", "b", "c", "d")
            assert await fetch(world, feed, max_events=2) == [(0, 1), (1, 1)]
            assert await fetch(world, feed, max_bytes=1) == [(2, 1)]
            assert feed.settle(Ack.OUTCOME_ACK, [0, 1, 0, 3, 99], None) == [
                (0, Settled.REPEATED),
                (3, Settled.LATE),
                (99, Settled.NEVER_SENT),
            ]
            assert feed.state.counts.repeated == 1
            assert feed.state.counts.never_sent == 1
            assert feed.state.counts.late == 1, "3 was taken for the second fetch and did not fit"
            assert feed.clients() == ["puller"]
            assert await fetch(world, feed) == [(3, 1)]
            feed.settle(Ack.OUTCOME_ACK, [2, 3], None)
            assert feed.state.floor == 4
            assert feed.clients() == []

    virtual(main)


def test_fetch_waits_for_the_first_event_and_no_longer() -> None:
    async def main() -> None:
        world = World()
        loop = asyncio.get_running_loop()
        async with world.running():
            feed = await subscription(world)
            begun = loop.time()
            assert await fetch(world, feed) == []
            assert loop.time() == begun
            waiting = asyncio.create_task(fetch(world, feed, wait_ns=30 * S))
            await asyncio.sleep(10)
            await world.publish("a")
            assert await waiting == [(0, 1)]
            assert loop.time() - begun < 11
            begun = loop.time()
            assert await fetch(world, feed, wait_ns=2 * S) == []
            assert loop.time() - begun == pytest.approx(2)

    virtual(main)


def test_calls_that_pulled_and_hold_nothing_are_forgotten() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            feed = await subscription(world)
            await world.publish("a")
            assert await fetch(world, feed) == [(0, 1)]
            for _ in range(200):
                assert await fetch(world, feed) == []
            assert len(feed.client_of) < 100
            assert feed.clients() == ["puller"]
            feed.settle(Ack.OUTCOME_ACK, [0], None)
            assert feed.clients() == []
            assert bus.subscriptions.pulls == 201

    virtual(main)


def test_a_fetch_that_is_cancelled_gives_back_uncounted() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            feed = await subscription(world)
            waiting = asyncio.create_task(fetch(world, feed, wait_ns=30 * S))
            await asyncio.sleep(1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await world.publish("a")
            assert await fetch(world, feed) == [(0, 1)]

    virtual(main)


def test_consumers_share_the_work_in_turn_as_far_as_their_credit_goes() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            one, two = world.connect(), world.connect()
            await one.open(name="billing", config=EARLIEST, credit=3)
            await two.open(name="billing", credit=100)
            await world.publish(*"abcdefgh")
            await two.received(5)
            assert one.offsets == [0, 2, 4]
            assert two.offsets == [1, 3, 5, 6, 7]
            assert [d.credit for d in one.deliveries] == [2, 1, 0]

    virtual(main)


@pytest.mark.parametrize(("clean", "attempt"), [(True, 1), (False, 2)])
def test_what_a_consumer_had_goes_to_the_others_at_once(clean: bool, attempt: int) -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            one, two = world.connect(), world.connect()
            await one.open(name="billing", config=EARLIEST)
            await world.publish("a", "b")
            await one.received(2)
            await two.open(name="billing")
            if clean:
                await one.close()
            else:
                world.disconnect(one)
            await two.received(2, seconds=0.1)
            assert two.attempts == [(0, attempt), (1, attempt)]

    virtual(main)


def test_no_more_in_flight_than_the_subscription_allows() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            client = world.connect()
            config = events_pb2.SubscriptionConfig(max_in_flight=2)
            await client.open(name="billing", config=config)
            await world.publish(*"abcd")
            await asyncio.sleep(1)
            assert client.offsets == [0, 1]
            await client.ack(0)
            await client.received(3)
            assert client.offsets == [0, 1, 2]

    virtual(main)


def test_a_full_sink_gets_nothing_until_it_is_ready() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            slow, other = world.connect(), world.connect()
            await slow.open(name="billing", config=EARLIEST)
            await slow.open(subscription_id=2, no_acknowledgement=True)
            slow.set_ready(False)
            await other.open(name="billing")
            await world.publish("a", "b")
            await other.received(2)
            assert slow.offsets == []
            slow.set_ready(True)
            await slow.received(2)
            assert [(d.subscription_id, d.offset) for d in slow.deliveries] == [(2, 0), (2, 1)]
            await world.publish("c", "d")
            await slow.received(5)

    virtual(main)


def test_after_too_many_deliveries_an_event_is_set_aside_listed_and_can_be_released() -> None:
    async def main() -> None:
        world = World()
        config = events_pb2.SubscriptionConfig(max_deliveries=2)
        async with world.running(crash=True) as bus:
            client = world.connect()
            await client.open(name="billing", config=config)
            await world.publish("poison", "good", "stop")
            await client.received(3)
            await client.ack(1)
            await client.settle(Ack.OUTCOME_TERM, 2, reason="cannot be parsed")
            for count in (4, 4):
                await client.settle(Ack.OUTCOME_NACK, 0)
                await client.received(count)
            await asyncio.sleep(60)
            assert client.attempts == [(0, 1), (1, 1), (2, 1), (0, 2)]
            [state] = bus.subscriptions.states("shop", "events")
            assert (state.floor, state.set_aside) == (3, 2)
        async with world.running() as bus:
            stream = await bus.streams.get("shop", "", BY)
            feed = bus.subscriptions.feed(stream, "billing")
            shown = await set_aside(stream, feed, max_events=0)
            assert [(e.offset, e.attempts, e.event.id) for e in shown] == [(0, 2, "poison"), (2, 1, "stop")]
            assert "2 times" in shown[0].reason
            assert shown[1].reason == "cannot be parsed"
            client = world.connect()
            await client.open(name="billing")
            assert feed.release([0, 1, 7]) == 1
            await client.received(1)
            assert client.attempts == [(0, 1)]
            await client.ack(0)
            assert list(feed.state.set_aside) == [2]

    virtual(main)


def test_a_tap_gets_what_its_filters_take_as_far_as_credit_goes_and_resumes() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            client = world.connect()
            config = events_pb2.SubscriptionConfig(filters=["shop.order.*", "shop.invoice.>"])
            await client.open(no_acknowledgement=True, config=config, credit=2)
            await world.publish("a")
            await world.publish("x", topic="shop.cart.filled")
            await world.publish("b", topic="shop.invoice.sent.late")
            await world.publish("c")
            await client.received(2)
            await asyncio.sleep(6)
            assert client.offsets == [0, 2]
            bookmark = client.notices[-1]
            assert (bookmark.kind, bookmark.next_offset) == (Notice.KIND_BOOKMARK, 3)
            again = world.connect()
            await again.open(no_acknowledgement=True, config=config, resume_token=bookmark.resume_token)
            await again.received(1)
            await client.give(5)
            await client.received(3)
            assert again.offsets == client.offsets[2:] == [3]
            assert again.kinds() == [Notice.KIND_OPENED]

    virtual(main)


def test_an_ephemeral_subscription_with_acknowledgements_resumes_at_its_floor() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            client = world.connect()
            await client.open()
            await world.publish("a", "b", "c")
            await client.received(3)
            await client.ack(0, 2)
            await asyncio.sleep(6)
            bookmark = client.notices[-1]
            world.disconnect(client)
            assert bookmark.next_offset == 1
            again = world.connect()
            await again.open(resume_token=bookmark.resume_token)
            await again.received(2)
            assert again.offsets == [1, 2]
            assert world.bus.subscriptions.states("shop", "") == []

    virtual(main)


def test_tokens_that_do_not_fit_end_the_subscription_with_their_reason() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            await world.publish("a")
            stream = await bus.streams.get("shop", "", BY)
            other = EventToken("ab" * 16, 1, 1, 0).encode()
            held = EventToken.decode(stream.token(stream.incarnation, 0))
            foreign = EventToken(held.journal_id, held.stream + 1, held.incarnation, 0).encode()
            future = stream.token(stream.incarnation, 2)
            client = world.connect()
            for number, token in enumerate((other, foreign, future, b"nonsense"), 1):
                await client.open(subscription_id=number, resume_token=token)
            await client.open(subscription_id=9, name="x", resume_token=stream.token(stream.incarnation, 0))
            assert errors(client) == [
                "TOKEN_FOREIGN",
                "TOKEN_FOREIGN",
                "POSITION_OUT_OF_RANGE",
                "TOKEN_MALFORMED",
                "INVALID_ARGUMENT",
            ]

    virtual(main)


def test_retention_that_passes_a_subscription_is_told_as_a_gap() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            client = world.connect()
            await client.open(name="billing", config=EARLIEST, credit=0)
            await client.open(subscription_id=2, config=EARLIEST, credit=0, no_acknowledgement=True)
            for name in "abcdef":
                await world.publish(name)
            stream = await bus.streams.get("shop", "", BY)
            stream.dispatcher.cache.clear()
            token = stream.token(stream.incarnation, 1)
            await stream.event_log.log.trim(Retention(max_records=2), now_ns=0)
            await client.give(10)
            await client.give(10, subscription_id=2)
            await client.received(4)
            assert client.offsets == [4, 5, 4, 5]
            gaps = [n for n in client.notices if n.kind == Notice.KIND_GAP]
            assert [(n.old_offset, n.next_offset) for n in gaps] == [(0, 4), (0, 4)]
            await client.open(subscription_id=3, resume_token=token, no_acknowledgement=True)
            assert client.notices[-1].kind == Notice.KIND_GAP
            assert (client.notices[-1].old_offset, client.notices[-1].next_offset) == (1, 4)

    virtual(main)


def test_who_is_far_behind_reads_the_log_and_loses_nothing() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            stream = await bus.streams.get("shop", "", BY)
            for block in range(30):
                await world.publish(*(f"{block}-{i}" for i in range(10)))
                stream.dispatcher.cache.clear()
            client = world.connect()
            await client.open(config=EARLIEST, no_acknowledgement=True)
            await client.open(subscription_id=2, name="billing", config=EARLIEST)
            await client.received(600)
            for number in (1, 2):
                assert [d.offset for d in client.deliveries if d.subscription_id == number] == list(range(300))
            await client.settle(Ack.OUTCOME_NACK, 5, 77, subscription_id=2)
            stream.dispatcher.cache.clear()
            await client.received(602)
            assert client.attempts[600:] == [(5, 2), (77, 2)]

    virtual(main)


def test_a_new_history_of_the_stream_is_told_and_nothing_is_lost_that_was_kept() -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=True) as bus:
            client = world.connect()
            await client.open(name="billing", config=EARLIEST)
            await world.publish("a", "b", "c")
            await client.received(3)
            await client.ack(0, 1, 2)
            await asyncio.sleep(0.2)
            old = (await bus.streams.get("shop", "", BY)).history.incarnation
        await world.engine.delete_log("shop/events")
        async with world.running():
            await world.publish("new")
            client = world.connect()
            await client.open(name="billing")
            await client.received(1)
            assert client.attempts == [(0, 1)]
            gap = client.notices[1]
            assert (gap.kind, gap.old_incarnation, gap.old_offset, gap.next_offset) == (Notice.KIND_GAP, old, 3, 0)
            assert gap.incarnation != old

    virtual(main)


def test_a_clean_stop_counts_nothing_that_was_not_delivered() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            client = world.connect()
            await client.open(name="billing", config=EARLIEST, credit=2)
            await world.publish("a", "b", "c")
            await client.received(2)
            await client.close()
        async with world.running():
            client = world.connect()
            await client.open(name="billing")
            await client.received(3)
            assert sorted(client.attempts) == [(0, 1), (1, 1), (2, 1)]

    virtual(main)


def test_checkpoints_are_few_and_none_is_written_when_nothing_changes() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            client = world.connect()
            await client.open(name="billing", config=EARLIEST, credit=100_000)
            for number in range(100):
                await world.publish(*(f"{number}-{i}" for i in range(10)))
                await client.received(10 * (number + 1))
                await client.ack(*range(10 * number, 10 * number + 10))
                await asyncio.sleep(0.001)
            await asyncio.sleep(1)
            written = bus.checkpoints.written
            assert written <= 100 * 0.001 / 0.05 + 6
            await asyncio.sleep(100)
            assert bus.checkpoints.written == written

    virtual(main)


def test_subscriptions_that_are_not_there_are_refused() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            client = world.connect()
            await client.open(name="nobody")
            await client.open(subscription_id=2, stream="nothing")
            assert errors(client) == ["SUBSCRIPTION_NOT_FOUND", "STREAM_NOT_FOUND"]
            await client.open(name="billing", config=EARLIEST)
            changed = events_pb2.SubscriptionConfig(filters=[TOPIC])
            await client.open(subscription_id=2, name="billing", config=changed)
            assert errors(client)[2:] == ["SUBSCRIPTION_EXISTS"]
            keyed = events_pb2.SubscriptionConfig(ordering=events_pb2.SubscriptionConfig.ORDERING_KEYED)
            await client.open(subscription_id=3, config=keyed, no_acknowledgement=True)
            assert errors(client)[3:] == ["INVALID_ARGUMENT"]
            await bus.subscriptions.delete("shop", "events", "billing", BY)
            assert errors(client)[4:] == ["SUBSCRIPTION_NOT_FOUND"]
            with pytest.raises(SubscriptionNotFound):
                await bus.subscriptions.delete("shop", "events", "billing", BY)

    virtual(main)


def test_a_subscription_of_the_same_name_begins_anew() -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=True) as bus:
            feed = await subscription(world, name="billing")
            await world.publish("a", "b")
            await fetch(world, feed)
            feed.settle(Ack.OUTCOME_ACK, [0, 1], None)
            await asyncio.sleep(1)
            await bus.subscriptions.delete("shop", "events", "billing", BY)
            await subscription(world, name="billing")
        async with world.running() as bus:
            stream = await bus.streams.get("shop", "", BY)
            assert await fetch(world, bus.subscriptions.feed(stream, "billing")) == [(0, 1), (1, 1)]

    virtual(main)
