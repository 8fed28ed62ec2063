"""Streams come and go: made, listed, refused, deleted, found again after a restart."""

from __future__ import annotations

import asyncio

import pytest

from reference.events_world import BY, World, places
from reference.registry_world import virtual
from trunkline.api.v1 import common_pb2, events_pb2
from trunkline.core.errors import (
    DiskReadOnly,
    DurabilityUnmet,
    NotReady,
    NotSupported,
    PositionOutOfRange,
    StreamExists,
    StreamNotFound,
    SubscriptionExists,
    TrunklineError,
)
from trunkline.core.model import Sync
from trunkline.server.events.fold import EventsFold
from trunkline.server.journal.control.sequencer import Origin


def config(name: str = "audit", **more: object) -> events_pb2.StreamConfig:
    return events_pb2.StreamConfig(namespace="shop", name=name, **more)  # type: ignore[arg-type]


def names(world: World, namespace: str = "shop") -> list[str]:
    return [state.config.name for state in world.bus.streams.states(namespace)]


def test_the_default_stream_is_listed_before_it_is_used_and_made_when_it_is() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            [state] = bus.streams.states("shop")
            assert (state.config.name, state.durability.sync) == ("events", common_pb2.SYNC_FSYNCED)
            assert world.fold.stream("shop", "events") is None
            await world.publish("a")
            [state] = bus.streams.states("shop")
            assert (state.first_offset, state.next_offset) == (0, 1)
            assert state.first_time.seconds == state.last_time.seconds > 0
            with pytest.raises(StreamNotFound):
                await world.publish("a", stream="audit")

    virtual(main)


def test_the_same_configuration_again_is_no_second_stream_and_another_is_refused() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            first, created = await bus.streams.create(config(), BY)
            again, created_again = await bus.streams.create(config(dedupe_ids=1_000_000), BY)
            assert (created, created_again, first is again) == (True, False, True)
            with pytest.raises(StreamExists):
                await bus.streams.create(config(sync=common_pb2.SYNC_MEMORY), BY)
            origin = Origin(author="me", request_id="r1")
            assert [(await bus.streams.create(config("other"), origin))[1] for _ in range(2)] == [True, True]
            both = await asyncio.gather(*(bus.streams.create(config("race"), BY) for _ in range(3)))
            assert sorted(made for _, made in both) == [False, False, True]
            assert names(world) == ["audit", "events", "other", "race"]

    virtual(main)


def test_a_request_id_stands_for_what_was_asked_and_not_for_the_stream_made_on_the_way() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            origin = Origin(author="me", request_id="r1")
            for _ in range(2):
                stream = await bus.streams.get("shop", "", origin)
                feed, created = await bus.subscriptions.create(
                    stream, "billing", events_pb2.SubscriptionConfig(), origin
                )
                assert (created, stream.feeds["billing"] is feed) == (True, True)

    virtual(main)


@pytest.mark.parametrize("name", ["", "audit"])
def test_a_name_is_not_had_again_before_the_log_of_what_had_it_is_deleted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            delete_log, disk_is_well = world.engine.delete_log, asyncio.Event()

            async def failing(_: str) -> None:
                raise DiskReadOnly("read-only")

            async def slow(log: str) -> None:
                await disk_is_well.wait()
                await delete_log(log)

            if name:
                await bus.streams.create(config(name), BY)
            await world.publish("a", "b", stream=name)
            monkeypatch.setattr(world.engine, "delete_log", failing)
            await bus.streams.delete("shop", name or "events", BY)
            revision = world.control.sequencer.revision
            with pytest.raises(NotReady):
                await (bus.streams.create(config(name), BY) if name else world.publish("c"))
            monkeypatch.setattr(world.engine, "delete_log", slow)
            again = asyncio.ensure_future(bus.streams.create(config(name), BY) if name else world.publish("c"))
            await asyncio.sleep(1)
            assert world.control.sequencer.revision == revision, "a crash now would give it the old one's log"
            disk_is_well.set()
            await again
            assert places(await world.publish("a", stream=name)) == [(0 if name else 1, 1, False)]

    virtual(main)


def test_of_a_deleted_stream_and_its_subscriptions_nothing_is_kept() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            for number in range(3):
                stream, _ = await bus.streams.create(config(f"s{number}"), BY)
                await bus.subscriptions.create(stream, "billing", events_pb2.SubscriptionConfig(), BY)
                await bus.streams.delete("shop", stream.name, BY)
            assert world.control.sequencer.admission.last == {}
            assert world.control.sequencer.skipped == 0

    virtual(main)


def test_what_cannot_be_promised_is_refused_when_the_stream_is_made() -> None:
    async def main() -> None:
        world = World(offers=Sync.FSYNCED)
        async with world.running() as bus:
            bus.streams.promise = type(bus.streams.promise)(sync=Sync.WRITTEN)
            with pytest.raises(DurabilityUnmet):
                await bus.streams.create(config(), BY)
            await bus.streams.create(config("fast", sync=common_pb2.SYNC_MEMORY), BY)
            with pytest.raises(DurabilityUnmet):
                await world.publish("a", stream="fast", require_sync=common_pb2.SYNC_WRITTEN)
            answer = await world.publish("a", stream="fast", require_sync=common_pb2.SYNC_MEMORY)
            assert answer.durability.sync == common_pb2.SYNC_MEMORY

    virtual(main)


