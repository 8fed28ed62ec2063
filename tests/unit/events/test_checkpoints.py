"""Checkpoints on a log that fails: nothing is delivered that is not counted, and it goes on when the disk does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf import duration_pb2

from reference.events_world import BY, World
from reference.registry_world import virtual
from trunkline.api.v1 import events_pb2
from trunkline.core.errors import OutcomeUnknown
from trunkline.server.events.checkpoint import SUBSCRIPTIONS
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
