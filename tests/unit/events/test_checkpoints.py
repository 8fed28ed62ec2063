"""Checkpoints on a log that fails: nothing is delivered that is not counted, and it goes on when the disk does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import duration_pb2

from reference.events_world import BY, Ack, World
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import OutcomeUnknown
from trunkline.server.events import bounds
from trunkline.server.events.bounds import HELD_MAX, LookAhead
from trunkline.server.events.checkpoint import SUBSCRIPTIONS, encode
from trunkline.server.events.progress import OpenDelivery, Progress, SetAside
from trunkline.server.journal.batch import BLOCK_RECORDS_MAX, BODY_BYTES_MAX
from trunkline.server.journal.log import LogConfig

EARLIEST = events_pb2.SubscriptionConfig(start=events_pb2.StartPosition(earliest=True))


def test_nothing_is_delivered_uncounted_while_the_disk_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            log: Any = await world.engine.open_log(SUBSCRIPTIONS, LogConfig())
            append = log.append

            async def failing(*_: object, **__: object) -> None:
                log.failed = OutcomeUnknown("fsync failed")
                raise log.failed

            async def recover() -> None:
                log.failed = None
                log.append = append

            log.append, log.recover = failing, recover
            client = world.connect()
            await client.open(name="billing", config=EARLIEST)
            await world.publish("a")
            await asyncio.sleep(0.9)
            assert client.deliveries == []
            assert bus.checkpoints.failures == 1
            await client.received(1)
            assert client.attempts == [(0, 1)]
            assert bus.metrics()["checkpoint_failures_total"] == 1

    virtual(main)


def test_many_events_set_aside_with_long_reasons_hold_up_nobody() -> None:
    """All that is due goes in one append: a checkpoint that did not fit into a record would stop every subscription."""

    async def main() -> None:
        world = World()
        async with world.running() as bus:
            stream = await bus.streams.get("shop", "", BY)
            roomy = events_pb2.SubscriptionConfig(max_in_flight=10_000)
            full, _ = await bus.subscriptions.create(stream, "full", roomy, BY)
            await bus.subscriptions.create(stream, "other", roomy, BY)
            for batch in range(4):
                await world.publish(*(f"{batch}-{i}" for i in range(500)))
            client = world.connect()
            await client.open(name="full", credit=2_000)
            await client.received(2_000)
            await client.settle(Ack.OUTCOME_TERM, *range(2_000), reason="\u00e9" * 512)
            await asyncio.sleep(1)
            assert bus.checkpoints.failures == 0
            assert not full.state.dirty
            other = world.connect()
            await other.open(name="other", credit=2_000)
            await other.received(2_000)
        async with world.running() as bus:
            feed = (await bus.streams.get("shop", "", BY)).feeds["full"]
            assert len(feed.state.set_aside) == 2_000
            assert set("".join(aside.reason for aside in feed.state.set_aside.values())) == {"\u00e9"}

    virtual(main)


def test_the_longest_checkpoint_fits_into_a_record() -> None:
    offset, time_ns = 1 << 62, 1 << 62
    longest = Progress(
        incarnation=(1 << 64) - 1,
        floor=offset,
        done=b"\xff" * (LookAhead().look_ahead_max // 8 + BLOCK_RECORDS_MAX // 8),
        delivered_to=offset,
        set_aside=tuple(SetAside(offset + i, 100, "x" * 1_024, time_ns) for i in range(HELD_MAX)),
    )
    assert len(encode(longest)) <= BODY_BYTES_MAX
    opened = tuple(OpenDelivery(offset + i, 100, time_ns) for i in range(HELD_MAX))
    assert len(encode(replace(longest, set_aside=(), open=opened))) <= BODY_BYTES_MAX


def test_no_more_is_delivered_than_a_checkpoint_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "HELD_MAX", 10)

    async def main() -> None:
        world = World()
        async with world.running():
            client = world.connect()
            await client.open(name="billing", config=EARLIEST)
            await world.publish(*(str(i) for i in range(30)))
            await client.received(10)
            await client.settle(Ack.OUTCOME_TERM, 0, 1, reason="no")
            await asyncio.sleep(1)
            assert client.offsets == list(range(10))
            await client.ack(2, 3, 4)
            await client.received(13)
            await asyncio.sleep(1)
            assert client.offsets == list(range(13))

    virtual(main)


def test_a_stream_that_goes_leaves_nothing_to_checkpoint() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            streams = [events_pb2.StreamConfig(namespace="shop", name=f"s{i}") for i in range(5)]
            for config in streams:
                await bus.streams.create(config, BY)
                client = world.connect()
                await client.open(name="billing", stream=config.name, config=EARLIEST)
                await world.publish("a", stream=config.name)
                await client.received(1)
                await asyncio.sleep(1)
                await client.ack(0)
                await bus.streams.delete("shop", config.name, BY)
            await asyncio.sleep(0.01)  # what was on its way to the disk when the last one went is there
            written = bus.checkpoints.written
            await asyncio.sleep(1)
            assert bus.checkpoints.written == written
            assert not bus.checkpoints._dirty  # nothing else tells that it shrinks

    virtual(main)


def test_metrics_and_alarms_say_what_is_there() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            client = world.connect()
            config = events_pb2.SubscriptionConfig(max_deliveries=1, ack_deadline=duration_pb2.Duration(seconds=1))
            await client.open(name="billing", config=config, credit=1)
            await world.publish("a", "b")
            await world.publish("a")
            await client.received(1)
            values = bus.metrics()
            assert (values["published_total"], values["duplicates_total"], values["in_flight"]) == (2, 1, 1)
            assert bus.alarms() == []
            await asyncio.sleep(2)
            [alarm] = bus.alarms()
            assert (alarm.name, alarm.namespace, alarm.subject) == ("EVENTS_SET_ASIDE", "shop", "events/billing")
            assert bus.metrics()["lag_positions_max"] == 1
            stream = await bus.streams.get("shop", "", BY)
            assert bus.subscriptions.feed(stream, "billing").release([]) == 1
            assert bus.alarms() == []

    virtual(main)


def test_what_is_said_of_a_subscription_that_was_deleted_is_not_saved() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as bus:
            stream = await bus.streams.get("shop", "", BY)
            feed, _ = await bus.subscriptions.create(stream, "billing", EARLIEST, BY)
            client = world.connect()
            await client.open(name="billing")
            await world.publish("a")
            await client.received(1)
            consumer = next(iter(feed.consumers))
            await bus.subscriptions.delete("shop", "events", "billing", BY)
            await asyncio.sleep(1)
            log = await world.engine.open_log(SUBSCRIPTIONS, LogConfig())
            end = log.next_offset
            assert feed.settle(Ack.OUTCOME_ACK, [0], consumer) == []
            assert feed.state.dirty
            await asyncio.sleep(1)
            assert log.next_offset == end

    virtual(main)