def test_the_derived_stream_cannot_be_made_or_deleted() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            for call in (bus.streams.create(config("changes"), BY), bus.streams.delete("shop", "changes", BY)):
                with pytest.raises(NotSupported):
                    await call

    virtual(main)


def test_deleting_takes_events_and_subscriptions_and_the_name_begins_anew() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            stream, _ = await bus.streams.create(config(), BY)
            await bus.subscriptions.create(stream, "reader", events_pb2.SubscriptionConfig(), BY)
            await world.publish("a", "b", stream="audit")
            client = world.connect()
            await client.open(stream="audit", name="reader")
            await client.open(subscription_id=2, stream="audit", no_acknowledgement=True)
            await client.open(subscription_id=3, stream="audit")
            await bus.streams.delete("shop", "audit", BY)
            assert sorted(n.subscription_id for n in client.notices if n.HasField("error")) == [1, 2, 3]
            assert {n.error.reason for n in client.notices if n.HasField("error")} == {"STREAM_NOT_FOUND"}
            assert bus.subscriptions.states("", "") == []
            assert await world.engine.list_logs() == ["trunkline.control", "trunkline.subscriptions"]
            with pytest.raises(StreamNotFound):
                await bus.streams.delete("shop", "audit", BY)
            await bus.streams.create(config(), BY)
            assert places(await world.publish("a", stream="audit")) == [(0, 1, False)]

    virtual(main)


def test_a_log_whose_stream_was_deleted_is_removed_at_the_start() -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=True) as bus:
            await bus.streams.create(config(), BY)
            await world.publish("a", stream="audit")
            stray = await world.engine.open_log("shop/gone", bus.streams.opened()[0].event_log.log.config)
            assert stray.name in await world.engine.list_logs()
        async with world.running() as bus:
            assert await world.engine.list_logs() == ["shop/audit", "trunkline.control", "trunkline.subscriptions"]
            assert places(await world.publish("a", "b", stream="audit")) == [(0, 1, True), (1, 1, False)]

    virtual(main)


@pytest.mark.parametrize(
    ("start", "offset"),
    [
        (events_pb2.StartPosition(), 3),
        (events_pb2.StartPosition(latest=True), 3),
        (events_pb2.StartPosition(earliest=True), 0),
        (events_pb2.StartPosition(offset=2), 2),
        (events_pb2.StartPosition(offset=3), 3),
        (events_pb2.StartPosition(offset=4), PositionOutOfRange),
    ],
)
def test_where_subscriptions_begin(start: events_pb2.StartPosition, offset: int | type[TrunklineError]) -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            await world.publish("a", "b", "c")
            stream = await bus.streams.get("shop", "", BY)
            wanted = bus.subscriptions.create(stream, "s", events_pb2.SubscriptionConfig(start=start), BY)
            if isinstance(offset, int):
                feed, created = await wanted
                assert (feed.state.floor, created) == (offset, True)
            else:
                with pytest.raises(offset):
                    await wanted
                assert world.fold.subscription("shop", "events", "s") is None

    virtual(main)


def test_a_subscription_begins_at_a_time() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            await world.publish("a")
            await asyncio.sleep(10)
            start = events_pb2.StartPosition()
            start.time.FromNanoseconds(world.clock.time_ns())
            await asyncio.sleep(10)
            await world.publish("b")
            stream = await bus.streams.get("shop", "", BY)
            feed, _ = await bus.subscriptions.create(stream, "s", events_pb2.SubscriptionConfig(start=start), BY)
            assert feed.state.floor == 1

    virtual(main)


def test_where_it_begins_is_no_part_of_what_a_subscription_is() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            stream = await bus.streams.get("shop", "", BY)
            one = events_pb2.SubscriptionConfig(filters=["b.*", "a"])
            two = events_pb2.SubscriptionConfig(
                filters=["a", "b.*"], max_deliveries=20, start=events_pb2.StartPosition(earliest=True)
            )
            assert (await bus.subscriptions.create(stream, "s", one, BY))[1]
            assert not (await bus.subscriptions.create(stream, "s", two, BY))[1]
            with pytest.raises(SubscriptionExists):
                await bus.subscriptions.create(stream, "s", events_pb2.SubscriptionConfig(), BY)

    virtual(main)


def test_a_snapshot_holds_all_of_it() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            for number in range(3):
                stream, _ = await bus.streams.create(config(f"s{number}", max_bytes=1 << 30), BY)
                for name in ("x", "y/z"):
                    await bus.subscriptions.create(
                        stream, name, events_pb2.SubscriptionConfig(filters=["a.>"], max_in_flight=7), BY
                    )
            again = EventsFold()
            again.load(1, list(world.fold.dump()))
            assert list(again.dump()) == list(world.fold.dump())
            assert sorted(map(str, again.streams())) == sorted(map(str, world.fold.streams()))
            assert again.subscription("shop", "s1", "y/z") == world.fold.subscription("shop", "s1", "y/z") is not None
            with pytest.raises(ValueError, match="version 2"):
                again.load(2, [])

    virtual(main)
