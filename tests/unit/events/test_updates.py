"""Configurations that change: what is named and nothing else, at once, across restarts, and what cannot change is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from reference.events_world import BY, Ack, Notice, World, event, publish_request
from reference.registry_world import virtual
from trunkline.api.v1 import common_pb2, events_pb2
from trunkline.core.errors import (
    InvalidArgument,
    NotSupported,
    StreamNotFound,
    SubscriptionNotFound,
)
from trunkline.server.events.compaction import CompactionConfig
from trunkline.server.events.feed import Feed
from trunkline.server.events.settings import StreamSettings, SubscriptionSettings
from trunkline.server.journal.control.sequencer import Origin

CONFIG = events_pb2.SubscriptionConfig(
    start=events_pb2.StartPosition(earliest=True), filters=["shop.>"], max_deliveries=3, max_in_flight=2
)


def stream_request(*paths: str, name: str = "audit", **fields: Any) -> events_pb2.UpdateStreamRequest:
    config = events_pb2.StreamConfig(namespace="shop", name=name, **fields)
    return events_pb2.UpdateStreamRequest(stream=config, update_mask=FieldMask(paths=paths))


async def update_stream(world: World, *paths: str, **fields: Any) -> StreamSettings:
    stream = await world.bus.updates.stream(stream_request(*paths, **fields), BY)
    return stream.settings


def request(*paths: str, **fields: Any) -> events_pb2.UpdateSubscriptionRequest:
    config = events_pb2.SubscriptionConfig(**fields)
    return events_pb2.UpdateSubscriptionRequest(
        namespace="shop", name="billing", config=config, update_mask=FieldMask(paths=paths)
    )


async def update(world: World, *paths: str, **fields: Any) -> SubscriptionSettings:
    feed = await world.bus.updates.subscription(request(*paths, **fields), BY)
    return feed.settings


def feed_of(world: World) -> Feed:
    stream = world.bus.streams.peek("shop", "events")
    assert stream is not None
    return stream.feeds["billing"]


def test_what_the_mask_names_changes_and_nothing_else_and_a_restart_keeps_it() -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=True) as bus:
            made = events_pb2.StreamConfig(namespace="shop", name="audit", max_records=100, dedupe_ids=7)
            await bus.streams.create(made, BY)
            changed = await update_stream(
                world, "max_bytes", max_bytes=5_000, max_records=1, sync=common_pb2.SYNC_MEMORY
            )
            assert (changed.max_bytes, changed.max_records, changed.dedupe_ids) == (5_000, 100, 7)
            assert (await update_stream(world, "max_records")).max_records is None
        async with world.running() as bus:
            stream = await bus.streams.get("shop", "audit", BY)
            assert (stream.settings.max_bytes, stream.settings.max_records) == (5_000, None)
            assert stream.event_log.log.config.retention.max_bytes == 5_000
            await update_stream(world, max_age=Duration(seconds=60), dedupe_ids=7)
            assert stream.settings.retention.max_age_ns == 60 * 10**9
            assert stream.settings.max_bytes is None, "without a mask all of it is taken"

    virtual(main)


def test_what_is_over_goes() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            for number in range(50):
                await world.publish(f"e{number}")
            await update_stream(world, "max_records", name="events", max_records=10)
            await asyncio.sleep(bus.streams._config.trim_interval_s + 1)
            [state] = bus.streams.states("shop")
            assert (state.first_offset, state.next_offset) == (40, 50)

    virtual(main)


def test_a_stream_may_be_compacted_later_on_and_no_more_but_not_where_dead_letters_go() -> None:
    async def main() -> None:
        world = World(compaction=CompactionConfig(dirty_age_max_s=60))
        async with world.running() as bus:
            stream, _ = await bus.streams.create(events_pb2.StreamConfig(namespace="shop", name="audit"), BY)
            for number in range(40):
                events = [event(f"e{number}", key=f"k{number % 4}")]
                await world.publishing.publish(publish_request(events, stream="audit"), BY, lambda _: None)
            now = events_pb2.StreamConfig.Compaction(min_lag=Duration(), tombstone_retention=Duration())
            await update_stream(world, "compaction", compaction=now)
            await asyncio.sleep(1_000)  # what is due waits a minute for more
            assert stream.event_log.log.compacted.removed == 36
            await update_stream(world, "compaction")
            for number in range(40, 60):
                events = [event(f"e{number}", key=f"k{number % 4}")]
                await world.publishing.publish(publish_request(events, stream="audit"), BY, lambda _: None)
            await asyncio.sleep(1_000)
            assert stream.event_log.log.compacted.removed == 36
            client = world.connect()
            config = events_pb2.SubscriptionConfig(dead_letter_stream="audit")
            await client.open(name="billing", config=config)
            with pytest.raises(InvalidArgument) as refusal:
                await update_stream(world, "compaction", compaction=now)
            assert refusal.value.violations[0].field == "stream.compaction"

    virtual(main)


@pytest.mark.parametrize(
    ("paths", "fields", "error", "field"),
    [
        (("sync",), {"sync": common_pb2.SYNC_MEMORY}, InvalidArgument, "stream.sync"),
        ((), {"dedupe_ids": 5}, InvalidArgument, "stream.dedupe_ids"),
        (("max_age", "colour"), {}, InvalidArgument, "update_mask"),
        (("max_bytes",), {"name": "none"}, StreamNotFound, ""),
        (("max_bytes",), {"name": "changes"}, NotSupported, ""),
    ],
)
def test_a_stream_that_cannot_be_so_stays(
    paths: tuple[str, ...], fields: dict[str, Any], error: type[Exception], field: str
) -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            made = events_pb2.StreamConfig(namespace="shop", name="audit", max_records=100)
            stream, _ = await bus.streams.create(made, BY)
            before, revision = stream.settings, world.control.sequencer.revision
            with pytest.raises(error) as refusal:
                await bus.updates.stream(stream_request(*paths, **fields), BY)
            if field:
                assert refusal.value.violations[0].field == field  # type: ignore[attr-defined]
            assert (stream.settings, world.control.sequencer.revision) == (before, revision)

    virtual(main)


def test_a_change_that_is_none_is_no_record_and_a_repeat_is_the_same_one() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            await world.publish("a")
            asked = stream_request("max_records", name="events", max_records=5)
            origin = Origin(author="me", request_id="r1")
            await bus.updates.stream(asked, origin)
            revision = world.control.sequencer.revision
            await bus.updates.stream(stream_request("max_records", name="events", max_records=9), BY)
            await bus.updates.stream(asked, origin)
            assert world.control.sequencer.revision == revision + 1
            [state] = bus.streams.states("shop")
            assert state.config.max_records == 9, "a repeat of what came before does nothing"

    virtual(main)


@pytest.mark.parametrize("crash", [True, False])
def test_a_subscription_goes_on_where_it_was_with_what_it_has_in_flight(crash: bool) -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=crash):
            client = world.connect()
            await client.open(name="billing", config=CONFIG)
            for number in range(6):
                await world.publish(f"e{number}")
            await client.received(2)
            await client.ack(0)
            await client.received(3)
            settings = await update(
                world, "max_in_flight", "ack_deadline", max_in_flight=4, ack_deadline=Duration(seconds=7)
            )
            assert (settings.max_in_flight, settings.ack_deadline_ms, settings.max_deliveries) == (4, 7_000, 3)
            assert settings.filters == ("shop.>",)
            await client.received(5)
            assert client.offsets == [0, 1, 2, 3, 4]
            feed = feed_of(world)
            assert (feed.state.floor, feed.state.in_flight) == (1, 4)
            await client.ack(1)
            await asyncio.sleep(8)
            late = [offset for offset, attempt in client.attempts if attempt == 2]
            assert set(late) == {2, 3, 4, 5}, "2 was delivered with a longer deadline"
        async with world.running():
            client = world.connect()
            await client.open(name="billing")
            await client.received(4)
            assert (feed_of(world).state.limits.max_in_flight, feed_of(world).state.floor) == (4, 2)

    virtual(main)


def test_filters_hold_for_what_was_not_looked_at() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            client = world.connect()
            await client.open(name="billing", config=CONFIG)
            await world.publish("a", topic="other.thing")
            await world.publish("b", topic="shop.order")
            await client.received(1)
            await update(world, "filters", filters=["other.>"])
            await world.publish("c", topic="other.thing")
            await world.publish("d", topic="shop.order")
            await client.received(2)
            await client.ack(1, 2)
            assert client.offsets == [1, 2]
            assert feed_of(world).state.floor == 4
            await update(world, "filters")
            await world.publish("e", topic="any")
            await client.received(3)

    virtual(main)


@pytest.mark.parametrize("restarts", [False, True])
def test_the_latest_of_each_key_follows_from_the_filters_that_are(restarts: bool) -> None:
    async def main() -> None:
        world = World()
        config = events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(last_per_key=True), filters=["a.>"])
        async with world.running():
            for number, topic in enumerate(["a.x", "b.x", "a.x", "b.x"]):
                made = event(f"e{number}", topic=topic, key=f"k{number % 2}")
                await world.publishing.publish(publish_request([made]), BY, lambda _: None)
            client = world.connect()
            await client.open(name="billing", config=config, credit=0)
            await update(world, "filters", filters=["b.>"])
            if not restarts:
                await client.give(10)
                await client.received(1)
                assert client.offsets == [3]
        async with world.running():
            if restarts:
                client = world.connect()
                await client.open(name="billing")
                await client.received(1)
                assert client.offsets == [3]

    virtual(main)


def test_dead_letters_begin_and_end() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            client = world.connect()
            await client.open(name="billing", config=CONFIG)
            await world.publish("a", "b")
            await client.received(2)
            await client.settle(Ack.OUTCOME_TERM, 0)
            with pytest.raises(StreamNotFound):
                await update(world, "dead_letter_stream", dead_letter_stream="dead")
            with pytest.raises(InvalidArgument):
                await update(world, "dead_letter_stream", dead_letter_stream="events")
            dead, _ = await bus.streams.create(events_pb2.StreamConfig(namespace="shop", name="dead"), BY)
            await update(world, "dead_letter_stream", dead_letter_stream="dead")
            await asyncio.sleep(5)
            assert (dead.dispatcher.end, len(feed_of(world).state.set_aside)) == (1, 0), (
                "also what was set aside before"
            )
            await update(world, "dead_letter_stream")
            await client.settle(Ack.OUTCOME_TERM, 1)
            await asyncio.sleep(5)
            assert (dead.dispatcher.end, len(feed_of(world).state.set_aside)) == (1, 1)

    virtual(main)


@pytest.mark.parametrize(
    ("paths", "fields", "field"),
    [
        (("ordering",), {"ordering": events_pb2.SubscriptionConfig.ORDERING_KEYED}, "config.ordering"),
        (("start",), {}, "config.start"),
        ((), {"start": events_pb2.StartPosition(latest=True)}, "config.start"),
        (("webhook.colour",), {}, "update_mask"),
        (("webhook",), {"webhook": events_pb2.Webhook(url="http://169.254.169.254/")}, "config.webhook.url"),
    ],
)
def test_a_subscription_that_cannot_be_so_stays(paths: tuple[str, ...], fields: dict[str, Any], field: str) -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            client = world.connect()
            await client.open(name="billing", config=CONFIG)
            before, revision = feed_of(world).settings, world.control.sequencer.revision
            with pytest.raises(InvalidArgument) as refusal:
                await update(world, *paths, **fields)
            assert refusal.value.violations[0].field == field
            asked = request("max_deliveries", max_deliveries=4)
            asked.name = "nobody"
            with pytest.raises(SubscriptionNotFound):
                await bus.updates.subscription(asked, BY)
            assert (feed_of(world).settings, world.control.sequencer.revision) == (before, revision)

    virtual(main)


def test_who_opens_it_need_not_say_how_it_is_configured_and_is_refused_what_it_is_not() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            first, second, third = (world.connect() for _ in range(3))
            await first.open(name="billing", config=CONFIG)
            await update(world, "max_deliveries", max_deliveries=9)
            await second.open(name="billing", config=events_pb2.SubscriptionConfig(filters=["shop.>"]))
            assert Notice.KIND_OPENED in second.kinds()
            await third.open(name="billing", config=events_pb2.SubscriptionConfig(max_deliveries=3))
            assert [notice.error.reason for notice in third.notices] == ["SUBSCRIPTION_EXISTS"]

    virtual(main)
