"""Streams that are compacted: what their subscriptions are brought, and what becomes of events that vanish before or after."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from reference.events_world import BY, Client, World, event, publish_request
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import DiskFull, InvalidArgument
from trunkline.core.wire import scan_publish
from trunkline.server.events import bounds
from trunkline.server.events.block_cache import BlockCache
from trunkline.server.events.checkpoint import decode
from trunkline.server.events.compaction import CompactionConfig, Compactor, EventKeys
from trunkline.server.events.delivery import Limits
from trunkline.server.events.event_block import EventBlock
from trunkline.server.events.operations import set_aside
from trunkline.server.events.order import Ordering
from trunkline.server.events.progress import OpenDelivery, ParkedLane, Progress
from trunkline.server.events.settings import StreamSettings
from trunkline.server.events.stream import EventStream
from trunkline.server.events.subscription import SubscriptionState
from trunkline.server.journal.batch import Batch
from trunkline.server.journal.block import Block
from trunkline.server.journal.log import LogConfig

Config = events_pb2.SubscriptionConfig
EARLIEST = Config(start=events_pb2.StartPosition(earliest=True))
KEYED = Config(start=events_pb2.StartPosition(earliest=True), ordering=Config.ORDERING_KEYED)


def a_stream(name: str = "prices", **more: Any) -> events_pb2.StreamConfig:
    """A stream of which every event may go at once."""
    compaction = events_pb2.StreamConfig.Compaction(min_lag=Duration())
    return events_pb2.StreamConfig(namespace="shop", name=name, dedupe_window=Duration(), compaction=compaction, **more)


async def made(world: World) -> EventStream:
    stream, _ = await world.bus.streams.create(a_stream(), BY)
    return stream


async def publish(world: World, keys: Sequence[str], *, prefix: str = "") -> None:
    """An event of each key, each a block of its own."""
    for number, key in enumerate(keys):
        data = publish_request([event(f"{prefix}{number}{key}", key=key, data=b"x")], stream="prices")
        await world.publishing.publish(data, BY, lambda _: None)


async def compact(world: World, stream: EventStream, **config: Any) -> Compactor:
    compactor = Compactor(
        lambda: [stream], world.clock, CompactionConfig(**{"dirty_bytes_min": 0, "dirty_ratio": 0.0} | config)
    )
    await compactor.compact(stream)
    return compactor


async def settled() -> None:
    await asyncio.sleep(0.2)


async def opened(world: World, config: Config, *, credit: int = 1_000, **more: Any) -> Client:
    client = world.connect()
    await client.open(stream="prices", config=config, credit=credit, **more)
    await settled()
    return client


def test_what_vanishes_before_it_is_sent_uses_up_no_credit() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            stream = await made(world)
            await publish(world, "abababab")
            client = await opened(world, EARLIEST, credit=1, name="billing")
            assert client.offsets == [0]
            await compact(world, stream)
            await client.ack(0)
            await client.give(1)
            await settled()
            assert client.offsets == [0, 6], "all but the last two were looked at, and are gone"
            await client.ack(6)
            await client.give(1)
            await settled()
            assert client.offsets == [0, 6, 7]
            await client.ack(7)
            await settled()
            [state] = bus.subscriptions.states("shop", "prices")
            assert (state.lag, state.in_flight) == (0, 0)
            assert stream.feeds["billing"].state.counts.compacted == 5
            assert bus.metrics()["compacted_total"] == 5

    virtual(main)


def test_what_vanishes_in_flight_is_acknowledged_as_ever_and_what_comes_again_is_done() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            stream = await made(world)
            await publish(world, "aab")
            client = await opened(world, EARLIEST, name="billing")
            assert client.offsets == [0, 1, 2]
            await compact(world, stream)
            await client.settle(2, 0)  # NACK: it would come again, and is gone
            await client.ack(1, 2)
            await settled()
            assert client.offsets == [0, 1, 2]
            feed = stream.feeds["billing"]
            assert (feed.lag, feed.state.counts.done, feed.state.counts.compacted) == (0, 2, 1)

    virtual(main)


@pytest.mark.parametrize("crash", [False, True])
def test_a_checkpoint_names_events_that_are_gone_at_the_restart(crash: bool) -> None:
    async def main() -> None:
        world = World()
        async with world.running(crash=crash):
            stream = await made(world)
            await publish(world, "abcabc")
            client = await opened(world, EARLIEST, name="billing")
            await client.settle(2, 0, 1, delay_s=1)  # named in the checkpoint, put off
            await client.settle(3, 2, reason="no")  # set aside
            await client.ack(3)
            await settled()
            await compact(world, stream)
        async with world.running():
            stream = await made(world)
            assert [o for b in await stream.event_log.log.read(0, max_bytes=1 << 20) for o in b.offsets] == [3, 4, 5]
            client = await opened(world, EARLIEST, name="billing")
            await settled()
            assert sorted(client.offsets) == [4, 5]
            await client.ack(4, 5)
            await settled()
            feed = stream.feeds["billing"]
            assert feed.lag == 0
            shown = await set_aside(stream, feed, max_events=10)
            assert [(one.offset, one.HasField("event")) for one in shown] == [(2, False)]
            assert feed.release([2]) == 1
            await settled()
            assert not feed.state.set_aside
            assert client.offsets.count(2) == 0

    virtual(main)


def test_who_pulls_is_given_what_is_left() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            stream = await made(world)
            feed, _ = await bus.subscriptions.create(stream, "billing", EARLIEST, BY)

            async def fetched(count: int) -> list[int]:
                pieces = await bus.subscriptions.fetch(
                    feed, max_events=count, max_bytes=0, wait_ns=1_000_000_000, client="me"
                )
                response = events_pb2.FetchResponse.FromString(b"".join(pieces))
                return [delivery.offset for delivery in response.deliveries]

            await publish(world, "aaab")
            assert await fetched(1) == [0]
            await compact(world, stream)
            assert await fetched(1) == [2]
            assert await fetched(5) == [3]
            feed.settle(1, [0, 2, 3], None)
            await settled()
            assert feed.lag == 0

    virtual(main)


def test_a_lane_whose_events_vanish_is_free() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            stream = await made(world)
            await publish(world, ["a", "a", "a", "b"])
            client = await opened(world, KEYED, name="billing")
            assert client.offsets == [0, 3], "the others of a wait behind its first"
            await publish(world, ["a"], prefix="again")
            await compact(world, stream)
            await client.ack(0, 3)
            await settled()
            assert client.offsets == [0, 3, 4]
            await client.ack(4)
            await settled()
            assert stream.feeds["billing"].lag == 0

    virtual(main)


def test_a_parked_lane_whose_events_vanish_is_free() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            stream = await made(world)
            await publish(world, ["a", "a", "a", "b"])
            client = await opened(world, KEYED, name="billing", credit=100)
            feed = stream.feeds["billing"]
            for key, offsets in feed.state._order.park_stuck(1, 0) or feed.state._order.park_stuck(2, 0):  # type: ignore[attr-defined]
                feed.state._let_go(key, offsets)
            assert feed.state.parked == 1
            await publish(world, ["a"], prefix="again")
            await compact(world, stream)
            await client.ack(0, 3)
            await settled()
            await settled()
            assert client.offsets == [0, 3, 4]
            await client.ack(4)
            await settled()
            assert (feed.lag, feed.state.parked, feed.state._parked_entries) == (0, 0, {})

    virtual(main)


def test_what_was_said_of_a_parked_event_goes_with_it() -> None:
    limits = Limits(ordering=Ordering.KEYED)
    progress = Progress(
        incarnation=1, floor=5, delivered_to=5, open=(OpenDelivery(2, 3, 0, key=7),), parked=(ParkedLane(7, 1, 0),)
    )
    state = SubscriptionState.recover(limits, progress, end=5, now_ns=0, time_ns=0)
    assert state.save(0, 0).progress.open == progress.open
    assert state.wanted_lanes() == [(7, 1)]
    state.readmit(7, [], 5, time_ns=0)  # it was compacted away
    assert not state.wanted_lanes()
    saved = state.save(0, 0).progress
    assert (saved.open, saved.parked, saved.floor) == ((), (), 5)


@pytest.mark.parametrize("ordering", [Config.ORDERING_PARALLEL, Config.ORDERING_KEYED])
def test_a_gap_wider_than_a_subscription_looks_ahead_holds_up_nothing(ordering: Any) -> None:
    """And the checkpoint has no bit for each of its offsets."""

    async def main() -> None:
        world = World()
        async with world.running():
            stream = await made(world)
            await publish(world, ["first"])
            burst = [event(str(n), key="again") for n in range(10_000)]
            for turn in range(45):
                for n, one in enumerate(burst):
                    one.id = f"{turn}-{n}"
                await world.publishing.publish(publish_request(burst, stream="prices"), BY, lambda _: None)
            await compact(world, stream)
            await publish(world, ["last"])
            config = Config(start=events_pb2.StartPosition(earliest=True), ordering=ordering)
            client = await opened(world, config, name="billing")
            await settled()
            assert client.offsets == [0, 450_000, 450_001], "none waits for the one before the gap"
            await client.ack(450_000)
            await settled()
            checkpoints = await world.engine.open_log("trunkline.subscriptions", LogConfig())
            blocks: list[Block] = await checkpoints.read(checkpoints.first_offset, max_bytes=1 << 30)
            progress = [decode(block.record(i)) for block in blocks for i in range(block.count)]
            assert max(len(one.done) for one in progress) <= bounds.DEFAULT.reach_max // 8 + 1
            await client.ack(0, 450_001)
            await settled()
            assert stream.feeds["billing"].lag == 0
        async with world.running():
            stream = await made(world)
            assert stream.feeds["billing"].lag == 0

    virtual(main)


def test_a_block_hides_no_other_in_the_cache() -> None:
    """Where compaction has been, blocks begin and end elsewhere than they did."""

    def block(start: int, end: int) -> EventBlock:
        batch = Batch.of_records([])
        raw = Block.of_batch(batch, base_offset=start, time_ns=0, incarnation=1)
        return EventBlock(raw, range(0), start=start, end=end)

    cache = BlockCache()
    cache.put(block(500, 600))
    cache.put(block(700, 800))
    cache.put(block(0, 1_000))
    assert [cache.find(offset).start for offset in (0, 550, 650, 750, 999)] == [0] * 5  # type: ignore[union-attr]
    assert cache.find(1_000) is None
    cache.put(block(1_000, 1_100))
    cache.put(block(900, 1_050))
    assert cache.find(1_060) is not None
    assert cache.bytes == 3 * block(0, 1).size


def test_repeats_are_recognised_of_what_is_gone() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            config = a_stream()
            config.ClearField("dedupe_window")
            stream, _ = await world.bus.streams.create(config, BY)
            assert stream.settings.min_lag_ns == 120_000_000_000, "no event goes while its id is known"
            await publish(world, "aa")
            await compact(world, stream)
            assert stream.event_log.log.compacted.runs == 0
            await asyncio.sleep(121)
            await compact(world, stream)
            assert stream.event_log.log.compacted.removed == 1
            assert stream.event_log.log.next_offset == 2
            data = publish_request([event("new", key="a")], stream="prices", expected_offset=2)
            await world.publishing.publish(data, BY, lambda _: None)

    virtual(main)


def test_what_is_asked_for_comes_back_and_defaults_are_filled_in() -> None:
    settings = StreamSettings.of(events_pb2.StreamConfig(compaction=events_pb2.StreamConfig.Compaction()))
    assert settings.compaction is not None
    assert (settings.min_lag_ns, settings.compaction.tombstone_retention_ns) == (600_000_000_000, 86_400_000_000_000)
    assert StreamSettings.of(settings.message("shop", "prices")) == settings
    none = StreamSettings.of(events_pb2.StreamConfig())
    assert none.compaction is None
    assert not none.message("shop", "prices").HasField("compaction")


def test_tombstones_and_keys() -> None:
    def ce(**more: Any) -> Any:
        made: Any = event("1", key=more.pop("key", "k"))
        made.ClearField("data")
        for name, value in more.pop("attributes", {}).items():
            setattr(made.attributes["tombstone"], name, value)
        for name, value in more.items():
            setattr(made, name, value)
        return made

    events = [
        ce(attributes={"ce_boolean": True}),
        ce(attributes={"ce_string": "true"}),
        ce(attributes={"ce_boolean": True}, text_data="there is some"),
        ce(attributes={"ce_boolean": False}),
        ce(attributes={"ce_string": "yes"}),
        ce(attributes={"ce_boolean": True}, key=""),
        ce(text_data="tombstone"),
        ce(attributes={"ce_boolean": True}, binary_data=b""),
    ]
    request = events_pb2.PublishRequest(namespace="shop", events=events).SerializeToString()
    batch = Batch.of_scan(scan_publish(request, stream_request=False))
    block = Block.of_batch(batch, base_offset=0, time_ns=0, incarnation=1)
    assert EventKeys().tombstones(block) == [0, 1, 7]
    one, two, other = EventKeys().digests(block, [0, 2, 5])
    assert one == two != other


def test_a_stream_that_is_compacted_takes_no_dead_letters() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            await made(world)
            stream = await bus.streams.get("shop", "", BY)
            with pytest.raises(InvalidArgument, match="not compacted"):
                await bus.subscriptions.create(stream, "billing", Config(dead_letter_stream="prices"), BY)
            assert "billing" not in stream.feeds

    virtual(main)


def test_a_disk_that_fails_is_tried_again_later_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            stream = await made(world)
            await publish(world, "aa")
            asked = 0

            async def full(*_: object, **__: object) -> bool:
                nonlocal asked
                asked += 1
                raise DiskFull("no room")

            monkeypatch.setattr(stream.event_log.log, "compact_keys", full)
            compactor = Compactor(lambda: [stream], world.clock, CompactionConfig(interval_s=1.0))
            running = asyncio.create_task(compactor.run())
            await asyncio.sleep(60.5)
            assert 4 <= compactor.failures <= 6, "each time twice as long"
            assert asked > compactor.failures, "the bus has one of its own"
            monkeypatch.undo()
            running.cancel()
            await compact(world, stream)
            assert stream.state(copies=1).compaction.removed_events == 1

    virtual(main)
